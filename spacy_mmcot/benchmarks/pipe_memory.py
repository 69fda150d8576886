"""The most memory that a pipeline takes, in a process that does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from .memory import own_peak_mb


def peak_mb(pipeline: str, texts: Sequence[str]) -> float:
    """Megabytes that loading the pipeline and running it over the texts takes at most, Python and
    all libraries included. pipeline: a folder or a package."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, pipeline],
        input=json.dumps(list(texts)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        encoding="utf-8",
    )
    return float(done.stdout.splitlines()[-1])


def _measure() -> None:
    import spacy

    texts = json.loads(sys.stdin.read())
    for _ in spacy.load(sys.argv[1]).pipe(texts):
        pass
    print(round(own_peak_mb(), 1))


if __name__ == "__main__":
    _measure()

"""Peak memory: of this process, and of a pipeline in a separate process."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_STATUS = Path("/proc/self/status")


def read_own_peak_mb() -> float:
    """Of this process, in units of 1024 * 1024 bytes."""
    if _STATUS.exists():
        # Linux hands a child the ru_maxrss of the process that started it.
        rows = _STATUS.read_text("ascii").splitlines()
        return int(next(row for row in rows if row.startswith("VmHWM:")).split()[1]) / 1024
    return get_peak_mb(resource.getrusage(resource.RUSAGE_SELF))


def get_peak_mb(usage: resource.struct_rusage) -> float:
    """The peak that the system reports, in units of 1024 * 1024 bytes."""
    return usage.ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


def measure_peak_mb(pipeline: str, texts: Sequence[str]) -> float:
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
    print(round(read_own_peak_mb(), 1))


if __name__ == "__main__":
    _measure()

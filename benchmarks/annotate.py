"""What `annotate` costs as the number of documents grows, one process per size."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkErrors
from spacy_mmcot.errors import MMCoTError

from .memory import get_peak_mb

_NAMES = ("Anna", "Ben Okri", "Carla Diaz", "Dmitri", "Eve Li", "Farid", "Ingrid Moen", "Tomas")
_PLACES = ("Oslo", "Lagos", "New York", "Lima", "Rome", "the Harbour Museum", "Anfield")
_FRAMES = (
    "{a} sings in {x} tonight and half of the town is there to hear it",
    "Nobody saw {a} leaving {x} again #{tag}",
    "{x}, here comes {a} with the band!",
    "What a match: {a} scores twice for {x} in the rain, {tag} writes",
    "Still thinking about the walk through {x} with {a} and {b}",
)


def make_texts(count: int) -> Iterator[str]:
    """Short posts. Each holds a word that no other has, as real ones do, so that what grows with
    the vocabulary shows."""
    draw = random.Random(0)
    for number in range(count):
        a, b = draw.sample(_NAMES, 2)
        frame = draw.choice(_FRAMES) + ("" if number % 2 else " {tag}")
        yield frame.format(a=a, b=b, x=draw.choice(_PLACES), tag=f"u{number}")


def measure_growth(
    pipeline: str, sizes: Sequence[int], workers: int = 1, batch_size: int = 256
) -> dict[str, Any]:
    """For each number of docs: docs_per_second, loading included, peak_mb of the largest process,
    and seconds. With two sizes or more, what lies between the smallest and the largest:
    docs_per_second without loading, and memory_ratio.

    Raises MMCoTError where a run fails; its own message stands on stderr.
    """
    figures: dict[str, Any] = {"workers": workers, "batch_size": batch_size}
    seconds: dict[int, float] = {}
    peaks: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            source = Path(folder) / f"{size}.jsonl"
            with source.open("w", encoding="utf-8") as file:
                for number, text in enumerate(make_texts(size)):
                    file.write(json.dumps({"id": number, "text": text}) + "\n")
            output = Path(folder) / f"{size}.annotated.jsonl"
            options = ("--workers", workers, "--batch-size", batch_size)
            seconds[size], peaks[size] = _run(pipeline, source, output, *options)
            figures[f"docs_per_second_{size}"] = round(size / seconds[size], 1)
            figures[f"peak_mb_{size}"] = round(peaks[size], 1)
            figures[f"seconds_{size}"] = round(seconds[size], 1)
    least, most = min(sizes), max(sizes)
    if least < most:
        took = seconds[most] - seconds[least]
        figures["docs_per_second"] = round((most - least) / took, 1) if took > 0 else None
        figures["memory_ratio"] = round(peaks[most] / peaks[least], 3)
    return figures


def _run(pipeline: str, source: Path, output: Path, *options: object) -> tuple[float, float]:
    """Seconds and the peak of the largest process in MB."""
    words = [pipeline, source, "--output", output, *options]
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "spacy", "mmcot", "annotate", *map(str, words)],
        stdout=subprocess.DEVNULL,
    )
    # wait4 gives the usage of this process and its children; getrusage would give the maximum over
    # all runs so far.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise MMCoTError(BenchmarkErrors.E752.format(status=process.returncode))
    return time.perf_counter() - started, get_peak_mb(usage)

"""What it costs to start: processor time from a fresh process to its first doc, memory, and disk,
of a pipeline as it is and of its standalone wheel in a virtual environment of its own.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from statistics import median
from typing import Any

from spacy_mmcot.errors import Errors, MMCoTError

_PROGRAM = """
import json, resource, sys, time
figures = {}

def step(name, code):
    wall, cpu = time.perf_counter(), time.process_time()
    exec(code, globals())
    figures[name + "_s"] = time.perf_counter() - wall
    figures[name + "_cpu_s"] = time.process_time() - cpu

step("import_spacy", "import spacy")
step("load", "nlp = spacy.load(sys.argv[1])")
step("first_doc", "nlp(sys.argv[2])")
step("second_doc", "nlp(sys.argv[2])")
figures["cold_cpu_s"] = sum(figures[f"{n}_cpu_s"] for n in ("import_spacy", "load", "first_doc"))
with nlp.memory_zone():
    for doc in nlp.pipe(f"{sys.argv[2]} {n}" for n in range(1000)):
        pass
try:
    with open("/proc/self/status") as file:
        figures["cold_rss_mb"] = next(int(s.split()[1]) for s in file if "VmRSS" in s) / 1024
except OSError:
    figures["cold_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(figures))
"""
_TEXT = "Great night at Anfield with Sofia Marchetti, Liverpool was loud"


def measure_cold_start(pipeline: str, rounds: int = 3) -> dict[str, Any]:
    """`cold_cpu_s`, processor seconds from the start to the first doc, `cold_rss_mb`, resident
    memory after 1,000 docs, and `environment_mb`, the installed packages on disk, of the standalone
    int8 wheel; the same of the pipeline itself with the prefix `torch_`; and `wheel_mb`. Medians
    over `rounds` processes; `load` holds the imports that a pipeline brings.

    Raises MMCoTError where the pipeline cannot be loaded or exported, or its wheel not installed.
    """
    figures: dict[str, Any] = {"rounds": rounds}
    with tempfile.TemporaryDirectory() as work:
        wheel = _build(pipeline, Path(work))
        figures["wheel_mb"] = wheel.stat().st_size / 1e6
        environment = Path(work) / "environment"
        venv.create(environment, symlinks=True, with_pip=False)
        python = environment / "bin" / "python"
        install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
        _run([*install, "-c", "constraints.txt", str(wheel)], str(wheel))
        (packages,) = environment.glob("lib/python*/site-packages")
        files = (path.stat().st_size for path in packages.rglob("*") if path.is_file())
        figures["environment_mb"] = sum(files) / 1e6
        # Isolated: what lies in the working directory is not installed there.
        figures |= _measure([str(python), "-I"], wheel.name.partition("-")[0], rounds)
    torch = {"environment_mb": _measure_packages("spacy-mmcot")}
    torch |= _measure([sys.executable], pipeline, rounds)
    figures |= {f"torch_{name}": value for name, value in torch.items()}
    return {name: round(value, 3) for name, value in figures.items()}


def _build(pipeline: str, work: Path) -> Path:
    from spacy_mmcot.production.export import build_wheel, export_standalone
    from spacy_mmcot.production.job import load_pipeline

    folder = work / "pipeline"
    export_standalone(load_pipeline(pipeline), "int8").to_disk(folder)
    return build_wheel(folder)


def _measure(python: list[str], pipeline: str, rounds: int) -> dict[str, float]:
    command = [*python, "-c", _PROGRAM, pipeline, _TEXT]
    runs = [json.loads(_run(command, pipeline).splitlines()[-1]) for _ in range(rounds)]
    return {name: median(run[name] for run in runs) for name in runs[0]}


def _run(command: list[str], source: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise MMCoTError(Errors.E700.format(source=source, reason=reason))
    return done.stdout


def _measure_packages(root: str) -> float:
    """Megabytes of an installed package and all that it requires."""
    waiting, seen, total = [root], set[str](), 0
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        for file in found.files or ():
            path = Path(str(file.locate()))
            total += path.stat().st_size if path.is_file() else 0
        needed = [line for line in found.requires or () if "extra ==" not in line]
        waiting += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in needed]
    return total / 1e6

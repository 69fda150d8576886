"""How long a new process takes until its first document."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import Any

from spacy_mmcot.errors import Errors, MMCoTError

# The steps of a user's program; the start of the interpreter is left out.
_PROGRAM = """
import json, sys, time

figures = {}

def step(name, code):
    wall, cpu = time.perf_counter(), time.process_time()
    exec(code, globals())
    figures[name + "_s"] = time.perf_counter() - wall
    figures[name + "_cpu_s"] = time.process_time() - cpu

step("import_spacy_mmcot", "import spacy_mmcot")
step("import_spacy", "import spacy")
step("load", "nlp = spacy.load(sys.argv[1])")
step("first_doc", "nlp(sys.argv[2])")
step("second_doc", "nlp(sys.argv[2])")
print(json.dumps(figures))
"""
_TEXT = "Great night at Anfield with Sofia Marchetti, Liverpool was loud"


def measure_cold_start(pipeline: str, rounds: int = 3) -> dict[str, Any]:
    """Seconds, by the clock and of the processor, that a fresh process spends on each step from
    its first import to its second document; medians over `rounds` processes. `load` holds the
    imports that a pipeline brings: torch and transformers above all.

    Raises MMCoTError where the pipeline cannot be loaded.
    """
    runs = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, pipeline, _TEXT], capture_output=True, text=True
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise MMCoTError(Errors.E700.format(source=pipeline, reason=reason))
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    figures = {name: median(run[name] for run in runs) for name in runs[0]}
    for kind in ("_s", "_cpu_s"):
        steps = ("import_spacy_mmcot", "import_spacy", "load", "first_doc")
        figures["to_first_doc" + kind] = sum(figures[step + kind] for step in steps)
    return {"rounds": rounds, **{name: round(value, 3) for name, value in figures.items()}}

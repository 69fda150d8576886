"""Results files, one finished run of a plan a line, and the scores over their seeds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

from spacy_mmcot.files import iter_lines
from spacy_mmcot.messages import located

if TYPE_CHECKING:
    from rich.table import Table

# Of a line: a reader of results refuses lines of another one.
SCHEMA = 1
_FIELDS = {"schema", "experiment", "run", "seed", "evaluated_on", "metrics"} | {
    "also_on",
    "other_pictures",
}
_WITH = {
    "none": "no pictures",
    "real": "real pictures",
    "shuffled": "shuffled pictures",
    "black": "black pictures",
    "foreign": "pictures of no meaning",
    "fitting": "pictures of another meaning",
}
SCORES = {
    "ents_f": "entity F1 (strict)",
    "ambiguous_f": "entity F1 (ambiguous names)",
    "rel_f": "relation F1 (gold mentions)",
    "rel_e2e_f": "relation F1 (end to end)",
}


def read_all_results(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The lines of a results file by experiment, in the order in which these first finished a run.
    A line cut off by a kill is left out.

    Raises MMCoTError for a line that is no result, or one of another schema.
    """
    if not path.is_file():
        return {}
    found: dict[str, list[dict[str, Any]]] = {}
    for number, raw in iter_lines(path):
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        fits = isinstance(line, dict) and line.keys() >= _FIELDS and line["schema"] == SCHEMA
        if not fits:
            expected = f"an object of schema {SCHEMA} with {', '.join(sorted(_FIELDS))}"
            cure = "Name a file that `python -m research run` wrote."
            raise located(path, number, "not a result", expected, cure)
        found.setdefault(line["experiment"], []).append(line)
    return found


def read_results(path: Path, experiment: str) -> list[dict[str, Any]]:
    """The lines of one experiment."""
    return read_all_results(path).get(experiment, [])


def by_data(results: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The lines by the data that they are scored on: the plan's own first, then a run's further
    ones. A run scored with its pictures read in other ways has a line for each, as a
    run of the name "student, shuffled pictures"."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in results:
        own = found.setdefault(line["evaluated_on"], [])
        own.append(line)
        for way, metrics in line["other_pictures"].items():
            own.append({**line, "run": f"{line['run']}, {_WITH[way]}", "metrics": metrics})
    for line in results:
        for part, metrics in line["also_on"].items():
            found.setdefault(part, []).append({**line, "metrics": metrics})
    return found


class Row(NamedTuple):
    """A run of a plan: its score a seed, and what its training cost, seconds on the mean."""

    run: str
    scores: dict[int, float]
    steps: int
    seconds: float

    @property
    def mean(self) -> float:
        return mean(self.scores.values())

    @property
    def spread(self) -> float | None:
        """The greatest score less the least; None of a single seed."""
        if len(self.scores) < 2:
            return None
        return max(self.scores.values()) - min(self.scores.values())


def rows(results: list[dict[str, Any]], score: str) -> list[Row]:
    """The runs that have the score, in the order in which they were first finished. Of a run that
    was repeated the last result counts."""
    by_run: dict[str, dict[int, dict[str, Any]]] = {}
    for line in results:
        if line["metrics"].get(score) is not None:
            by_run.setdefault(line["run"], {})[line["seed"]] = line["metrics"]
    found = []
    for run, metrics in by_run.items():
        scores = {seed: m[score] for seed, m in sorted(metrics.items())}
        costs = [m.get("training") or {} for m in metrics.values()]
        seconds = mean(cost.get("seconds", 0.0) for cost in costs)
        found.append(Row(run, scores, costs[0].get("steps", 0), seconds))
    return found


def append_result(path: Path, line: dict[str, Any]) -> None:
    """Add a finished run. Where a kill cut the last line off, the new one does not join it.

    One unbuffered write to a file opened for appending: processes that share the file cannot cut
    into each other's lines.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+", buffering=0) as stream:
        whole = True
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            whole = stream.read(1) == b"\n"
        stream.write((b"" if whole else b"\n") + json.dumps(line).encode() + b"\n")


def summary(results: list[dict[str, Any]], score: str, data: str = "") -> Table | None:
    """The table of one of SCORES, None where no run has it. data: what it was measured on."""
    from rich.table import Table

    found = rows(results, score)
    if not found:
        return None
    seeds = sorted({seed for row in found for seed in row.scores})
    columns = ("run", *(f"seed {s}" for s in seeds), "mean", "spread", "steps", "train s")
    table = Table(*columns, title=f"{data}: {SCORES[score]}" if data else SCORES[score])
    for row in found:
        cells = (*map(row.scores.get, seeds), row.mean, row.spread)
        table.add_row(
            row.run,
            *("" if cell is None else f"{100 * cell:.2f}" for cell in cells),
            str(row.steps),
            f"{row.seconds:.0f}",
        )
    return table

"""Results files and the table over them: every figure comes from a finished run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def read_results(path: Path, experiment: str) -> list[dict[str, Any]]:
    """The lines of one experiment. A last line cut off by a kill is left out."""
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [line for line in lines if line["experiment"] == experiment]


def append_result(path: Path, line: dict[str, Any]) -> None:
    """Add a finished run. Where a kill cut the last line off, the new one does not join it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write(json.dumps(line).encode() + b"\n")


def summary(results: list[dict[str, Any]]) -> Table:
    """Entity F1 a seed, mean and spread (greatest less least) of each run."""
    from rich.table import Table

    seeds = sorted({line["seed"] for line in results})
    table = Table("run", *(f"seed {s}" for s in seeds), "mean", "spread", "steps", "train s")
    by_run: dict[str, dict[int, dict[str, Any]]] = {}
    for line in results:
        by_run.setdefault(line["run"], {})[line["seed"]] = line["metrics"]
    for name, metrics in by_run.items():
        scores = {seed: 100 * m["ents_f"] for seed, m in metrics.items()}
        costs = [m["training"] or {} for m in metrics.values()]
        table.add_row(
            name,
            *(f"{scores[s]:.2f}" if s in scores else "" for s in seeds),
            f"{mean(scores.values()):.2f}",
            f"{max(scores.values()) - min(scores.values()):.2f}",
            str(costs[0].get("steps", "")),
            f"{mean(c.get('seconds', 0.0) for c in costs):.0f}",
        )
    return table

"""Adding to a results file, and the tables over it: every figure comes from a finished run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..analysis.results import SCORES, rows

if TYPE_CHECKING:
    from rich.table import Table


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

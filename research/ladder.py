"""The ladder of students as a table: entity F1 over seeds, words/s, times the speed of the first
row, and MB.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from .results import Row, rows

Speeds = dict[str, dict[str, Any]]


def make_ladder(results: list[dict[str, Any]], speeds: Speeds | None = None) -> list[list[str]]:
    """Header and a row a run. Of a run that was repeated the last result counts.

    speeds: what `python -m benchmarks ladder --json` wrote, where the pipelines took turns. Without
    it words/s are those that each run measured by itself, whatever else the machine did then.
    """
    last = {(line["run"], line["seed"]): line["metrics"] for line in results}
    # A pipeline that reads an LLM's knowledge is no step of the ladder: it needs the LLM.
    readers = {line["run"] for line in results if line["description"].get("knowledge")}
    table = [["student", "entity F1", "seeds", "words/s", "times", "MB"]]
    first: float | None = None
    for row in rows(results, "ents_f"):
        if row.run in readers:
            continue
        own = [metrics for (run, _), metrics in last.items() if run == row.run]
        if speeds is None:
            measured = [metrics["words_per_second"] for metrics in own]
        else:
            measured = [v["words_per_second"] for k, v in speeds.items() if _is_run(k, row)]
        speed = mean(measured) if measured else None
        first = first or speed
        table.append(
            [
                row.run,
                f"{100 * row.mean:.2f}",
                ", ".join(map(str, row.scores)),
                "" if speed is None else f"{speed:,.0f}",
                "" if speed is None or first is None else f"{speed / first:.1f}",
                f"{mean(metrics['model_mb'] for metrics in own):.1f}",
            ]
        )
    return table


def _is_run(pipeline: str, row: Row) -> bool:
    """Whether a pipeline's path is that of one of the run's seeds: RUN-SEED/model-best."""
    return any(f"{row.run}-{seed}" in Path(pipeline).parts for seed in row.scores)

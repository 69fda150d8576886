"""Print the ladder of students as a Markdown table: entity F1 over seeds, words/s, times the speed
of the first row, and MB.

    python research/ladder.py research/results.jsonl [metrics/ladder.json] [--plan ladder]

Words/s are those of `spacy-mmcot benchmark ladder --json`, where the pipelines took turns; without
that file they are the ones that each run measured by itself, on whatever the machine did then.
"""

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

from research.results import read_results, rows

Speeds = dict[str, dict[str, Any]]


def ladder(results: list[dict[str, Any]], speeds: Speeds | None) -> list[list[str]]:
    """Header and a row a run. Where a run was repeated, its last result counts."""
    last = {(line["run"], line["seed"]): line["metrics"] for line in results}
    # A pipeline that reads the LLM's knowledge is no step of the ladder: it runs beside an LLM.
    readers = {line["run"] for line in results if line["description"].get("knowledge")}
    found = [row for row in rows(results, "ents_f") if row.run not in readers]
    table = [["student", "entity F1", "seeds", "words/s", "times", "MB"]]
    first: float | None = None
    for row in found:
        own = [metrics for (run, _), metrics in last.items() if run == row.run]
        if speeds is None:
            speed: float | None = mean(metrics["words_per_second"] for metrics in own)
        else:
            measured = [v["words_per_second"] for name, v in speeds.items() if is_run(name, row)]
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


def is_run(pipeline: str, row: Any) -> bool:
    """Whether a pipeline's path is that of one of the run's seeds: `experiment --keep-models`
    writes RUN-SEED/model-best."""
    return any(f"{row.run}-{seed}" in Path(pipeline).parts for seed in row.scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("speeds", type=Path, nargs="?")
    parser.add_argument("--plan", default="ladder")
    options = parser.parse_args()
    results = read_results(options.results, options.plan)
    if not results:
        parser.error(f"{options.results} holds no run of the plan {options.plan}")
    speeds = json.loads(options.speeds.read_text("utf-8")) if options.speeds else None
    header, *lines = ladder(results, speeds)
    for cells in (header, ["---"] * len(header), *lines):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

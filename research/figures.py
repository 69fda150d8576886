"""Write the figures of the last runs, so that none is typed by hand: metrics/{baseline,student,
teacher}.json of `spacy project run all` go into docs/PROJECT.md, between its FIGURES marks; the
runs of all plans, in results.jsonl, into RESULTS.md.
"""

from __future__ import annotations

import json
from pathlib import Path

from .plan import Plan, read_plan
from .results import SCORES, Row, by_data, read_results, rows

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
NAMES = ("baseline", "student", "teacher")
START, END = "<!-- FIGURES START -->", "<!-- FIGURES END -->"
HEADER = """# Results

What results.jsonl holds of the plans in `plans`, one table for each plan, corpus and score, written
by `python -m research figures`. Strict micro F1; *spread* is the greatest less the least, where
there are several seeds. What the rows are: [README.md](README.md).
"""


def write_figures() -> None:
    page = ROOT / "docs" / "PROJECT.md"
    before, rest = page.read_text("utf-8").split(START)
    _, after = rest.split(END)
    plans = {path.stem: read_plan(path) for path in sorted((FOLDER / "plans").glob("*.yaml"))}
    figures = "\n".join(make_demo_table())
    page.write_text(f"{before}{START}\n{figures}\n{END}{after}", "utf-8")
    tables = [line for plan in plans.values() for line in make_plan_tables(plan)]
    (FOLDER / "RESULTS.md").write_text(HEADER + "\n".join([*tables, ""]), "utf-8")


def make_demo_table() -> list[str]:
    columns = [json.loads((ROOT / "metrics" / f"{name}.json").read_text("utf-8")) for name in NAMES]
    table = [["demo, test split", *NAMES], ["---"] * (len(NAMES) + 1)]
    for key, title in {**SCORES, "ents_ece": "calibration error"}.items():
        if any(metrics.get(key) is not None for metrics in columns):
            table.append([title, *(format_percent(metrics.get(key)) for metrics in columns)])
    table.append(["model, MB", *(str(metrics["model_mb"]) for metrics in columns)])
    return format_markdown(table)


def make_plan_tables(plan: Plan) -> list[str]:
    lines = []
    results = read_results(FOLDER / "results.jsonl", plan.name)
    order = {name: place for place, name in enumerate(plan.runs)}
    # Pictures read in other ways are rows named "student, black pictures".
    results.sort(key=lambda line: order.get(line["run"].split(",")[0], len(order)))
    for data, scored in by_data(results).items():
        for score, title in SCORES.items():
            # With gold mentions given, both protocols are one.
            found = rows(scored, score) if score != "rel_e2e_f" else []
            if found:
                lines += ["", *make_table(f"{plan.name}, {data}, {title}", found)]
    return lines


def make_table(title: str, found: list[Row]) -> list[str]:
    seeds = sorted({seed for row in found for seed in row.scores})
    header = [title, *(f"seed {seed}" for seed in seeds), "mean", "spread"]
    cells = [
        [row.run, *(format_percent(v) for v in (*map(row.scores.get, seeds), row.mean, row.spread))]
        for row in found
    ]
    return format_markdown([header, ["---"] * len(header), *cells])


def format_percent(score: float | None) -> str:
    return "" if score is None else f"{100 * score:.2f}"


def format_markdown(table: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in table]

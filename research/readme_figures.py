"""Write the figures of the last runs, so that none is typed by hand: metrics/{baseline,student,
teacher}.json of `spacy project run all` and the runs in research/results.jsonl of the plans in
research/plans. The chief ones go into README.md, between its FIGURES marks, those of all plans
into research/RESULTS.md.

    python research/readme_figures.py
"""

import json
from pathlib import Path

from research.plan import Plan, read_plan
from research.results import SCORES, Row, by_data, read_results, rows

ROOT = Path(__file__).resolve().parent.parent
PLANS = ROOT / "configs" / "experiments"
NAMES = ("baseline", "student", "teacher")
CHIEF = ("low_resource", "twitter2015", "low_resource_rel")
RESULTS = """# Results

What research/results.jsonl holds of the plans in `research/plans`, one table for each plan,
corpus and score, written by `python research/readme_figures.py`. Strict micro F1; *spread* is the
greatest less the least, where there are several seeds. How the rows came about:
[EXPERIMENTS.md](EXPERIMENTS.md).
"""


def demo_table() -> list[str]:
    columns = [json.loads((ROOT / "metrics" / f"{name}.json").read_text("utf-8")) for name in NAMES]
    lines = [["demo, test split", *NAMES], ["---"] * (len(NAMES) + 1)]
    for key, title in {**SCORES, "ents_ece": "calibration error"}.items():
        if any(metrics.get(key) is not None for metrics in columns):
            lines.append([title, *(percent(metrics.get(key)) for metrics in columns)])
    lines.append(["model, MB", *(str(metrics["model_mb"]) for metrics in columns)])
    return markdown(lines)


def experiment_tables(plan: Plan) -> list[str]:
    lines = []
    results = read_results(ROOT / "results" / "results.jsonl", plan.name)
    order = {name: place for place, name in enumerate(plan.runs)}
    # Pictures read in other ways are rows named "student, black pictures".
    results.sort(key=lambda line: order.get(line["run"].split(",")[0], len(order)))
    for data, scored in by_data(results).items():
        for score, title in SCORES.items():
            # With gold mentions given, both protocols are one.
            found = rows(scored, score) if score != "rel_e2e_f" else []
            if found:
                lines += ["", *experiment_table(f"{plan.name}, {data}, {title}", found)]
    return lines


def experiment_table(title: str, found: list[Row]) -> list[str]:
    seeds = sorted({seed for row in found for seed in row.scores})
    header = [title, *(f"seed {seed}" for seed in seeds), "mean", "spread"]
    cells = [
        [row.run, *(percent(v) for v in (*map(row.scores.get, seeds), row.mean, row.spread))]
        for row in found
    ]
    return markdown([header, ["---"] * len(header), *cells])


def percent(score: float | None) -> str:
    return "" if score is None else f"{100 * score:.2f}"


def markdown(lines: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in lines]


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    start, end = "<!-- FIGURES START -->", "<!-- FIGURES END -->"
    before, rest = text.split(start)
    _, after = rest.split(end)
    plans = {path.stem: read_plan(path) for path in sorted(PLANS.glob("*.yaml"))}
    chief = [line for name in CHIEF for line in experiment_tables(plans[name])]
    figures = "\n".join([*demo_table(), *chief])
    readme.write_text(f"{before}{start}\n{figures}\n{end}{after}", "utf-8")
    tables = [line for plan in plans.values() for line in experiment_tables(plan)]
    (ROOT / "docs" / "RESULTS.md").write_text(RESULTS + "\n".join([*tables, ""]), "utf-8")


if __name__ == "__main__":
    main()

"""Write the figures of the last runs into README.md, between its FIGURES marks, so that none is
typed by hand: metrics/{baseline,student,teacher}.json of `spacy project run all`, and the lines of
results/results.jsonl.

    python scripts/readme_figures.py
"""

import json
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("baseline", "student", "teacher")


def demo_table() -> list[str]:
    metrics = {
        name: json.loads((ROOT / "metrics" / f"{name}.json").read_text("utf-8")) for name in NAMES
    }
    rows = ["| demo, test split | baseline | student | teacher |", "|---|---|---|---|"]
    for title, key in (("entity F1 (strict)", "ents_f"), ("calibration error", "ents_ece")):
        values = " | ".join(f"{100 * metrics[name][key]:.2f}" for name in NAMES)
        rows.append(f"| {title} | {values} |")
    sizes = " | ".join(str(metrics[name]["model_mb"]) for name in NAMES)
    return [*rows, f"| model, MB | {sizes} |"]


def experiment_tables() -> list[str]:
    path = ROOT / "results" / "results.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    rows = []
    for experiment in dict.fromkeys(line["experiment"] for line in lines):
        scores: dict[str, dict[int, float]] = {}
        for line in lines:
            if line["experiment"] == experiment:
                score = 100 * line["metrics"]["ents_f"]
                scores.setdefault(line["run"], {})[line["seed"]] = score
        seeds = sorted({seed for by_seed in scores.values() for seed in by_seed})
        heads = " | ".join(f"seed {seed}" for seed in seeds)
        rows += ["", f"| {experiment}, dev split, entity F1 | {heads} | mean | spread |"]
        rows.append("|---" * (len(seeds) + 3) + "|")
        for run, by_seed in scores.items():
            cells = " | ".join(f"{by_seed[s]:.2f}" if s in by_seed else "" for s in seeds)
            spread = max(by_seed.values()) - min(by_seed.values())
            rows.append(f"| {run} | {cells} | {mean(by_seed.values()):.2f} | {spread:.2f} |")
    return rows


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    start, end = "<!-- FIGURES START -->", "<!-- FIGURES END -->"
    before, rest = text.split(start)
    _, after = rest.split(end)
    figures = "\n".join([*demo_table(), *experiment_tables()])
    readme.write_text(f"{before}{start}\n{figures}\n{end}{after}", "utf-8")


main()

"""What pictures are worth to the demo's student, and where the picture alone decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .picture_ways import Way
from .results import read_results
from .steps import evaluate_pipeline

# How the test posts' pictures are read, and what the figure is called.
WAYS: dict[Way, str] = {
    "none": "demo_text",
    "real": "demo_picture",
    "shuffled": "demo_shuffled",
    "black": "demo_black",
}


def measure_pictures(model: Path, corpus: Path, results: Path) -> dict[str, Any]:
    """Strict entity F1 of the pipeline on corpus/test.spacy with real, other posts', black and no
    pictures, over all mentions and over ambiguous names, and of the last run of the plan
    `pictures_synthetic` in `results` with and without pictures."""
    run = read_results(results, "pictures_synthetic")[-1]
    figures: dict[str, Any] = {
        "synthetic_with": run["metrics"]["ents_f"],
        "synthetic_without": run["other_pictures"]["none"]["ents_f"],
    }
    others = [corpus / f"{split}.spacy" for split in ("train", "unlabelled", "dev")]
    for way, name in WAYS.items():
        metrics = evaluate_pipeline(model, corpus / "test.spacy", pictures=way, ambiguous=others)
        figures[name] = metrics["ents_f"]
        figures[f"{name}_ambiguous"] = metrics["ambiguous_f"]
        figures["demo_ambiguous_n"] = metrics["ambiguous_n"]
    return figures


def show_pictures(figures: dict[str, Any]) -> None:
    title = f"Pictures, entity F1 ({figures['demo_ambiguous_n']} mentions are ambiguous names)"
    table = Table("", "all", "ambiguous", title=title)
    for way, name in WAYS.items():
        scores = (figures[name], figures[f"{name}_ambiguous"])
        table.add_row(f"demo test, {way}", *(f"{100 * score:.2f}" for score in scores))
    for name in ("with", "without"):
        score = figures[f"synthetic_{name}"]
        table.add_row(f"synthetic test, {name} pictures", f"{100 * score:.2f}", "")
    Console().print(table)

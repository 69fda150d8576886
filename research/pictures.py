"""What pictures are worth: the demo student on its test posts with real, other posts', black and
no pictures, and the synthetic corpus in which the picture alone decides. Writes one JSON file.

python research/pictures.py training/student/model-best corpus/demo/gold \
    metrics/pictures_synthetic.jsonl metrics/pictures.json
"""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from research.ambiguity import ambiguous_scores, ambiguous_surfaces
from research.results import read_results
from spacy_mmcot.corpus.reader import Corpus
from spacy_mmcot.evaluation.evaluate import run_pipeline
from spacy_mmcot.files import write_json
from spacy_mmcot.production.pipelines import load_pipeline
from spacy_mmcot.types import Pictures

# How the test posts' pictures are read, and what the figure is called.
WAYS: dict[Pictures, str] = {
    "none": "demo_text",
    "real": "demo_picture",
    "shuffled": "demo_shuffled",
    "black": "demo_black",
}


def main(pipeline: str, corpus: Path, synthetic: Path, output: Path) -> None:
    run = read_results(synthetic, "pictures_synthetic")[-1]
    figures: dict[str, Any] = {
        "synthetic_with": run["metrics"]["ents_f"],
        "synthetic_without": run["other_pictures"]["none"]["ents_f"],
    }
    nlp = load_pipeline(pipeline)
    labelled = [
        eg.reference
        for split in ("train", "unlabelled", "dev", "test")
        for eg in Corpus(corpus / f"{split}.spacy")(nlp)
    ]
    ambiguous = ambiguous_surfaces(labelled)
    for way, name in WAYS.items():
        examples = list(Corpus(corpus / "test.spacy", pictures=way)(nlp))
        metrics, found = run_pipeline(nlp, examples)
        figures[name] = metrics["ents_f"]
        scores = ambiguous_scores(found, ambiguous)
        figures[f"{name}_ambiguous"] = scores["ambiguous_f"]
        figures["demo_ambiguous_n"] = scores["ambiguous_n"]
    write_json(output, figures)
    show(figures)


def show(figures: dict[str, Any]) -> None:
    title = f"Pictures, entity F1 ({figures['demo_ambiguous_n']} mentions are ambiguous names)"
    table = Table("", "all", "ambiguous", title=title)
    for way, name in WAYS.items():
        scores = (figures[name], figures[f"{name}_ambiguous"])
        table.add_row(f"demo test, {way}", *(f"{100 * score:.2f}" for score in scores))
    for name in ("with", "without"):
        score = figures[f"synthetic_{name}"]
        table.add_row(f"synthetic test, {name} pictures", f"{100 * score:.2f}", "")
    Console().print(table)


if __name__ == "__main__":
    pipeline, *paths = sys.argv[1:]
    main(pipeline, *map(Path, paths))

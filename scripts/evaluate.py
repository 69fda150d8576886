"""Score pipelines on one corpus and print their metrics side by side.

    python scripts/evaluate.py test.spacy metrics student=training/student/model-best \
        teacher=training/teacher/model-best --with-knowledge teacher

writes metrics/student.json and metrics/teacher.json.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import spacy
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import spacy_mmcot
from spacy_mmcot.files import write_json

# Title, the prefix of the metrics' keys, and the rows over all labels.
TASKS = (
    ("entities, strict", "ents", {"all (spaCy)": "ents_f", "all (seqeval)": "seqeval_f"}),
    ("relations on gold mentions", "rel", {"all": "rel_f", "macro": "rel_macro_f"}),
    ("relations end to end", "rel_e2e", {"all": "rel_e2e_f"}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Score pipelines on one corpus.")
    parser.add_argument("data", type=Path, help="labelled .spacy file")
    parser.add_argument("output", type=Path, help="folder for a JSON file per pipeline")
    parser.add_argument("pipelines", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--with-knowledge", action="append", default=[], metavar="NAME")
    options = parser.parse_args()
    columns: dict[str, dict[str, Any]] = {}
    for name, _, folder in (pipeline.partition("=") for pipeline in options.pipelines):
        nlp = spacy.load(folder)
        docs = spacy_mmcot.read_docs(options.data, nlp.vocab)
        columns[name] = spacy_mmcot.evaluate(nlp, docs, knowledge=name in options.with_knowledge)
        write_json(options.output / f"{name}.json", columns[name])
    Console().print(make_table(columns))
    for name, metrics in columns.items():
        if "ents_f" in metrics and abs(metrics["ents_f"] - metrics["seqeval_f"]) > 1e-9:
            sys.exit(f"✘ {name}: spaCy's F1 and seqeval's differ. Please report this.")


def make_table(columns: dict[str, dict[str, Any]]) -> Table:
    """F1 scores, overall and by label, and what the pipelines cost. columns: metrics by name."""
    table = Table("F1", *columns, title="Test split")
    for title, prefix, rows in TASKS:
        if all(metrics.get(f"{prefix}_f") is None for metrics in columns.values()):
            continue
        table.add_row(f"[bold]{title}[/bold]")
        for name, key in rows.items():
            table.add_row(name, *(format_percent(m.get(key)) for m in columns.values()))
        per_type = [m.get(f"{prefix}_per_type") or {} for m in columns.values()]
        for label in sorted({label for scores in per_type for label in scores}):
            # A label that a pipeline neither found nor should have found counts as 0.
            cells = [
                format_percent(scores.get(label, {"f": 0.0})["f"]) if scores else ""
                for scores in per_type
            ]
            table.add_row(escape(label), *cells)
        table.add_section()
    metrics = columns.values()
    table.add_row("calibration error", *(format_percent(m.get("ents_ece")) for m in metrics))
    table.add_row("words/s", *(str(m["words_per_second"]) for m in metrics))
    table.add_row("model, MB", *(str(m["model_mb"]) for m in metrics))
    table.add_row("training, s", *(str((m["training"] or {}).get("seconds", "")) for m in metrics))
    return table


def format_percent(score: float | None) -> str:
    return "" if score is None else f"{100 * score:.2f}"


if __name__ == "__main__":
    main()

"""`evaluate`: the metrics of one pipeline on one corpus, as a table and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.training import Example


def evaluate(
    pipeline: Annotated[str, typer.Argument(help="Trained pipeline: a folder or a package")],
    data: Annotated[Path, typer.Argument(help=".spacy file or folder with gold entities")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the metrics as JSON")
    ] = None,
    knowledge: Annotated[
        bool, typer.Option(help="Let the pipeline see the docs' knowledge (for teachers)")
    ] = False,
) -> None:
    """Score PIPELINE on DATA: spaCy's strict span scores, seqeval's, per label, calibration."""
    import json

    from ..corpus.files import replacing
    from ..corpus.readers import Corpus
    from ..errors import Errors, MMCoTError
    from .pipelines import load_pipeline

    nlp = load_pipeline(pipeline)
    examples = list(Corpus(data, knowledge=knowledge)(nlp))
    if not any(eg.reference.has_annotation("ENT_IOB") for eg in examples):
        raise MMCoTError(Errors.E705.format(path=data))
    metrics = measure(nlp, examples)
    metrics["model_mb"] = round(_folder_bytes(nlp.path) / 1e6, 1) if nlp.path else None
    metrics["training"] = nlp.meta.get("mmcot_training")
    _show(metrics)
    if output is not None:
        with replacing(output) as temporary:
            temporary.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def measure(nlp: Language, examples: list[Example]) -> dict[str, Any]:
    """Run the pipeline over the examples' predicted Docs and score them."""
    import time

    from ..components.calibration import expected_calibration_error, scored_mentions
    from ..components.scorers import score_entities, seqeval_scores

    started = time.perf_counter()
    for example, doc in zip(examples, nlp.pipe([eg.predicted for eg in examples]), strict=True):
        example.predicted = doc
    seconds = time.perf_counter() - started
    words = sum(len(eg.predicted) for eg in examples)
    return {
        **score_entities(examples),
        **seqeval_scores(examples),
        "ents_ece": expected_calibration_error(*scored_mentions(examples)),
        "docs": len(examples),
        "words_per_second": round(words / seconds),
    }


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _show(metrics: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "P", "R", "F", title="Entities (strict)")
    rows = [("all", {key[-1]: metrics[f"ents_{key}"] for key in "prf"})]
    rows += sorted((metrics["ents_per_type"] or {}).items())
    rows.append(("seqeval", {key: metrics[f"seqeval_{key}"] for key in "prf"}))
    for name, row in rows:
        table.add_row(name, *(f"{100 * (row[key] or 0.0):.2f}" for key in "prf"))
    console = Console()
    console.print(table)
    training = metrics["training"] or {}
    console.print(
        f"{metrics['docs']} docs, {metrics['words_per_second']} words/s, "
        f"calibration error {100 * metrics['ents_ece']:.2f}, model {metrics['model_mb']} MB, "
        f"trained in {training.get('seconds', '?')} s ({training.get('steps', '?')} steps)"
    )

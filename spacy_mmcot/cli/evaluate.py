"""`evaluate`: the metrics of one pipeline on one corpus, as tables and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..types import Pictures


def evaluate(
    pipeline: Annotated[str, typer.Argument(help="Trained pipeline: a folder or a package")],
    data: Annotated[
        Path, typer.Argument(help=".spacy file or folder with gold entities or relations")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the metrics as JSON")
    ] = None,
    knowledge: Annotated[
        bool, typer.Option(help="Give the docs' knowledge to the pipeline (for teachers)")
    ] = False,
    pictures: Annotated[
        Pictures,
        typer.Option(help="The docs' pictures given to the pipeline; shuffled: another doc's"),
    ] = "none",
    seen: Annotated[
        list[Path] | None,
        typer.Option(
            help="Score names that are labelled in these .spacy files or folders, such as the "
            "train split, apart from new names; repeatable",
            show_default=False,
        ),
    ] = None,
    confusion: Annotated[
        bool, typer.Option("--confusion", help="Show which labels are confused")
    ] = False,
    reliability: Annotated[
        bool, typer.Option("--reliability", help="Show the accuracy at each level of score")
    ] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Write predictions and gold labels, a JSON line per doc, for compare, cascade "
            "and report"
        ),
    ] = None,
) -> None:
    """Score PIPELINE on DATA: entities by spaCy's strict span scores and seqeval's, by boundaries
    alone and by overlap, with calibration; relations on gold mentions and end to end; each per
    label. A pipeline that finds relations but no entities is given the gold ones. Pictures are not
    used unless --pictures is set; shuffled or black ones show what real ones contribute."""
    from rich.console import Console

    from ..corpus.docbin import read_all_docs
    from ..evaluation.evaluate import evaluate as evaluate_docs
    from ..evaluation.evaluate import read_seen_docs
    from ..files import write_json
    from ..production.pipelines import load_pipeline
    from .evaluate_tables import format_lines, make_tables

    nlp = load_pipeline(pipeline)
    metrics = evaluate_docs(
        nlp,
        read_all_docs(data, nlp.vocab),
        knowledge=knowledge,
        pictures=pictures,
        seen=read_seen_docs(seen) if seen else None,
        predictions=predictions,
        source=data,
    )
    console = Console()
    for table in make_tables(metrics, confusion=confusion, reliability=reliability):
        console.print(table)
    for line in format_lines(metrics):
        console.print(line)
    if output is not None:
        write_json(output, metrics)

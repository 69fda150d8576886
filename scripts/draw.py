"""Run a pipeline over labelled docs and draw what it finds beside gold, as one HTML page; under a
doc with a picture, where the pipeline looked in it.

python scripts/draw.py training/student/model-best corpus/demo/gold/dev.spacy drawn.html
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from spacy.tokens import Doc

from spacy_mmcot.cli.evaluate import needs_gold_entities
from spacy_mmcot.cli.pipelines import load_pipeline
from spacy_mmcot.corpus.readers import Corpus
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.files import replacing
from spacy_mmcot.model.alignment import set_alignment
from spacy_mmcot.report.arcs import relations_page
from spacy_mmcot.report.overlay import doc_overlay
from spacy_mmcot.types import Pictures


def draw(
    pipeline: Annotated[str, typer.Argument(help="Trained pipeline: a folder or a package")],
    data: Annotated[Path, typer.Argument(help=".spacy file with gold relations")],
    output: Annotated[Path, typer.Argument(help="HTML file to write")],
    limit: Annotated[int, typer.Option(help="Greatest number of docs, 0 for all", min=0)] = 20,
    min_score: Annotated[float, typer.Option(help="Leave out relations below this score")] = 0.0,
    knowledge: Annotated[
        bool, typer.Option(help="Let the pipeline see the docs' knowledge (for teachers)")
    ] = False,
    pictures: Annotated[
        Pictures, typer.Option(help="Pictures that the pipeline sees, where it can")
    ] = "real",
) -> None:
    nlp = load_pipeline(pipeline)
    read = Corpus(
        data,
        limit=limit,
        knowledge=knowledge,
        gold_entities=needs_gold_entities(nlp),
        pictures=pictures,
    )
    examples = list(read(nlp))
    for name in nlp.pipe_names:
        if nlp.get_pipe_meta(name).factory == "transformer":
            nlp.get_pipe(name).set_extra_annotations = set_alignment
    docs = list(nlp.pipe([example.predicted for example in examples]))
    page = relations_page(
        docs,
        f"{Path(pipeline).name} on {data.name}",
        gold=[example.reference for example in examples],
        below=map(picture_of, docs),
        min_score=min_score,
    )
    with replacing(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def picture_of(doc: Doc) -> str:
    """The doc's picture with the attention on it; empty where the pipeline looked at none."""
    seen = doc._.mmcot_alignment
    return "" if seen is None else doc_overlay(doc, seen, style=False)


if __name__ == "__main__":
    try:
        typer.run(draw)
    except MMCoTError as error:
        sys.exit(f"✘ {error}")

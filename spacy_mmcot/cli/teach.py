"""`teach`: write a teacher's soft labels, and prompt targets, onto a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc


def teach(
    teacher: Annotated[Path, typer.Argument(help="Trained teacher pipeline")],
    inputs: Annotated[
        list[Path], typer.Argument(help=".spacy files or folders of them, with knowledge")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The taught .spacy file")],
    prompt_length: Annotated[
        int,
        typer.Option(
            min=0, help="Also store prompt targets for so many prompt vectors; 0 for none"
        ),
    ] = 0,
    knowledge_encoder: Annotated[
        str | None,
        typer.Option(help="Encoder source for the prompt targets; the teacher's own by default"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    also: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            help="A further teacher of the same labels: the mean of all is taught; repeatable",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[
        bool, typer.Option(help="Let a teacher that reads pictures see those of the docs")
    ] = True,
) -> None:
    """Let a TEACHER label INPUTS softly, unlabelled posts above all."""
    import time

    from ..corpus.docbin import docbin_paths, read_docs, write_docs
    from ..corpus.extensions import set_image
    from ..distillation.ensemble import teach_together
    from ..distillation.teach import KnowledgeEncoder, set_prompt_targets
    from .pipelines import load_pipeline

    started = time.perf_counter()
    nlp = load_pipeline(teacher)
    teachers = [nlp, *(load_pipeline(path, vocab=nlp.vocab) for path in also or ())]
    files = [file for path in inputs for file in docbin_paths(path)]
    docs = [doc for file in files for doc in read_docs(file, nlp.vocab)]
    # Hidden from the teacher, not lost: the student may train on the same pictures.
    hidden = [] if pictures else list(map(_take_picture, docs))
    docs = list(teach_together(teachers, docs, batch_size))
    for doc, picture in zip(docs, hidden, strict=False):
        set_image(doc, picture)
    n_targets = 0
    if prompt_length:
        source = knowledge_encoder or _encoder_source(nlp)
        n_targets = set_prompt_targets(docs, KnowledgeEncoder(source, prompt_length), batch_size)
    write_docs(output, docs)
    seconds = time.perf_counter() - started
    unlabelled = sum(not doc.has_annotation("ENT_IOB") for doc in docs)
    print(
        f"{len(docs)} docs taught ({unlabelled} of them unlabelled), {n_targets} prompt targets, "
        f"{output.stat().st_size / 1e6:.1f} MB, {seconds:.1f} s -> {output}"
    )


def _take_picture(doc: Doc) -> str | bytes | None:
    from ..corpus.extensions import get_image, set_image

    picture = get_image(doc)
    set_image(doc, None)
    return picture


def _encoder_source(nlp: Language) -> str:
    from ..errors import Errors, MMCoTError

    try:
        return nlp.config["components"]["transformer"]["model"]["source"]
    except KeyError:
        raise MMCoTError(Errors.E504.format(pipeline=nlp.pipe_names)) from None

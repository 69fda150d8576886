"""`teach`: write a teacher's soft labels, and prompt targets, onto a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..production.engines import EngineName, choose_engine

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
    engine: Annotated[
        EngineName, typer.Option(help="This process, or a Ray cluster that shares its files")
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="With Ray: processes, one for each CPU by default"),
    ] = None,
    chunk: Annotated[int, typer.Option(min=1, help="With Ray: docs that a worker takes")] = 500,
) -> None:
    """Let a TEACHER label INPUTS softly, unlabelled posts above all."""
    import time

    from ..corpus.docbin import docbin_paths, read_docs, write_docs
    from ..distillation.teach import KnowledgeEncoder, set_prompt_targets
    from ..production.pipelines import load_pipeline
    from ..production.teaching import load_teachers, taught, taught_in_parts

    started = time.perf_counter()
    files = [file for path in inputs for file in docbin_paths(path)]
    sources = [str(source) for source in (teacher, *(also or ()))]

    def finish(docs: list[Doc], nlp: Language | None) -> int:
        n_targets = 0
        if prompt_length:
            source = knowledge_encoder or _encoder_source(nlp or load_pipeline(teacher))
            encoder = KnowledgeEncoder(source, prompt_length)
            n_targets = set_prompt_targets(docs, encoder, batch_size)
        write_docs(output, docs)
        return n_targets

    if engine == "ray":
        shared = taught_in_parts(
            sources,
            load_pipeline,
            files,
            output,
            choose_engine("ray", workers),
            pictures=pictures,
            batch_size=batch_size,
            chunk=chunk,
        )
        with shared as docs:
            n_targets = finish(docs, None)
    else:
        teachers = load_teachers(sources, load_pipeline)
        read = (doc for file in files for doc in read_docs(file, teachers[0].vocab))
        docs = taught(teachers, read, pictures, batch_size)
        n_targets = finish(docs, teachers[0])
    seconds = time.perf_counter() - started
    unlabelled = sum(not doc.has_annotation("ENT_IOB") for doc in docs)
    print(
        f"{len(docs)} docs taught ({unlabelled} of them unlabelled), {n_targets} prompt targets, "
        f"{output.stat().st_size / 1e6:.1f} MB, {seconds:.1f} s -> {output}"
    )


def _encoder_source(nlp: Language) -> str:
    from ..errors import Errors, MMCoTError

    try:
        return nlp.config["components"]["transformer"]["model"]["source"]
    except KeyError:
        raise MMCoTError(Errors.E504.format(pipeline=nlp.pipe_names)) from None

"""`teach`: write a teacher's soft labels, and prompt targets, onto a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..production.engines import EngineName, choose_engine


def teach(
    teacher: Annotated[Path, typer.Argument(help="Trained teacher pipeline")],
    inputs: Annotated[
        list[Path], typer.Argument(help=".spacy files or folders of them, with knowledge")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The .spacy file with soft labels")
    ],
    prompt_length: Annotated[
        int, typer.Option(min=0, help="Also store targets for this many prompt vectors; 0 for none")
    ] = 0,
    knowledge_encoder: Annotated[
        str | None,
        typer.Option(help="Encoder source for the prompt targets; the teacher's own by default"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Docs that run together")] = 64,
    also: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            help="A further teacher with the same labels: the mean of all is written; repeatable",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[
        bool, typer.Option(help="Let a teacher that reads pictures see those of the docs")
    ] = True,
    engine: Annotated[
        EngineName, typer.Option(help="This machine, or a Ray cluster that shares its files")
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes; by default one, with Ray one for each CPU"),
    ] = None,
    chunk: Annotated[
        int, typer.Option(min=1, help="Docs that a worker writes, and a kill loses, at once")
    ] = 500,
) -> None:
    """Predict label probabilities with a TEACHER for INPUTS, above all for unlabelled posts.

    A run that was stopped goes on where it was when the same command is given again.
    """
    from ..production.teaching import TeachRequest, teach_files

    request = TeachRequest(
        [str(source) for source in (teacher, *(also or ()))],
        inputs,
        output,
        pictures,
        prompt_length,
        knowledge_encoder,
        batch_size,
        chunk,
    )
    result = teach_files(request, choose_engine(engine, workers))
    print(
        f"{result.docs} docs taught ({result.unlabelled} of them unlabelled), "
        f"{result.prompt_targets} prompt targets, {output.stat().st_size / 1e6:.1f} MB, "
        f"{result.seconds:.1f} s -> {output}"
    )

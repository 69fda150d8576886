"""`report`: one HTML page about pipelines and the docs they were run on."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..errors import Errors, UsageError
from ..types import Pictures
from .evaluate import GpuOption


def report(
    output: Annotated[Path, typer.Argument(help="HTML file to write")],
    data: Annotated[
        Path, typer.Option(help=".spacy file or folder with the docs, labels and pictures")
    ],
    pipeline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="Trained pipeline to run, a folder or a package; repeatable. The first is under "
            "review, the others are comparisons",
            show_default=False,
        ),
    ] = None,
    predictions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="File written by evaluate --predictions, instead of a pipeline; repeatable",
            show_default=False,
        ),
    ] = None,
    with_knowledge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Give the docs' knowledge to this pipeline (for teachers); repeatable",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[
        Pictures, typer.Option(help="The docs' pictures given to the pipelines")
    ] = "real",
    limit: Annotated[int, typer.Option(help="Greatest number of docs, 0 for all", min=0)] = 0,
    gpu_id: GpuOption = -1,
) -> None:
    """Write a page to OUTPUT that needs no network: scores, plots, and every
    doc with its labels, each pipeline's findings, its attention on the picture, and the LLM's
    knowledge. Where docs hold conclusions, the LLM stands beside the pipelines. The docs with the
    most errors come first."""
    from ..files import replace_file
    from ..production.job import load_pipeline, use_gpu
    from ..report.build import LLM, ReportSettings, build_report

    sources = _parse_names("--pipeline", "FOLDER", pipeline or [], {LLM})
    files = _parse_names("--predictions", "FILE", predictions or [], {LLM, *sources})
    for name in with_knowledge or []:
        if name not in sources:
            allowed = ", ".join(sources) or "none, as no --pipeline is given"
            raise UsageError(Errors.E728.format(received=name, allowed=allowed))
    if not sources and not files:
        raise UsageError(Errors.E727)
    use_gpu(gpu_id)
    page = build_report(
        ReportSettings(
            data,
            {name: partial(load_pipeline, source) for name, source in sources.items()},
            {name: Path(file) for name, file in files.items()},
            with_knowledge or [],
            pictures,
            limit,
        )
    )
    with replace_file(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"✔ {output}: {', '.join([*sources, *files])}")


def _parse_names(
    option: str, what: str, given: list[str], taken: Collection[str]
) -> dict[str, str]:
    """NAME=VALUE options by name. Raises UsageError for another form and a name given twice."""
    named: dict[str, str] = {}
    for received in given:
        name, equals, value = received.partition("=")
        if not name or not equals or not value or name in named or name in taken:
            raise UsageError(Errors.E726.format(option=option, received=received, what=what))
        named[name] = value
    return named

"""`export`: a trained pipeline as one whose encoder runs on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import Errors, MMCoTError


def export(
    pipeline: Annotated[str, typer.Argument(help="Trained pipeline: a folder or a package")],
    output: Annotated[Path, typer.Argument(help="Folder for the exported pipeline")],
    precision: Annotated[
        Literal["fp32", "int8"],
        typer.Option(help="Of the encoder's linear layers: int8 is fast, fp32 exact"),
    ] = "int8",
) -> None:
    """Write a pipeline whose encoder runs on ONNX Runtime, for fast prediction on a CPU.

    It has the same components, loads with spacy.load, and cannot be trained.
    """
    from ..files import catch_write_errors
    from ..production.job import load_pipeline

    if output.resolve() == Path(pipeline).resolve():
        raise MMCoTError(Errors.E781.format(path=output))
    try:
        from ..production.export import export as export_pipeline
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise MMCoTError(Errors.E442.format(purpose="Exporting", package=package)) from None
    nlp = export_pipeline(load_pipeline(pipeline), precision)
    with catch_write_errors(output):
        nlp.to_disk(output)
    print(f"Exported as {precision}: {output}")

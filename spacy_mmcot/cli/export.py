"""`export`: a trained pipeline as one whose encoder runs on ONNX Runtime."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Precision(StrEnum):
    FP32 = "fp32"
    INT8 = "int8"


def export(
    pipeline: Annotated[str, typer.Argument(help="Trained pipeline: a folder or a package")],
    output: Annotated[Path, typer.Argument(help="Folder for the exported pipeline")],
    precision: Annotated[
        Precision,
        typer.Option(help="Of the encoder's linear layers: int8 is fast, fp32 exact"),
    ] = Precision.INT8,
    threads: Annotated[
        int,
        typer.Option(
            min=0, help="Parts of a batch that run at once, 0 for as many as torch has threads"
        ),
    ] = 0,
) -> None:
    """Write a pipeline whose encoder runs on ONNX Runtime, for fast prediction on a CPU.

    It has the same components, loads with spacy.load, and cannot be trained any further.
    """
    from ..errors import Errors, MMCoTError
    from ..production.pipelines import load_pipeline

    if output.resolve() == Path(pipeline).resolve():
        raise MMCoTError(Errors.E781.format(path=output))
    try:
        from ..production.export import export as export_pipeline
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise MMCoTError(Errors.E442.format(purpose="Exporting", package=package)) from None
    nlp = export_pipeline(load_pipeline(pipeline), precision.value, threads)
    try:
        nlp.to_disk(output)
    except OSError as error:
        raise MMCoTError(Errors.E103.format(path=output, reason=error.strerror)) from error
    print(f"Exported as {precision.value}: {output}")

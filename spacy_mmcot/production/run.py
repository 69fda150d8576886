"""An annotation job from its inputs to its joined output."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import Errors, UsageError
from ..files import replacing
from .annotate import AnnotateSettings, Annotator, Loader
from .columns import widen
from .digests import files_digest
from .engines import Engine, Told, run_chunks
from .job import Layout, opened_job
from .pipelines import pipeline_digest
from .tables import DEFAULT_NAMES, Chunk, Names, TableFormat, format_of, input_files, table


@dataclass(frozen=True)
class Request:
    """What is to be annotated, and how.

    formats: of inputs and output; None goes by the suffix.
    chunk: rows that are lost, and done again, when the job is killed.
    """

    source: str
    inputs: Sequence[Path]
    output: Path
    input_format: TableFormat | None = None
    output_format: TableFormat | None = None
    names: Names = DEFAULT_NAMES
    batch_size: int = 256
    chunk: int = 2000


@dataclass(frozen=True)
class Result:
    """Counts of the whole job, and what this run took. `resumed` counts rows that were there."""

    rows: int
    rejected: int
    resumed: int
    seconds: float


def annotate(
    request: Request,
    load: Loader,
    engine: Engine,
    *,
    overwrite: bool = False,
    told: Told = lambda total, done: None,
) -> Result:
    """Annotate the rows of all inputs, in order, or go on with what an earlier run left undone.

    Raises MMCoTError for inputs, an output or a pipeline that cannot be used.
    """
    started = time.perf_counter()
    files = input_files(request.inputs, request.input_format)
    target = request.output_format or format_of(request.output)
    layout = Layout(request.output, f".{target}")
    for path in files:
        if path.resolve() == request.output.resolve():
            raise UsageError(Errors.E749.format(path=path))
    identity = {
        "input": files_digest(files),
        "pipeline": pipeline_digest(request.source),
        "format": target,
        "columns": request.names._asdict(),
        "chunk": request.chunk,
        "version": __version__,
    }
    with opened_job(layout, identity) as job:
        done = job.begin(overwrite)
        if done is not None:
            return Result(done["rows"], done["rejected"], done["rows"], 0.0)
        chunks, columns = _survey(files, request, target)
        settings = AnnotateSettings(
            request.source, load, layout, target, request.names, columns, request.batch_size
        )
        resumed = run_chunks(job, chunks, partial(Annotator, settings), engine, told)
        if not layout.is_folder:
            parts = [layout.part(chunk.number) for chunk in chunks]
            with replacing(layout.output) as temporary:
                table(target).join(parts, temporary, columns, request.names)
        counts = {"rows": sum(c.rows for c in chunks), "rejected": job.rejected(len(chunks))}
        job.finish(len(chunks), counts)
    return Result(**counts, resumed=resumed, seconds=time.perf_counter() - started)


def _survey(
    files: Sequence[Path], request: Request, target: TableFormat
) -> tuple[list[Chunk], dict[str, Any]]:
    """The chunks of all files, numbered through, and the columns of their rows."""
    chunks: list[Chunk] = []
    columns: dict[str, Any] = {}
    for path in files:
        format = request.input_format or format_of(path)
        found = table(format).survey(
            path, request.chunk, request.names, target in ("csv", "parquet")
        )
        for name, kind in found.columns.items():
            widen(columns, name, kind)
        for position, first, rows in found.chunks:
            chunks.append(Chunk(len(chunks), str(path), format, position, first, rows))
    return chunks, columns

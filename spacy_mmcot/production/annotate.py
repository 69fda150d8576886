"""`annotate`: entities and relations for the rows of tables of any size.

A worker reads a chunk's rows, makes them Docs, runs the pipeline and writes the rows with three
more columns as a part, see `job`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from spacy.tokens import Doc
from spacy.util import minibatch

from .. import __version__
from ..corpus.docs import BadRecord, attach, encode_record
from ..corpus.posts import join_image
from ..corpus.tables import read_image
from ..errors import Errors, MMCoTError, UsageError
from ..files import replace_file
from ..messages import check_range, escape_control, first_line, shown
from ..pictures.read import check_roots, is_address, make_local_policy
from . import tables
from .engines import EngineName, OnProgress, choose_engine, run_chunks
from .job import InputFiles, Layout, digest_pipeline, load_pipeline, open_job
from .table_spacy import copy_unannotated
from .tables import Chunk, ColumnNames, Columns, FoundRow, Row, TableFormat, load_format
from .worker import extract_findings, find_text_problem, pipe_aligned, trim_heap


@dataclass(frozen=True)
class AnnotateSettings:
    """How `annotate` reads and writes tables.

    columns: names of the columns.
    output_format: None for what the suffix says.
    batch_size: Docs that run through the pipeline together.
    chunk_rows: rows that a worker reads and writes at once; a kill costs at most these.
    """

    columns: ColumnNames = tables.DEFAULT_COLUMNS
    output_format: TableFormat | None = None
    batch_size: int = 256
    chunk_rows: int = 2000

    def __post_init__(self) -> None:
        check_range("AnnotateSettings", "batch_size", self.batch_size, 1)
        check_range("AnnotateSettings", "chunk_rows", self.chunk_rows, 1)


@dataclass(frozen=True)
class AnnotateResult:
    """Counts of rows of the whole job, and the seconds of this run. `resumed` counts the rows that
    earlier runs had done."""

    rows: int
    rejected: int
    resumed: int
    seconds: float


def annotate(
    pipeline: str | Path,
    inputs: str | Path | Iterable[str | Path],
    output: str | Path,
    settings: AnnotateSettings = AnnotateSettings(),
    *,
    engine: EngineName = "local",
    workers: int | None = None,
    overwrite: bool = False,
    on_progress: OnProgress = lambda total, done: None,
) -> AnnotateResult:
    """Find entities and relations in the rows of tables and write the rows with what was found.

    A run that was stopped or killed continues when it is called again with the same arguments. Rows
    that cannot be annotated go to OUTPUT.rejected.jsonl with the reason.

    pipeline: a trained pipeline, a folder or the name of an installed package.
    inputs: .jsonl, .csv, .parquet or .spacy files, or folders of them.
    output: the annotated file; without a suffix, a folder of parts.
    engine: "local" for this machine, "ray" for a Ray cluster that shares the files.
    workers: processes, each with the pipeline; None for one, with Ray for one on each CPU.
    overwrite: start again instead of continuing.
    on_progress: called with the number of rows in all, and of those that are done.

    Raises MMCoTError for inputs, an output or a pipeline that cannot be used.
    """
    started = time.perf_counter()
    source, output = str(pipeline), Path(output)
    paths = [*map(Path, [inputs] if isinstance(inputs, str | Path) else inputs)]
    files = tables.list_files(paths)
    # In a folder, its parts would be rows of the next run.
    if any(output.resolve().is_relative_to(path.resolve()) for path in paths):
        raise UsageError(Errors.E749.format(path=output))
    target = settings.output_format or output.suffix.lower().removeprefix(".")
    if target not in tables.FORMATS:
        raise MMCoTError(Errors.E104.format(path=output, allowed=", ".join(tables.FORMATS)))
    given = InputFiles(files)
    identity = {
        "input": given.digest,
        "pipeline": digest_pipeline(source),
        "format": target,
        "columns": asdict(settings.columns),
        "chunk": settings.chunk_rows,
        "version": __version__,
    }
    layout = Layout(output, target, settings.columns)
    with open_job(layout, identity) as job:
        if done := job.begin(overwrite):
            return AnnotateResult(**done, resumed=done["rows"], seconds=0.0)
        needs_columns = target in ("csv", "parquet")
        chunks, columns = tables.list_chunks(
            files, settings.chunk_rows, layout.names, needs_columns
        )
        load = partial(Annotator, source, layout, columns, settings.batch_size)
        resumed = run_chunks(job, chunks, load, choose_engine(engine, workers), on_progress)
        given.check_unchanged()
        if not layout.is_folder:
            parts = [layout.part(chunk.number) for chunk in chunks]
            join = load_format(target).join
            job.write_output(lambda path: join(parts, path, columns, layout.names))
        done = job.finish(chunks)
    return AnnotateResult(**done, resumed=resumed, seconds=time.perf_counter() - started)


class Annotator:
    """Annotates chunks. Writes each as a part, and its rejected rows to a file beside it.

    Rejected is a row that cannot be read, that has no text, or that makes the pipeline fail. The
    other rows of its batch are not affected.

    columns: those that the output carries over, for the formats with a header.
    """

    def __init__(self, source: str, layout: Layout, columns: Columns, batch_size: int) -> None:
        """Raises MMCoTError where the pipeline cannot be loaded."""
        self.layout, self.names, self.columns = layout, layout.names, columns
        self.batch_size = batch_size
        self._nlp = load_pipeline(source)
        # A pipeline that cannot work at all is an error here, and not one of every row.
        self._nlp("Anna sings in Oslo.")

    def __call__(self, chunk: Chunk) -> None:
        rejects: list[str] = []
        rejects_part = self.layout.rejects_part(chunk.number)
        with replace_file(self.layout.part(chunk.number)) as temporary:
            # Without the zone the vocabulary keeps every new word for as long as the process lives.
            with self._nlp.memory_zone():
                rows = self._annotate(chunk, rejects)
                load_format(self.layout.format).write(temporary, rows, self.columns, self.names)
            # Before the part takes its name, which says that the chunk is done.
            rejects_part.unlink(missing_ok=True)
            if rejects:
                with replace_file(rejects_part) as other:
                    other.write_text("".join(rejects), "utf-8")
        trim_heap()

    def _annotate(self, chunk: Chunk, rejects: list[str]) -> Iterator[FoundRow]:
        """The annotated rows of a chunk. Adds the others to `rejects`, as lines of JSON."""

        def reject(row: Row, reason: str) -> None:
            # The picture may be a whole file's content.
            values = {name: row.values[name] for name in row.values if name != self.names.image}
            line = {"input": escape_control(chunk.path), "row": row.number, "reason": reason}
            line["raw"] = row.raw if row.problem else shown(values)
            rejects.append(json.dumps(line, ensure_ascii=False) + "\n")

        folder, partition = Path(chunk.path).parent, json.loads(chunk.partition)
        count = 0
        for batch in minibatch(load_format(chunk.format).read(chunk, self.names), self.batch_size):
            good = []
            for row in batch:
                count += 1
                row = row._replace(values=partition | row.values)
                if taken := [name for name in self.names.added if name in row.values]:
                    values = {"path": chunk.path, "row": row.number, "name": taken[0]}
                    raise UsageError(Errors.E747.format(**values))
                if problem := row.problem or self._find_problem(row.values, folder):
                    reject(row, problem)
                else:
                    good.append(row)
            for row, result in self._run(good, folder):
                if isinstance(result, str):
                    reject(row, result)
                else:
                    found = extract_findings(result).values()
                    added = dict(zip(self.names.added, found, strict=True))
                    yield FoundRow(row.values, added, result)
        if count != chunk.rows:
            raise MMCoTError(Errors.E752.format(path=chunk.path))

    def _find_problem(self, values: Mapping[str, Any], folder: Path) -> str | None:
        """Why a row of a file in a folder cannot be annotated; None where it can."""
        names = self.names
        text, image = values.get(names.text), read_image(values.get(names.image))
        if text is None:
            if names.text in values:
                return f"no text: {names.text!r} is null, or an empty cell"
            others = f", only {', '.join(map(repr, values))}" if values else ""
            return f"no text: the row has no {names.text!r}{others}"
        if isinstance(text, str) and not text.strip():
            return f"no text: {shown(text)}"
        try:
            encode_record(text, image, values.get(names.id))
        except BadRecord as error:
            return str(error)
        if isinstance(image, str) and image and not is_address(image):
            try:
                check_roots(join_image(folder, image), make_local_policy(folder))
            except (OSError, RuntimeError, ValueError) as error:
                return f"the picture {first_line(error)}"
        return find_text_problem(text, self._nlp.max_length)

    def _make_doc(self, row: Row, folder: Path) -> Doc:
        if row.doc is not None:
            return copy_unannotated(row.doc, self._nlp.vocab)
        names = self.names
        image = read_image(row.values.get(names.image))
        if isinstance(image, str) and image:
            image = join_image(folder, image)
        record = {"text": row.values[names.text], "id": row.values.get(names.id), "image": image}
        (doc,) = attach(self._nlp, [record])
        return doc

    def _run(self, rows: Sequence[Row], folder: Path) -> Iterator[tuple[Row, Doc | str]]:
        """The rows with their annotated Docs, or with the reason why the pipeline fails on them.
        folder: where the rows' pictures lie."""
        try:
            given = [self._make_doc(row, folder) for row in rows]
            docs = dict(pipe_aligned(self._nlp, given, self.batch_size))
        # A component may raise anything. Which Doc is at fault shows one by one, each anew, since
        # one on which a component failed cannot be used again.
        except Exception as error:
            if len(rows) == 1:
                yield rows[0], f"the pipeline fails: {first_line(error)}"
            else:
                for row in rows:
                    yield from self._run([row], folder)
            return
        for place, row in enumerate(rows):
            yield row, docs.get(place, "the pipeline's error handler skipped the text")

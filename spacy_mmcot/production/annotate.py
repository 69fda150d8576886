"""Annotating the rows of a chunk: from a table's rows to Docs and back.

An annotation job from its inputs to its joined output.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import minibatch

from .. import __version__
from ..corpus.extensions import attach, get_relations, register
from ..corpus.formats import join_image
from ..errors import Errors, UsageError, first_line, shown
from ..files import replace_file
from .engines import Engine, Told, run_chunks
from .job import Layout, Outcome, files_digest, opened_job
from .memory import limit_compiled_products, trim_heap
from .pipelines import digest_pipeline
from .tables import (
    DEFAULT_NAMES,
    Broken,
    Chunk,
    Names,
    Row,
    TableFormat,
    format_of,
    input_files,
    table,
    widen,
)

# (source, vocab of another pipeline if there is one) -> pipeline
Loader = Callable[..., Language]


@dataclass(frozen=True)
class AnnotateSettings:
    """What a worker needs to know; can be pickled.

    load: gives the pipeline of a source; a function of a module, so that it can be pickled.
    columns: what the output carries, see `columns`; only the formats that have a header need it.
    batch_size: docs that are read, run and written together.
    """

    source: str
    load: Loader
    layout: Layout
    format: TableFormat
    names: Names = DEFAULT_NAMES
    columns: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 256


class Annotator:
    """Annotates chunks and writes each as a part, with the rows it had to reject beside it.

    A row is rejected where it cannot be read, has no text, or makes the pipeline fail; the reason
    is written down, and the others of its batch go on without it.
    """

    def __init__(self, settings: AnnotateSettings) -> None:
        """Raises MMCoTError where the pipeline cannot be loaded or used at all: afterwards what
        fails is the fault of a row."""
        self.settings = settings
        limit_compiled_products()
        self._nlp = settings.load(settings.source)
        register()
        self._nlp("Anna sings in Oslo.")

    def __call__(self, chunk: Chunk) -> Outcome:
        names, layout = self.settings.names, self.settings.layout
        out = table(self.settings.format).Writer(self.settings.columns, names)
        rejects = _Rejects(chunk.path)
        rows = table(chunk.format).read(chunk, names)
        n_rows = 0
        # Without it the vocabulary grows by every new word, for as long as the process lives.
        with self._nlp.memory_zone():
            for batch in minibatch(rows, self.settings.batch_size):
                n_rows += len(batch)
                for row, doc in self._annotated(self._usable(batch, chunk, rejects), rejects):
                    out.add(row.values, found_in(doc, names), doc)
        trim_heap()
        # First, since the part says that the chunk is done.
        path = layout.rejects_part(chunk.number)
        path.unlink(missing_ok=True)
        if rejects.lines:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replace_file(path) as temporary:
                temporary.write_text("".join(rejects.lines), "utf-8")
        with replace_file(layout.part(chunk.number)) as temporary:
            out.save(temporary)
        return Outcome(chunk.number, n_rows, len(rejects.lines))

    def _usable(
        self, rows: Iterable[Row | Broken], chunk: Chunk, rejects: _Rejects
    ) -> list[tuple[Row, Callable[[], Doc]]]:
        usable = []
        folder = Path(chunk.path).parent
        for row in rows:
            if isinstance(row, Broken):
                rejects.add(row.number, row.reason, row.raw)
            elif problem := self._problem(row, chunk):
                rejects.add(row.number, problem, _start(row, self.settings.names))
            else:
                usable.append((row, self._maker(row, folder)))
        return usable

    def _problem(self, row: Row, chunk: Chunk) -> str | None:
        names, values = self.settings.names, row.values
        taken = [name for name in names.found if name in values]
        if taken:
            raise UsageError(Errors.E747.format(path=chunk.path, row=row.number, name=taken[0]))
        text, name = values.get(names.text), values.get(names.id)
        image = _picture(values.get(names.image))
        if text is None:
            return f"no text: the row has no {names.text!r}" + _columns_of(values)
        if not isinstance(text, str):
            return f"the text is {shown(text)} ({type(text).__qualname__}), not a text"
        if not text.strip():
            return f"no text: {shown(text)}"
        if len(text) > self._nlp.max_length:
            return f"the text has {len(text)} characters, more than {self._nlp.max_length}"
        if not _is_null(name) and (isinstance(name, bool) or not isinstance(name, str | Integral)):
            return f"the id is {shown(name)}, neither a text nor a whole number"
        if not _is_null(image) and not isinstance(image, str | bytes):
            return f"the picture is {shown(image)}, neither a path nor a file's content"
        return None

    def _maker(self, row: Row, folder: Path) -> Callable[[], Doc]:
        """Makes the row's Doc, anew each time: one on which a component failed is no use."""
        names = self.settings.names

        def make() -> Doc:
            if row.doc is not None:
                from .table_spacy import unannotated

                return unannotated(row.doc, self._nlp.vocab)
            image = _picture(row.values.get(names.image))
            if isinstance(image, str) and image:
                image = join_image(folder, image)
            record = {"text": row.values[names.text], "id": row.values.get(names.id)}
            (doc,) = attach(self._nlp, [record | {"image": image}])
            return doc

        return make

    def _annotated(
        self, rows: Sequence[tuple[Row, Callable[[], Doc]]], rejects: _Rejects
    ) -> Iterator[tuple[Row, Doc]]:
        docs = [make() for _, make in rows]
        try:
            docs = list(self._nlp.pipe(docs, batch_size=self.settings.batch_size))
        # Whatever a component may raise: which doc is to blame shows one by one.
        except Exception:
            yield from self._one_by_one(rows, rejects)
        else:
            for (row, _), doc in zip(rows, docs, strict=True):
                yield row, doc

    def _one_by_one(
        self, rows: Sequence[tuple[Row, Callable[[], Doc]]], rejects: _Rejects
    ) -> Iterator[tuple[Row, Doc]]:
        for row, make in rows:
            try:
                doc = self._nlp(make())
            except Exception as error:
                reason = f"the pipeline fails: {first_line(error)}"
                rejects.add(row.number, reason, _start(row, self.settings.names))
            else:
                yield row, doc


def found_in(doc: Doc, names: Names) -> dict[str, Any]:
    """The columns of what a pipeline found. Offsets are characters of the text, ends exclusive;
    a score is a probability, or None where the component that found it gives none."""
    entities = [
        {
            "start": ent.start_char,
            "end": ent.end_char,
            "label": ent.label_,
            "text": ent.text,
            "score": _rounded(ent._.mmcot_score),
        }
        for ent in doc.ents
    ]
    relations = [
        {"head": _place(head), "tail": _place(tail), "label": label, "score": _rounded(score)}
        for head, tail, label, score in get_relations(doc)
    ]
    confidence = _rounded(doc._.mmcot_confidence)
    return dict(zip(names.found, (entities, relations, confidence), strict=True))


class _Rejects:
    """Lines of the file of rejected rows."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.lines: list[str] = []

    def add(self, row: int, reason: str, raw: str) -> None:
        line = {"input": self._path, "row": row, "reason": reason, "raw": raw}
        self.lines.append(json.dumps(line, ensure_ascii=False) + "\n")


def _rounded(score: float | None) -> float | None:
    # The digits behind hang on which docs were computed together.
    return None if score is None else round(score, 4)


def _place(span: Span) -> list[int]:
    return [span.start_char, span.end_char]


def _picture(value: Any) -> Any:
    """What a table holds as a picture; the `datasets` library keeps bytes and path together."""
    value = value.to_pylist()[0] if hasattr(value, "to_pylist") else value
    if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:
        return value.get("bytes") or value.get("path")
    return value


def _is_null(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _columns_of(values: dict[str, Any]) -> str:
    return f", only {', '.join(map(repr, values))}" if values else ""


def _start(row: Row, names: Names) -> str:
    """How a row begins, its picture left out: that may be a file's content."""
    return shown({name: value for name, value in row.values.items() if name != names.image})


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
        "pipeline": digest_pipeline(request.source),
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
            with replace_file(layout.output) as temporary:
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

"""Tables of documents in files: their formats, rows and columns.

A format is a module `table_FORMAT` that implements `Table`.

A column's *kind* says what it holds: "bool", "int", "float", "str", "bytes", "json" for mixed and
nested values (JSON text in formats with column types), or the Arrow type of a Parquet column that
is none of these. None stands for a column without any value.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast, get_args

from ..errors import Errors, MMCoTError
from ..files import check_exists

if TYPE_CHECKING:
    from spacy.tokens import Doc

TableFormat = Literal["jsonl", "csv", "parquet", "spacy"]
FORMATS: tuple[TableFormat, ...] = get_args(TableFormat)
# name -> kind
Columns = dict[str, Any]


@dataclass(frozen=True)
class ColumnNames:
    """The columns that `annotate` reads and adds.

    text: the texts; the only column that a table must have.
    id, image: ids and pictures (a path relative to the table's file, or a file's content).
    prefix: goes before the names of the added columns: entities, relations, confidence.
    """

    text: str = "text"
    id: str = "id"
    image: str = "image"
    prefix: str = ""

    @property
    def added(self) -> tuple[str, str, str]:
        """The names of the added columns."""
        return f"{self.prefix}entities", f"{self.prefix}relations", f"{self.prefix}confidence"


DEFAULT_COLUMNS = ColumnNames()


class Chunk(NamedTuple):
    """Rows of one file that are read, annotated and written together.

    number: the chunk's place in the job, from 0.
    position: where it starts: a byte offset in JSONL and CSV, a row from 0 in the other formats.
    first_row: the number of its first row, see Row.
    rows: how many rows it has, broken ones included.
    """

    number: int
    path: str
    format: TableFormat
    position: int
    first_row: int
    rows: int


class Row(NamedTuple):
    """A row that could be read.

    number: the line at which it starts in JSONL and CSV, its place from 1 in the other formats.
    values: column -> value.
    doc: the Doc of a row in a .spacy file; None in the other formats.
    """

    number: int
    values: dict[str, Any]
    doc: Doc | None = None


class BrokenRow(NamedTuple):
    """A row that could not be read, with the reason and the start of its content."""

    number: int
    reason: str
    raw: str


class Survey(NamedTuple):
    """What is known of a file before its rows are annotated.

    chunks: (position, first_row, rows) of each chunk.
    columns: may be empty where the format has no header and nobody asked.
    """

    chunks: list[tuple[int, int, int]]
    columns: Columns


class FoundRow(NamedTuple):
    """An annotated row: the columns that it had, the added columns, and the Doc with the same
    annotation. A format writes of these what belongs in its files."""

    values: dict[str, Any]
    added: dict[str, Any]
    doc: Doc


class Table(Protocol):
    """A format.

    survey: cuts a file into chunks of `rows` rows. Where `columns` is true and the file has no
        header, it reads every row to learn the columns.
    read: yields a chunk's rows in order, as many as the survey counted, broken ones included.
    write: writes a file. Takes one row after the other and keeps no Doc.
    join: writes one file from parts, in their order.
    """

    def survey(self, path: Path, rows: int, names: ColumnNames, columns: bool) -> Survey: ...

    def read(self, chunk: Chunk, names: ColumnNames) -> Iterator[Row | BrokenRow]: ...

    def write(
        self, path: Path, rows: Iterable[FoundRow], columns: Columns, names: ColumnNames
    ) -> None: ...

    def join(
        self, parts: Sequence[Path], output: Path, columns: Columns, names: ColumnNames
    ) -> None: ...


def load_format(format: TableFormat) -> Table:
    """The module of a format. Raises MMCoTError where the library that it needs is missing."""
    try:
        return cast(Table, import_module(f".table_{format}", __package__))
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        raise MMCoTError(Errors.E740) from None


def detect_format(path: Path) -> TableFormat:
    """The format that a file's suffix names. Raises MMCoTError for any other suffix."""
    for format in FORMATS:
        if path.suffix.lower() == f".{format}":
            return format
    raise MMCoTError(Errors.E104.format(path=path, allowed=", ".join(FORMATS)))


def list_files(paths: Iterable[Path], format: TableFormat | None) -> list[Path]:
    """The files at the paths; a folder stands for the files in it, in order of name, whose suffix
    is that of `format`, or of any format for None. Raises MMCoTError for a missing path and a
    folder without such a file."""
    files = []
    for path in paths:
        check_exists(path)
        if not path.is_dir():
            files.append(path)
            continue
        suffixes = {f".{name}" for name in ([format] if format else FORMATS)}
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
        if not found:
            raise MMCoTError(Errors.E741.format(path=path, allowed=", ".join(sorted(suffixes))))
        files += found
    return files


def split_places(places: Iterable[tuple[int, int]], rows: int) -> list[tuple[int, int, int]]:
    """The chunks of a survey from (position, number) of every row."""
    places = iter(places)
    chunks = []
    while block := list(islice(places, rows)):
        chunks.append((*block[0], len(block)))
    return chunks


def split_count(total: int, rows: int) -> list[tuple[int, int, int]]:
    """The chunks of a survey of a format whose rows are numbered."""
    return [(i, i + 1, min(rows, total - i)) for i in range(0, total, rows)]


_MAX_COLUMNS = 1000
_MAX_INT = 2**63


def kind_of(value: Any) -> str | None:
    """The kind of a value, see the module."""
    match value:
        case None:
            return None
        case bool():
            return "bool"
        case int():
            return "int" if -_MAX_INT <= value < _MAX_INT else "json"
        case float():
            return "float"
        case str():
            return "str"
        case bytes():
            return "bytes"
    return "json"


def add_kind(columns: Columns, name: str, kind: Any) -> None:
    """Widen the kind of a column so that it can hold values of another kind too. Raises MMCoTError
    for too many columns, as in a table whose keys are ids."""
    known = columns.setdefault(name, kind)
    if known is None:
        columns[name] = kind
    elif kind is not None and kind != known:
        columns[name] = "float" if {known, kind} == {"int", "float"} else "json"
    if len(columns) > _MAX_COLUMNS:
        raise MMCoTError(Errors.E742.format(limit=_MAX_COLUMNS, name=name))


def to_json(value: Any) -> str:
    """The value as JSON on one line, see `to_plain`."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        return json.dumps(to_plain(value), ensure_ascii=False, allow_nan=False)


def to_plain(value: Any) -> Any:
    """The value in the types of JSON: bytes become base64, NaN and infinity null, dates and
    decimals text."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case dict():
            return {str(key): to_plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [to_plain(inner) for inner in value]
    if hasattr(value, "to_pylist"):
        # An Arrow array of one value. It keeps times that are finer than Python's, and refuses to
        # convert those unless pandas is installed.
        try:
            return to_plain(value.to_pylist()[0])
        except ValueError:
            pass
        try:
            return value.cast("string")[0].as_py()
        except NotImplementedError:  # durations have no text form
            return value[0].value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)

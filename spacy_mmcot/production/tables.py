"""Tables of documents in files: their formats, rows and columns.

A format has four functions. `survey` cuts a file into chunks of `rows` rows and finds the kinds of
its columns; where the format has no header, it reads every row for them if `columns` is true.
`read` yields a chunk's rows, as many as the survey counted, broken ones included. `write` writes a
file; it keeps no Doc. `join` writes one file from parts, in their order.

A column's *kinds* say what it holds: Python types, LONG for whole numbers that a float
cannot hold, "json" for those of more than 64 bits, the Arrow type of a Parquet column that has no
Python type.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args
from urllib.parse import unquote

from ..errors import Errors, MMCoTError
from ..files import check_exists

if TYPE_CHECKING:
    from spacy.tokens import Doc

TableFormat = Literal["jsonl", "csv", "parquet", "spacy"]
FORMATS: tuple[TableFormat, ...] = get_args(TableFormat)
# name -> kinds
Columns = dict[str, set[Any]]
# Position, first row and rows of a chunk, see Chunk.
Place = tuple[int, int, int]
Survey = tuple[list[Place], Columns]


@dataclass(frozen=True)
class ColumnNames:
    """The columns that `annotate` reads and adds.

    text: the texts; the only column that a table must have.
    id, image: ids and pictures (a path relative to the table's file, or a file's content).
    prefix: goes before the names of the added columns: entities, relations, confidence, weakest.
    """

    text: str = "text"
    id: str = "id"
    image: str = "image"
    prefix: str = ""

    @property
    def added(self) -> tuple[str, ...]:
        """The names of the added columns."""
        found = ("entities", "relations", "confidence", "weakest")
        return tuple(self.prefix + name for name in found)


DEFAULT_COLUMNS = ColumnNames()


class Chunk(NamedTuple):
    """Rows of one file that are read, annotated and written together.

    number: the chunk's place in the job, from 0.
    position: where it starts: a byte offset in JSONL and CSV, a row from 0 in the other formats.
    first_row: the number of its first row, see Row.
    rows: how many rows it has, broken ones included.
    partition: the columns that folders on the path of the file stand for, as JSON.
    """

    number: int
    path: str
    format: TableFormat
    position: int
    first_row: int
    rows: int
    partition: str = "{}"


class Row(NamedTuple):
    """A row.

    number: the line at which it starts in JSONL and CSV, its place from 1 in the other formats.
    values: column -> value.
    doc: the Doc of a row in a .spacy file; None in the other formats.
    problem, raw: why the row could not be read, and the start of its content.
    """

    number: int
    values: dict[str, Any]
    doc: Doc | None = None
    problem: str | None = None
    raw: str = ""


class FoundRow(NamedTuple):
    """An annotated row: the columns that it had, the added ones, and the Doc, annotated."""

    values: dict[str, Any]
    added: dict[str, Any]
    doc: Doc


def load_format(format: TableFormat) -> Any:
    """A format's four functions. Raises MMCoTError where the library that it needs is missing."""
    if format in ("csv", "jsonl"):
        text = import_module(".table_text", __package__)
        return text.Csv if format == "csv" else text.JsonLines
    try:
        return import_module(f".table_{format}", __package__)
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        raise MMCoTError(Errors.E740) from None


def detect_format(path: Path) -> TableFormat:
    """The format that a file's suffix names. Raises MMCoTError for any other suffix."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix in FORMATS:
        return suffix
    raise MMCoTError(Errors.E754.format(path=path, allowed=", ".join(f".{f}" for f in FORMATS)))


def list_files(paths: Iterable[Path]) -> list[Path]:
    """The files at the paths; a folder stands for the tables in it, in order of name. Raises
    MMCoTError for a missing path and a folder without a table."""
    files: list[Path] = []
    suffixes = [f".{name}" for name in sorted(FORMATS)]
    for path in paths:
        check_exists(path)
        inside = sorted(path.rglob("*")) if path.is_dir() else ()
        found = [p for p in inside if p.suffix.lower() in suffixes and p.is_file()]
        if path.is_dir() and not found:
            raise MMCoTError(Errors.E741.format(path=path, allowed=", ".join(suffixes)))
        files += found or [path]
    return files


def list_chunks(
    files: Sequence[Path], rows: int, names: ColumnNames, columns: bool
) -> tuple[list[Chunk], Columns]:
    """The chunks of all files, numbered through, and the kinds of their columns, see the module."""
    chunks: list[Chunk] = []
    kinds: Columns = {}
    for path, partition in zip(files, read_partitions(files), strict=True):
        format = detect_format(path)
        places, own = load_format(format).survey(path, rows, names, columns)
        folders: Columns = {name: {type(value)} for name, value in partition.items()}
        for name, added in (own | folders | own).items():  # a file's own column goes first
            add_kinds(kinds, name, added - {type(None)})
        described = to_json(partition)
        for position, first, count in places:
            chunks.append(Chunk(len(chunks), str(path), format, position, first, count, described))
    return chunks, kinds


def count_rows(path: Path, format: TableFormat, names: ColumnNames) -> int:
    """The rows of a file that `write` or `join` wrote. Raises MMCoTError for a damaged one."""
    places, _ = load_format(format).survey(path, 1 << 62, names, False)
    return sum(rows for _, _, rows in places)


_NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"


def read_partitions(files: Sequence[Path]) -> list[dict[str, str | int | None]]:
    """The columns that the folders right above each file stand for, by name: Hive, Spark and
    others write `year=2024/part-0.parquet`. A column is of whole numbers where all its values are,
    otherwise of texts."""
    found: list[dict[str, str | int | None]] = []
    for path in files:
        named = takewhile(lambda name: "=" in name.lstrip("="), reversed(path.parent.parts))
        pairs = [name.partition("=") for name in named][::-1]
        found.append({unquote(k): None if v == _NULL_FOLDER else unquote(v) for k, _, v in pairs})
    for name in {name for columns in found for name in columns}:
        values = {str(columns[name]) for columns in found if columns.get(name) is not None}
        if all(re.fullmatch(r"0|-?[1-9][0-9]{0,17}", value) for value in values):
            for columns in found:
                if columns.get(name) is not None:
                    columns[name] = int(str(columns[name]))
    return found


def split_places(places: Iterable[tuple[int, int]], rows: int) -> list[Place]:
    """The chunks of a survey from (position, number) of every row."""
    places = iter(places)
    chunks = []
    while block := list(islice(places, rows)):
        chunks.append((*block[0], len(block)))
    return chunks


def split_count(total: int, rows: int) -> list[Place]:
    """The chunks of a survey of a format whose rows are numbered."""
    return [(i, i + 1, min(rows, total - i)) for i in range(0, total, rows)]


_MAX_COLUMNS = 1000
LONG = "long"


def add_kinds(columns: Columns, name: str, kinds: set[Any]) -> None:
    """Add the kinds of some values of a column. Raises MMCoTError for too many columns, as in a
    table whose keys are ids."""
    columns.setdefault(name, set()).update(kinds)
    if len(columns) > _MAX_COLUMNS:
        raise MMCoTError(Errors.E742.format(limit=_MAX_COLUMNS, name=name))


def add_row(columns: Columns, values: dict[str, Any]) -> None:
    """Add the kinds of a row's values. Raises MMCoTError as `add_kinds` does."""
    for name, value in values.items():
        kind: Any = type(value)
        if isinstance(value, int) and abs(value) > 2**53:
            kind = LONG if -(2**63) <= value < 2**63 else "json"
        add_kinds(columns, name, set() if value is None else {kind})


def to_cell(value: Any) -> str | None:
    """The value as text: texts, dates, decimals and bytes (in base64) as they are, null as None,
    anything else as JSON."""
    if not isinstance(value, str | None):
        value = to_plain(value)
    return value if isinstance(value, str | None) else to_json(value)


def to_json(value: Any) -> str:
    """The value as JSON on one line, see `to_plain`."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        return json.dumps(to_plain(value), ensure_ascii=False)


def to_plain(value: Any) -> Any:
    """The value in the types of JSON: bytes become base64, NaN and infinity null, dates and
    decimals text."""
    return json.loads(json.dumps(value, default=_replace), parse_constant=lambda _: None)


def _replace(value: Any) -> Any:
    """What stands in JSON for a value of another type."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if hasattr(value, "as_py"):
        # An Arrow scalar. It keeps times that are finer than Python's, and refuses to convert those
        # unless pandas is installed.
        with suppress(ValueError, OverflowError):
            return value.as_py()
        try:
            return value.cast("string").as_py()
        except NotImplementedError:  # durations have no text form
            return value.value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)

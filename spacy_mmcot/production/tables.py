"""Tables of documents in files: what every format offers, and which a file is of.

A format is a module with `survey`, `read`, `Writer` and `join`, see `Table`.

Columns that are carried from a table to a table of another format.

A *kind* says what a column holds: "bool", "int", "float", "str", "bytes", "json" for mixed and
nested values, which tables with types hold as JSON text, or the Arrow type of a Parquet column that
is none of these. None stands for a column in which no value was seen.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast, get_args

from ..errors import Errors, MMCoTError
from ..files import check_exists

if TYPE_CHECKING:
    from spacy.tokens import Doc

TableFormat = Literal["jsonl", "csv", "parquet", "spacy"]
FORMATS: tuple[TableFormat, ...] = get_args(TableFormat)


class Names(NamedTuple):
    """The columns that mean something; a table need not have `id` and `image`. What is found goes
    to the columns `prefix` + entities, relations and confidence."""

    text: str = "text"
    id: str = "id"
    image: str = "image"
    prefix: str = ""

    @property
    def found(self) -> tuple[str, str, str]:
        return f"{self.prefix}entities", f"{self.prefix}relations", f"{self.prefix}confidence"


DEFAULT_NAMES = Names()


class Chunk(NamedTuple):
    """Rows of one file that are read, annotated and written together.

    number: of the part that it becomes, from 0.
    position: where it starts, a byte offset in JSONL and CSV, a row from 0 in the others.
    first: what its first row is called, see Row.
    rows: how many it has, broken ones included.
    """

    number: int
    path: str
    format: TableFormat
    position: int
    first: int
    rows: int


class Row(NamedTuple):
    """A row that could be read.

    number: the line at which it starts in JSONL and CSV, its place from 1 in the others.
    values: its columns.
    doc: what it is in a .spacy file; None in the others.
    """

    number: int
    values: dict[str, Any]
    doc: Doc | None = None


class Broken(NamedTuple):
    """A row that could not be read, with the reason and how it begins."""

    number: int
    reason: str
    raw: str


class Survey(NamedTuple):
    """What is known of a file before its rows are annotated.

    chunks: (position, first, rows) of each.
    columns: name -> kind (see `columns`), empty where nobody asked and the file has no header.
    """

    chunks: list[tuple[int, int, int]]
    columns: dict[str, Any]


class TableWriter(Protocol):
    """Gathers a chunk's rows."""

    def __init__(self, columns: Mapping[str, Any], names: Names) -> None: ...

    def add(self, values: dict[str, Any], found: dict[str, Any], doc: Doc) -> None:
        """values: the row's columns; found: the two columns of what was found; doc: the same,
        annotated. Only what belongs in a file of the format is kept."""

    def save(self, path: Path) -> None: ...


class Table(Protocol):
    """A format.

    survey: cuts a file into chunks of `rows` rows; looks at every row's columns where `columns`
        asks for them and no header tells.
    read: a chunk's rows, in order; as many, broken ones included, as the survey counted.
    join: makes one file of parts, in their order.
    """

    Writer: type[TableWriter]

    def survey(self, path: Path, rows: int, names: Names, columns: bool) -> Survey: ...

    def read(self, chunk: Chunk, names: Names) -> Iterator[Row | Broken]: ...

    def join(
        self, parts: Sequence[Path], output: Path, columns: Mapping[str, Any], names: Names
    ) -> None: ...


def table(format: TableFormat) -> Table:
    """Raises MMCoTError where the library that reads the format is not installed."""
    try:
        return cast(Table, import_module(f".table_{format}", __package__))
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        raise MMCoTError(Errors.E740) from None


def format_of(path: Path) -> TableFormat:
    """Raises MMCoTError where the name does not tell."""
    for format in FORMATS:
        if path.suffix.lower() == f".{format}":
            return format
    raise MMCoTError(Errors.E104.format(path=path, allowed=", ".join(FORMATS)))


def input_files(paths: Sequence[Path], format: TableFormat | None) -> list[Path]:
    """The files at the paths, folders replaced by the files of a known format in them, in order of
    name. Raises MMCoTError for a path that is not there and a folder without such a file."""
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


_MOST_COLUMNS = 1000
_MOST_INT = 2**63


def kind_of(value: Any) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "bool"
        case int():
            return "int" if -_MOST_INT <= value < _MOST_INT else "json"
        case float():
            return "float"
        case str():
            return "str"
        case bytes():
            return "bytes"
    return "json"


def widen(columns: dict[str, Any], name: str, kind: Any) -> None:
    """Make the columns able to hold a value of this kind. Raises MMCoTError for a table of more
    columns than any table has, such as one whose keys are ids."""
    known = columns.setdefault(name, kind)
    if known == kind or kind is None:
        pass
    elif known is None:
        columns[name] = kind
    else:
        columns[name] = "float" if {known, kind} == {"int", "float"} else "json"
    if len(columns) > _MOST_COLUMNS:
        raise MMCoTError(Errors.E742.format(limit=_MOST_COLUMNS, name=name))


def to_json(value: Any) -> str:
    """JSON on one line. Bytes come as base64, numbers that JSON does not know (NaN, infinity) as
    null, dates and decimals as text."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """The value as JSON can hold it."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case dict():
            return {str(key): plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
    if hasattr(value, "to_pylist"):
        # An Arrow array of one. It keeps times finer than Python's, and without pandas refuses to
        # hand those over.
        try:
            return plain(value.to_pylist()[0])
        except ValueError:
            pass
        try:
            return value.cast("string")[0].as_py()
        except NotImplementedError:  # a length of time has no text: its number
            return value[0].value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)

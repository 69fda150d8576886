"""JSON Lines: an object a line. Blank lines are no rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from ..errors import shown
from ..files import open_file, parse_json
from .tables import (
    Chunk,
    ColumnNames,
    Columns,
    FoundRow,
    Place,
    Row,
    add_row,
    join_files,
    split_places,
    to_json,
)

_BOM = b"\xef\xbb\xbf"


def survey(path: Path, rows: int, names: ColumnNames, columns: bool) -> tuple[list[Place], Columns]:
    kinds: Columns = {}

    def iter_places() -> Iterator[tuple[int, int]]:
        for offset, line, raw in _iter_lines(file):
            if columns:
                add_row(kinds, _parse(line, raw).values)
            yield offset, line

    with open_file(path) as file:
        return (split_places(iter_places(), rows), kinds)


def read(chunk: Chunk, names: ColumnNames) -> Iterator[Row]:
    with open_file(Path(chunk.path)) as file:
        file.seek(chunk.position)
        for _, line, raw in islice(_iter_lines(file, chunk.first_row), chunk.rows):
            yield _parse(line, raw)


def write(path: Path, rows: Iterable[FoundRow], columns: Columns, names: ColumnNames) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(to_json(row.values | row.added) + "\n" for row in rows)


def join(parts: Sequence[Path], output: Path, columns: Columns, names: ColumnNames) -> None:
    with output.open("wb") as file:
        join_files(parts, file)


def _iter_lines(file: BinaryIO, line: int = 1) -> Iterator[tuple[int, int, bytes]]:
    """(offset from where reading starts, line number, content) of the lines that are not blank."""
    offset = 0
    for number, raw in enumerate(file, start=line):
        if raw.strip(_BOM + b" \t\r\n"):
            yield offset, number, raw
        offset += len(raw)


def _parse(line: int, raw: bytes) -> Row:
    raw = raw.removeprefix(_BOM) if line == 1 else raw
    raw = raw.rstrip(b"\r\n")
    try:
        value = parse_json(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} of the line, 0x{raw[error.start]:02x}, is not UTF-8"
    except ValueError as error:
        reason = str(error)
    else:
        if isinstance(value, dict):
            return Row(line, value)
        reason = f"the row is {shown(value)}, not an object"
    return Row(line, {}, problem=reason, raw=shown(raw.decode("utf-8", "backslashreplace")))

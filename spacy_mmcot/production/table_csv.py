"""CSV: comma-separated, quoted by double quotes, the first row a header, in UTF-8.

All columns are read as text; an empty cell is null. On writing, text is a cell as it is and any
other value is JSON in a cell.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import Errors, MMCoTError, located, shown
from ..files import open_file
from .tables import (
    BrokenRow,
    Chunk,
    ColumnNames,
    Columns,
    FoundRow,
    Row,
    Survey,
    split_places,
    to_json,
)

# Characters. A quote that is never closed takes what follows into its cell, up to this limit.
_MAX_CELL = 1 << 24


class _Records:
    """The records of a file from an offset on: (offset, line, cells, or the reason why they could
    not be read). Blank lines are no records.

    Reads lines of bytes, since the offset of a record is needed to come back to it.
    """

    def __init__(self, file: BinaryIO, position: int = 0, line: int = 1) -> None:
        csv.field_size_limit(_MAX_CELL)
        file.seek(position)
        self._file = file
        self._offset, self._line = position, line
        self._reader = csv.reader(self._lines(), strict=True)

    def _lines(self) -> Iterator[str]:
        for raw in self._file:
            self._offset += len(raw)
            self._line += 1
            first = self._offset == len(raw)
            yield raw.decode("utf-8-sig" if first else "utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[tuple[int, int, list[str] | str]]:
        while True:
            offset, line = self._offset, self._line
            try:
                cells = next(self._reader)
                "".join(cells).encode("utf-8")
            except StopIteration:
                return
            except csv.Error as error:
                yield offset, line, f"not CSV ({error})"
            except UnicodeEncodeError as error:
                byte = ord(error.object[error.start]) & 0xFF
                yield offset, line, f"0x{byte:02x} is not UTF-8"
            else:
                if cells:
                    yield offset, line, cells


def survey(path: Path, rows: int, names: ColumnNames, columns: bool) -> Survey:
    with open_file(path) as file:
        records = iter(_Records(file))
        header = _header(path, next(records, (0, 1, [])))
        if names.text not in header:
            message = Errors.E743.format(path=path, name=names.text, allowed=", ".join(header))
            raise MMCoTError(message)
        chunks = split_places(((offset, line) for offset, line, _ in records), rows)
    return Survey(chunks, dict.fromkeys(header, "str"))


def read(chunk: Chunk, names: ColumnNames) -> Iterator[Row | BrokenRow]:
    path = Path(chunk.path)
    with open_file(path) as file:
        header = _header(path, next(iter(_Records(file)), (0, 1, [])))
        records = iter(_Records(file, chunk.position, chunk.first_row))
        for _, (_, line, cells) in zip(range(chunk.rows), records, strict=False):
            if isinstance(cells, str):
                yield BrokenRow(line, cells, "")
            elif len(cells) != len(header):
                reason = f"the row has {len(cells)} cells, the header {len(header)}"
                yield BrokenRow(line, reason, shown(",".join(cells)))
            else:
                values = zip(header, cells, strict=True)
                yield Row(line, {name: cell or None for name, cell in values})


def write(path: Path, rows: Iterable[FoundRow], columns: Columns, names: ColumnNames) -> None:
    header = [*columns, *names.added]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            cells = row.values | row.added
            writer.writerow([_cell(cells.get(name)) for name in header])


def join(parts: Sequence[Path], output: Path, columns: Columns, names: ColumnNames) -> None:
    write(output, (), columns, names)
    header = output.stat().st_size
    with output.open("ab") as file:
        for part in parts:
            with part.open("rb") as source:
                source.seek(header)
                shutil.copyfileobj(source, file)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else to_json(value)


def _header(path: Path, record: tuple[int, int, list[str] | str]) -> list[str]:
    """The column names in a file's first record. Raises MMCoTError where it is no header."""
    _, line, header = record
    if isinstance(header, str):
        problem = header
    elif not header:
        problem = "there is no header"
    elif len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        problem = f"the header names the column {twice!r} twice"
    else:
        return header
    expected = "a header with a different name for each column"
    raise located(path, line, problem, expected, "Correct the header.")

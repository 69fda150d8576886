"""The two formats of text, in UTF-8. Both find a chunk by its byte offset.

CSV: comma-separated, quoted by double quotes, the first row a header. All columns are read as text;
an empty cell is null. On writing, text is a cell as it is and any other value is JSON in a cell.

JSON Lines: an object a line. Blank lines are no rows.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, NamedTuple

from ..errors import Errors, MMCoTError
from ..files import EncodingError, find_encoding, open_file, parse_json
from ..messages import located, shown
from . import tables
from .tables import Chunk, ColumnNames, Columns, FoundRow, Row, Survey

_BOM = b"\xef\xbb\xbf"
# Characters. A quote that is never closed takes what follows into its cell, up to this limit.
_MAX_CELL = 1 << 24


@contextmanager
def _open_utf8(path: Path) -> Iterator[BinaryIO]:
    """The file, open for reading bytes. Raises MMCoTError where it is missing, and where its first
    bytes are those of another encoding."""
    try:
        encoding = find_encoding(path)
    except EncodingError:
        encoding = "unknown"
    if encoding != "utf-8-sig":
        raise MMCoTError(Errors.E755.format(path=path, encoding=encoding))
    with open_file(path) as file:
        yield file


class JsonLines:
    """See `tables`."""

    @staticmethod
    def survey(path: Path, rows: int, names: ColumnNames, columns: bool) -> Survey:
        kinds: Columns = {}

        def iter_places() -> Iterator[tuple[int, int]]:
            for offset, line, raw in _iter_lines(file):
                if columns:
                    tables.add_row(kinds, _parse_line(line, raw).values)
                yield offset, line

        with _open_utf8(path) as file:
            return tables.split_places(iter_places(), rows), kinds

    @staticmethod
    def read(chunk: Chunk, names: ColumnNames) -> Iterator[Row]:
        with open_file(Path(chunk.path)) as file:
            file.seek(chunk.position)
            for _, line, raw in islice(_iter_lines(file, chunk.first_row), chunk.rows):
                yield _parse_line(line, raw)

    @staticmethod
    def write(path: Path, rows: Iterable[FoundRow], columns: Columns, names: ColumnNames) -> None:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(tables.to_json(row.values | row.added) + "\n" for row in rows)

    @staticmethod
    def join(parts: Sequence[Path], output: Path, columns: Columns, names: ColumnNames) -> None:
        output.touch()
        _append_files(parts, output)


def _append_files(parts: Sequence[Path], output: Path, skipped: int = 0) -> None:
    """Append the parts to the file, each without its first bytes."""
    with output.open("ab") as file:
        for part in parts:
            with part.open("rb") as source:
                source.seek(skipped)
                shutil.copyfileobj(source, file)


def _iter_lines(file: BinaryIO, line: int = 1) -> Iterator[tuple[int, int, bytes]]:
    """(offset from where reading starts, line number, content) of the lines that are not blank."""
    offset = 0
    for number, raw in enumerate(file, start=line):
        if raw.strip(_BOM + b" \t\r\n"):
            yield offset, number, raw
        offset += len(raw)


def _parse_line(line: int, raw: bytes) -> Row:
    raw = raw.removeprefix(_BOM) if line == 1 else raw
    raw = raw.rstrip(b"\r\n")
    try:
        value = parse_json(raw.decode("utf-8"))
        if isinstance(value, dict):
            return Row(line, value)
        reason = f"the row is {shown(value)}, not an object"
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} of the line, 0x{raw[error.start]:02x}, is not UTF-8"
    except ValueError as error:
        reason = str(error)
    return Row(line, {}, problem=reason, raw=shown(raw.decode("utf-8", "backslashreplace")))


class Csv:
    """See `tables`."""

    @staticmethod
    def survey(path: Path, rows: int, names: ColumnNames, columns: bool) -> Survey:
        with _open_utf8(path) as file:
            records = _iter_records(file)
            header = _read_header(path, records)
            if names.text not in header:
                message = Errors.E743.format(path=path, name=names.text, allowed=", ".join(header))
                raise MMCoTError(message)
            places = tables.split_places(((record.offset, record.line) for record in records), rows)
        return places, {name: {str} for name in header}

    @staticmethod
    def read(chunk: Chunk, names: ColumnNames) -> Iterator[Row]:
        path = Path(chunk.path)
        with open_file(path) as file:
            header = _read_header(path, _iter_records(file))
            records = _iter_records(file, chunk.position, chunk.first_row)
            for record in islice(records, chunk.rows):
                cells, problem = record.cells, record.problem
                if not problem and len(cells) != len(header):
                    problem = f"the row has {len(cells)} cells, the header {len(header)}"
                if problem:
                    yield Row(record.line, {}, problem=problem, raw=shown(record.show()))
                else:
                    values = zip(header, cells, strict=True)
                    yield Row(record.line, {name: cell or None for name, cell in values})

    @staticmethod
    def write(path: Path, rows: Iterable[FoundRow], columns: Columns, names: ColumnNames) -> None:
        header = [*columns, *names.added]
        with path.open("w", encoding="utf-8", newline="") as file:
            # With this line end, the module quotes cells that hold either of its characters.
            feeds: Any = SimpleNamespace(write=lambda row: file.write(row[:-2] + "\n"))
            # Unquoted, a reader would take U+FEFF for a mark of the encoding.
            how: Any = csv.QUOTE_ALL if header[0].startswith("\ufeff") else csv.QUOTE_MINIMAL
            csv.writer(feeds, lineterminator="\r\n", quoting=how).writerow(header)
            writer = csv.writer(feeds, lineterminator="\r\n")
            for row in rows:
                values = row.values | row.added
                writer.writerow(tables.to_cell(values.get(name)) for name in header)

    @staticmethod
    def join(parts: Sequence[Path], output: Path, columns: Columns, names: ColumnNames) -> None:
        Csv.write(output, (), columns, names)
        _append_files(parts, output, skipped=output.stat().st_size)


class _Record(NamedTuple):
    """A record of a CSV file: the offset and the line at which it starts, its cells, why it cannot
    be read, and the file's lines that it is made of."""

    offset: int
    line: int
    cells: list[str]
    problem: str | None
    content: list[bytes]

    def show(self) -> str:
        """The start of its content. More is never shown, and the cell of a quote that is not closed
        may be long."""
        start = b"".join(self.content[:20])[:200]
        return start.decode("utf-8", "backslashreplace").rstrip("\r\n")


def _iter_records(file: BinaryIO, position: int = 0, line: int = 1) -> Iterator[_Record]:
    """The records of a file from an offset on. Blank lines are no records.

    Reads lines of bytes, since the offset of a record is needed to come back to it.
    """
    csv.field_size_limit(_MAX_CELL)
    file.seek(position)

    def read_lines() -> Iterator[str]:
        nonlocal position, line
        for raw in file:
            codec = "utf-8" if position else "utf-8-sig"
            position += len(raw)
            line += 1
            content.append(raw)
            yield raw.decode(codec, "surrogateescape")

    reader = csv.reader(read_lines(), strict=True)
    while True:
        content: list[bytes] = []
        start, cells, problem = (position, line), [], None
        try:
            cells = next(reader)
            "".join(cells).encode("utf-8")
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"not CSV ({error})"
        except UnicodeEncodeError as error:
            problem = f"0x{ord(error.object[error.start]) & 0xFF:02x} is not UTF-8"
        if cells or problem:
            yield _Record(*start, cells, problem, content)


def _read_header(path: Path, records: Iterator[_Record]) -> list[str]:
    """The column names in a file's first record. Raises MMCoTError where it is no header."""
    _, line, names, problem, _ = next(records, _Record(0, 1, [], "there is no header", []))
    if twice := [name for name in names if names.count(name) > 1]:
        problem = problem or f"the header names the column {twice[0]!r} twice"
    if problem:
        expected = "a header with a different name for each column"
        raise located(path, line, problem, expected, "Correct the header.")
    return names

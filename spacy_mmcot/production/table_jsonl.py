"""JSON Lines: an object a line. Blank lines are no rows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import shown
from ..files import open_file, parse_json
from .tables import Broken, Chunk, Names, Row, Survey, kind_of, to_json, widen

if TYPE_CHECKING:
    from spacy.tokens import Doc

_BOM = b"\xef\xbb\xbf"


def survey(path: Path, rows: int, names: Names, columns: bool) -> Survey:
    chunks: list[tuple[int, int, int]] = []
    kinds: dict[str, Any] = {}
    start, first, count, offset = 0, 0, 0, 0
    with open_file(path) as file:
        for line, raw in enumerate(file, start=1):
            if raw.strip(_BOM + b" \t\r\n"):
                if not count:
                    start, first = offset, line
                count += 1
                if columns and isinstance(row := _parse(line, raw), Row):
                    for name, value in row.values.items():
                        widen(kinds, name, kind_of(value))
            offset += len(raw)
            if count == rows:
                chunks.append((start, first, count))
                count = 0
    if count:
        chunks.append((start, first, count))
    return Survey(chunks, kinds)


def read(chunk: Chunk, names: Names) -> Iterator[Row | Broken]:
    left = chunk.rows
    with open_file(Path(chunk.path)) as file:
        file.seek(chunk.position)
        for line, raw in enumerate(file, start=chunk.first):
            if raw.strip(_BOM + b" \t\r\n"):
                yield _parse(line, raw)
                left -= 1
            if not left:
                return


class Writer:
    def __init__(self, columns: Mapping[str, Any], names: Names) -> None:
        self._lines: list[str] = []

    def add(self, values: dict[str, Any], found: dict[str, Any], doc: Doc) -> None:
        self._lines.append(to_json(values | found) + "\n")

    def save(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(self._lines)


def join(parts: Sequence[Path], output: Path, columns: Mapping[str, Any], names: Names) -> None:
    with output.open("wb") as file:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)


def _parse(line: int, raw: bytes) -> Row | Broken:
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
    return Broken(line, reason, shown(raw.decode("utf-8", "backslashreplace")))

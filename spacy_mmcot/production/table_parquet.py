"""Parquet, read and written by pyarrow. Columns keep their types; those from formats without types
get the nearest one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import Errors, MMCoTError, first_line
from ..files import catch_read_errors
from .tables import (
    BrokenRow,
    Chunk,
    ColumnNames,
    Columns,
    FoundRow,
    Row,
    Survey,
    split_count,
    to_json,
)

_TYPES = {
    None: pa.string(),
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
    "bytes": pa.binary(),
    "json": pa.string(),
}
_KINDS = {type: kind for kind, type in _TYPES.items() if kind not in (None, "json")} | {
    pa.large_string(): "str",
    pa.string_view(): "str",
    pa.large_binary(): "bytes",
    pa.binary_view(): "bytes",
}
_ENTITY = pa.struct(
    {
        "start": pa.int64(),
        "end": pa.int64(),
        "label": pa.string(),
        "text": pa.string(),
        "score": pa.float64(),
    }
)
_RELATION = pa.struct(
    {
        "head": pa.list_(pa.int64()),
        "tail": pa.list_(pa.int64()),
        "label": pa.string(),
        "score": pa.float64(),
    }
)
_ADDED = (pa.list_(_ENTITY), pa.list_(_RELATION), pa.float64())
_BATCH_ROWS = 4096  # that are decoded at once


def survey(path: Path, rows: int, names: ColumnNames, columns: bool) -> Survey:
    with _file(path) as file:
        kinds = {field.name: _kind(field.type) for field in file.schema_arrow}
        if kinds.get(names.text) != "str":
            allowed = ", ".join(name for name, kind in kinds.items() if kind == "str") or "none"
            message = Errors.E743.format(path=path, name=names.text, allowed=allowed)
            raise MMCoTError(message)
        total = file.metadata.num_rows
    return Survey(split_count(total, rows), kinds)


def read(chunk: Chunk, names: ColumnNames) -> Iterator[Row | BrokenRow]:
    with _file(Path(chunk.path)) as file:
        for number, values in _rows(file, chunk.position, chunk.rows):
            yield Row(number, values)


def write(path: Path, rows: Iterable[FoundRow], columns: Columns, names: ColumnNames) -> None:
    values = [row.values | row.added for row in rows]
    arrays = [_array([row.get(name) for row in values], kind) for name, kind in columns.items()]
    for name, type in zip(names.added, _ADDED, strict=True):
        arrays.append(pa.array([row[name] for row in values], type))
    pq.write_table(pa.table(arrays, schema=_schema(columns, names)), path)


def join(parts: Sequence[Path], output: Path, columns: Columns, names: ColumnNames) -> None:
    with pq.ParquetWriter(output, _schema(columns, names)) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part, partitioning=None))


def _schema(columns: Columns, names: ColumnNames) -> pa.Schema:
    carried = [(name, _type(kind)) for name, kind in columns.items()]
    return pa.schema([*carried, *zip(names.added, _ADDED, strict=True)])


def _kind(type: pa.DataType) -> Any:
    if pa.types.is_dictionary(type):
        type = type.value_type
    return _KINDS.get(type, type)


def _type(kind: Any) -> pa.DataType:
    return kind if isinstance(kind, pa.DataType) else _TYPES[kind]


def _rows(file: pq.ParquetFile, start: int, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """(place from 1, columns) of `count` rows from row `start` (from 0) on. Row groups without any
    of them are not read."""
    groups: list[int] = []
    group_start = skipped = 0
    for group in range(file.num_row_groups):
        group_end = group_start + file.metadata.row_group(group).num_rows
        if group_end <= start:
            skipped = group_end
        elif group_start < start + count:
            groups.append(group)
        group_start = group_end
    batch_start = skipped
    for batch in file.iter_batches(min(count, _BATCH_ROWS), row_groups=groups):
        first = max(start, batch_start)
        wanted = batch.slice(first - batch_start, max(0, start + count - first))
        batch_start += len(batch)
        columns = [_values(column) for column in wanted.columns]
        for i in range(len(wanted)):
            values = (column[i] for column in columns)
            yield first + i + 1, dict(zip(wanted.schema.names, values, strict=True))


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.type in _KINDS or pa.types.is_null(column.type):
        return column.to_pylist()
    # What Python cannot hold exactly, such as nanoseconds, stays an Arrow array of one value.
    return [column.slice(i, 1) if column[i].is_valid else None for i in range(len(column))]


def _array(values: Sequence[Any], kind: Any) -> pa.Array:
    if kind == "json":
        values = [None if value is None else to_json(value) for value in values]
    if not isinstance(kind, pa.DataType):
        return pa.array(values, _TYPES[kind])
    ones = [pa.nulls(1, kind) if value is None else value for value in values]
    return pa.concat_arrays(ones) if ones else pa.array([], kind)


@contextmanager
def _file(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file. Raises MMCoTError where it is missing, not Parquet, or damaged."""
    try:
        with catch_read_errors(path), pq.ParquetFile(path) as file:
            yield file
    except pa.ArrowException as error:
        raise MMCoTError(Errors.E102.format(path=path, reason=first_line(error))) from None

"""Parquet, read and written by pyarrow. Columns keep their types; those from formats without types
get the nearest one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..corpus.tables import BadText, read_cells
from ..errors import Errors, MMCoTError
from ..files import catch_read_errors
from ..messages import first_line
from .tables import LONG, Chunk, ColumnNames, Columns, FoundRow, Row, Survey, split_count, to_json

_INT, _FLOAT, _TEXT = pa.int64(), pa.float64(), pa.string()
_TYPES = {bool: pa.bool_(), int: _INT, float: _FLOAT, str: _TEXT, bytes: pa.binary()}
_KINDS: dict[Any, Any] = {type: kind for kind, type in _TYPES.items()} | {
    pa.large_string(): str,
    pa.string_view(): str,
    pa.large_binary(): bytes,
    pa.binary_view(): bytes,
}
_ENTITY = pa.struct({"start": _INT, "end": _INT, "label": _TEXT, "text": _TEXT, "score": _FLOAT})
_OFFSETS = pa.list_(_INT)
_RELATION = pa.struct({"head": _OFFSETS, "tail": _OFFSETS, "label": _TEXT, "score": _FLOAT})
_ADDED = (pa.list_(_ENTITY), pa.list_(_RELATION), pa.float64(), pa.float64())
_BATCH_ROWS = 4096  # that are decoded at once


def survey(path: Path, rows: int, names: ColumnNames, columns: bool) -> Survey:
    with _file(path) as file:
        schema, total = file.schema_arrow, file.metadata.num_rows
    if twice := [name for name in schema.names if schema.names.count(name) > 1]:
        reason = f"it has two columns {twice[0]!r}"
        raise MMCoTError(Errors.E102.format(path=path, reason=reason))
    kinds = {field.name: {_kind(field.type)} for field in schema}
    if kinds.get(names.text) != {str}:
        allowed = ", ".join(name for name, kind in kinds.items() if kind == {str}) or "none"
        raise MMCoTError(Errors.E743.format(path=path, name=names.text, allowed=allowed))
    return split_count(total, rows), kinds


def read(chunk: Chunk, names: ColumnNames) -> Iterator[Row]:
    with _file(Path(chunk.path)) as file:
        # Row groups without any of the chunk's rows are not read.
        start, end = chunk.position, chunk.position + chunk.rows
        sizes = (file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
        bounds = list(accumulate(sizes, initial=0))
        first_group = bisect_right(bounds, start) - 1
        groups = list(range(first_group, bisect_left(bounds, end)))
        read = bounds[first_group]
        for batch in file.iter_batches(min(chunk.rows, _BATCH_ROWS), row_groups=groups):
            first = max(start, read)
            wanted = batch.slice(first - read, max(0, end - first))
            read += len(batch)
            columns = map(read_cells, wanted.columns)
            for number, cells in enumerate(zip(*columns, strict=True), start=first + 1):
                values = dict(zip(wanted.schema.names, cells, strict=True))
                problem = next((v for v in values.values() if isinstance(v, BadText)), None)
                yield Row(number, {} if problem else values, problem=problem)


def write(path: Path, rows: Iterable[FoundRow], columns: Columns, names: ColumnNames) -> None:
    table, schema, arrays = [row.values | row.added for row in rows], _schema(columns, names), []
    for field in schema:
        values = [row.get(field.name) for row in table]
        if field.type == _TEXT and columns[field.name] != {str}:
            values = [None if value is None else to_json(value) for value in values]
        try:
            arrays.append(pa.array(values, field.type))
        except (pa.ArrowException, OverflowError) as error:
            fields = {"name": field.name, "reason": first_line(error)}
            raise MMCoTError(Errors.E756.format(**fields)) from None
    pq.write_table(pa.table(arrays, schema=schema), path)


def join(parts: Sequence[Path], output: Path, columns: Columns, names: ColumnNames) -> None:
    with pq.ParquetWriter(output, _schema(columns, names)) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part, partitioning=None))


def _schema(columns: Columns, names: ColumnNames) -> pa.Schema:
    carried = [(name, _type(kinds)) for name, kinds in columns.items()]
    return pa.schema([*carried, *zip(names.added, _ADDED, strict=True)])


def _kind(type: pa.DataType) -> Any:
    if pa.types.is_dictionary(type):
        type = type.value_type
    return _KINDS.get(type, type)


def _type(kinds: set[Any]) -> pa.DataType:
    """The type of a column that holds these; text, of JSON, where none other holds them all."""
    exact = {int if kind == LONG else kind for kind in kinds}
    types = [kind if isinstance(kind, pa.DataType) else _TYPES.get(kind, _TEXT) for kind in exact]
    if len(set(types)) < 2:
        return types[0] if types else _TEXT
    # No type holds these exactly.
    if {LONG, float} <= kinds or {_INT, pa.uint64()} <= set(types):
        return _TEXT
    try:
        schemas = [pa.schema({"x": type}) for type in types]
        return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except pa.ArrowException:
        return _TEXT


@contextmanager
def _file(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file. Raises MMCoTError where it is missing, not Parquet, or damaged."""
    try:
        with catch_read_errors(path), pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter of a column's name
        raise MMCoTError(Errors.E102.format(path=path, reason=first_line(error))) from None

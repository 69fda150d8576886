"""Columns that are carried from a table to a table of another format.

A *kind* says what a column holds: "bool", "int", "float", "str", "bytes", "json" for mixed and
nested values, which tables with types hold as JSON text, or the Arrow type of a Parquet column that
is none of these. None stands for a column in which no value was seen.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from ..errors import Errors, MMCoTError

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

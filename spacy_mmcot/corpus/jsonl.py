"""JSON Lines files of pydantic records, with errors that name line and field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import MMCoTError, explain, located
from ..files import decode, iter_lines, replacing
from .findings import Findings

Model = TypeVar("Model", bound=BaseModel)

CURE = "Correct the row, or leave such rows out with --skip-invalid."


def parse_json(path: Path, line: int, raw: bytes) -> Any:
    """Raises MMCoTError where the line is not one JSON value in UTF-8."""
    text = decode(path, line, raw)
    try:
        return json_value(text)
    except ValueError as error:
        raise located(path, line, str(error), "one JSON object", CURE) from None


def json_value(text: str) -> Any:
    """Raises ValueError, with what is wrong in plain words, where the text is not one JSON value
    that a file in UTF-8 could hold again."""
    try:
        value = json.loads(text)
        # A lone surrogate is a legal JSON escape, yet no UTF-8 file could hold it again.
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        problem = f"not JSON ({error.msg} at character {error.pos + 1})"
    except UnicodeEncodeError:
        problem = "a text holds one half of a surrogate pair"
    except RecursionError:
        problem = "the JSON is nested too deeply"
    except ValueError as error:
        problem = f"not readable as JSON ({error})"
    else:
        return value
    raise ValueError(problem)


def validate(path: Path, line: int, model: type[Model], value: Any) -> Model:
    """Raises MMCoTError that names the field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise located(path, line, *explain(error), CURE) from None


def iter_records(
    path: Path, model: type[Model], findings: Findings
) -> Iterator[tuple[int, int, Model]]:
    """Row numbers from 0, line numbers from 1, and records. Blank lines are no rows; a broken row
    has a number too, so that numbers stay true to the file."""
    row = -1
    for line, raw in iter_lines(path):
        if not raw.strip():
            continue
        row += 1
        try:
            record = validate(path, line, model, parse_json(path, line, raw))
        except MMCoTError as error:
            findings.reject(error)
            continue
        yield row, line, record


def write_records(path: Path, records: Iterable[BaseModel]) -> int:
    """Write a record a line, fields that are None left out; returns how many."""
    count = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(record.model_dump_json(exclude_none=True) + "\n")
            count += 1
    return count

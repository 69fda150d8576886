"""A store's answers as JSON Lines, for other machines and other eyes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
from pydantic_core import to_json

from ..errors import Errors, MMCoTError, explain, located
from ..files import replacing
from ..types import Answers, Dimension, Task, Text
from .store import AnswerStore, StoredAnswer

_CURE = "Correct the row or delete it."


class ExportedAnswer(pydantic.BaseModel):
    """One line of an export: an answer, good or rejected, and what was asked."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    key: Text
    post_id: Text
    task: Task
    dimension: Dimension
    template: Text
    source: Text
    model: str
    raw: str
    value: Any = None
    reason: str | None = None
    variant: pydantic.NonNegativeInt = 0

    def stored(self) -> StoredAnswer:
        """Raises ValidationError where the value is none of the dimension's."""
        fields = dict(self)
        if self.value is not None:
            answers = Answers.model_validate({"id": self.post_id, self.dimension: self.value})
            fields["value"] = getattr(answers, self.dimension)
        return StoredAnswer(**fields)


def export_answers(store: AnswerStore, path: Path) -> int:
    """Write all answers, rejected ones too, in an order that does not depend on when they came;
    returns how many. The file appears when it is whole. Raises MMCoTError where it cannot be
    written."""
    count = 0
    with replacing(path) as temporary, temporary.open("wb") as file:
        for answer in store.every():
            file.write(to_json(answer, exclude_none=True) + b"\n")
            count += 1
    return count


def import_answers(store: AnswerStore, path: Path) -> int:
    """Add an export's answers that the store does not have; returns how many. All of them or, at
    a broken row, none: raises MMCoTError that names the line."""
    added = 0
    with store.transaction():
        for answer in _rows(path):
            added += store.put(answer)
    return added


def _rows(path: Path) -> Iterator[StoredAnswer]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _row(path, number, line)
    except FileNotFoundError:
        raise MMCoTError(Errors.E100.format(path=path)) from None
    except OSError as error:
        raise MMCoTError(Errors.E102.format(path=path, reason=error.strerror)) from None


def _row(path: Path, number: int, line: bytes) -> StoredAnswer:
    try:
        return ExportedAnswer.model_validate(json.loads(line.decode("utf-8"))).stored()
    except pydantic.ValidationError as error:
        problem, expected = explain(error)
    except (ValueError, RecursionError) as error:
        problem, expected = f"not JSON ({error})", "one answer of an export"
    raise located(path, number, problem, expected, _CURE)

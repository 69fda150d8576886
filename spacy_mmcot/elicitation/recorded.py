"""Answers recorded in a JSONL file, and the source that answers prompts from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json

from ..errors import explain, located
from ..files import decode_line, iter_lines, parse_json
from ..types import Answers, Dimension
from .prompts import Prompt
from .replies import Reply

_EXPECTED = "one JSON object with an id and answers"
Record = TypeVar("Record")


class RecordedSource:
    """Answers each prompt by the post's id and the dimension. Reads `path` once, here; raises
    MMCoTError where it cannot be read or a row is broken."""

    name = "recorded"
    paid = False

    def __init__(self, path: Path) -> None:
        self.url = str(path)
        self._answers = read_answers(path)

    def model_for(self, dimension: Dimension) -> str:
        return ""

    def parameters(self, prompt: Prompt) -> dict[str, object]:
        # A recorded answer belongs to its post, whatever the prompt, and one that was corrected in
        # the file is another answer.
        answer = self._find(prompt)
        digest = None if answer is None else hashlib.sha256(answer.encode()).hexdigest()
        return {"post": prompt.post_id, "answer": digest}

    async def ask(self, prompt: Prompt) -> Reply | None:
        """The recorded answer, None where there is none."""
        answer = self._find(prompt)
        return None if answer is None else Reply(answer)

    async def close(self) -> None:
        pass

    def _find(self, prompt: Prompt) -> str | None:
        if prompt.variant:
            return None
        answers = self._answers.get(prompt.post_id)
        value = None if answers is None else getattr(answers, prompt.dimension)
        return value if value is None or isinstance(value, str) else to_json(value).decode()


def read_answers(path: Path) -> dict[str, Answers]:
    """The answers of a JSONL file by post id, in file order. Raises MMCoTError that names the line
    for a broken row or an id that occurs twice."""
    answers: dict[str, Answers] = {}
    first_line: dict[str, int] = {}
    for number, line in iter_lines(path):
        if not line.strip():
            continue
        row = read_record(Answers.model_validate, path, number, line, _EXPECTED)
        if row.id in answers:
            problem = f"id {row.id!r} occurs in line {first_line[row.id]} too"
            raise located(
                path, number, problem, "each id once", "Delete or rename one of the rows."
            )
        answers[row.id] = row
        first_line[row.id] = number
    return answers


def read_record(
    parse: Callable[[Any], Record], path: Path, number: int, line: bytes, expected: str
) -> Record:
    """What `parse` makes of the JSON in a line of a file. Raises MMCoTError that names the line,
    also where `parse` raises ValidationError."""
    try:
        return parse(parse_json(decode_line(path, number, line)))
    except ValidationError as error:
        problem, expected = explain(error)
    except ValueError as error:
        problem = str(error)
    raise located(path, number, problem, expected, "Correct the row or delete it.")

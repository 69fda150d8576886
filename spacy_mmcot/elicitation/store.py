"""The answers store: one SQLite file that keeps every answer an LLM gave, good or rejected.

An answer is found by what was asked (template, messages, picture, model, parameters), so nothing
is asked twice, and a changed prompt or model asks anew beside the old answers. The same file keeps
what a run must not forget: spend, claims, first attempts and batches (see ledger, claims, batches).

A store's answers as JSON Lines, for other machines and other eyes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
from pydantic import ValidationError
from pydantic_core import to_json

from ..errors import Errors, MMCoTError, explain, located
from ..files import iter_lines, replace_file
from ..types import DIMENSIONS, KNOWLEDGE, Answers, Dimension, Task, Text
from .database import Database
from .parser import AnswerValue
from .prompts import Prompt, answer_schema
from .recorded import read_answers

_COLUMNS = (
    "key, post_id, task, dimension, template, source, model, raw, value, status, reason, variant"
)


@dataclass(frozen=True)
class StoredAnswer:
    """One row of the store. `value` is None where the answer was rejected for `reason`."""

    key: str
    post_id: str
    task: Task
    dimension: Dimension
    template: str
    source: str
    model: str
    raw: str
    value: AnswerValue | None = None
    reason: str | None = None
    variant: int = 0


class Known(NamedTuple):
    """Whether a question has an answer for this post, an answer for any post, and a first answer
    that waits for its repair round."""

    answered: bool
    shared: bool
    attempted: bool


def answer_key(prompt: Prompt, model: str, parameters: Mapping[str, object]) -> str:
    """The address of an answer: a SHA-256 over all that was asked, of whom, and how."""
    asked: list[Any] = [prompt.template, list(prompt.messages), model, dict(parameters)]
    if prompt.picture is not None:
        asked.append(prompt.picture.digest)
    if prompt.wants_json:
        # Which of its formats an endpoint grants is found out later; what is wanted is known.
        asked.append(answer_schema(prompt.dimension))
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode("ascii")).hexdigest()


class AnswerStore(Database):
    """A Database of answers; each `put` is committed when it returns, or with the transaction
    that it is in."""

    def put(self, answer: StoredAnswer) -> bool:
        """Keep an answer; False where the store has it already."""
        value = None if answer.value is None else to_json(answer.value).decode()
        row = (
            *(answer.key, answer.post_id, answer.task, answer.dimension, answer.template),
            *(answer.source, answer.model, _storable(answer.raw), value),
            *("rejected" if value is None else "ok", _storable(answer.reason)),
            *(answer.variant, _now()),
        )
        marks = ", ".join("?" * len(row))
        return self.write(
            f"INSERT OR IGNORE INTO answers ({_COLUMNS}, created) VALUES ({marks})", row
        )

    def known(self, key: str, post_id: str) -> Known:
        """What the store has about a question of a post's, in one look."""
        row = self.rows(
            "SELECT EXISTS (SELECT 1 FROM answers WHERE key = ? AND post_id = ?), "
            "EXISTS (SELECT 1 FROM answers WHERE key = ?), "
            "EXISTS (SELECT 1 FROM attempts WHERE key = ?)",
            *(key, post_id, key, key),
        )[0]
        return Known(*map(bool, row))

    def share(self, key: str, post_id: str) -> bool:
        """Keep the answer to the same question about another post for this post too."""
        columns = _COLUMNS.replace("post_id", "?")
        return self.write(
            f"INSERT OR IGNORE INTO answers ({_COLUMNS}, created) "
            f"SELECT {columns}, created FROM answers WHERE key = ? LIMIT 1",
            (post_id, key),
        )

    def renew(self, key: str, post_id: str) -> bool:
        """Let this answer stand again where a later one to the same post and dimension, by
        another model or prompt, has taken its place."""
        later = self.rows(
            "SELECT 1 FROM answers a JOIN answers b USING (task, post_id, dimension, variant) "
            "WHERE a.key = ? AND a.post_id = ? AND b.seq > a.seq LIMIT 1",
            *(key, post_id),
        )
        return bool(later) and self.write(
            "UPDATE answers SET seq = (SELECT max(seq) + 1 FROM answers) "
            "WHERE key = ? AND post_id = ?",
            (key, post_id),
        )

    def attempt(self, key: str) -> tuple[str, str] | None:
        """Raw text and reason of a first answer that could not be used, while its repair round is
        not settled."""
        rows = self.rows("SELECT raw, reason FROM attempts WHERE key = ?", key)
        return rows[0] if rows else None

    def put_attempt(self, key: str, raw: str, reason: str) -> None:
        row = (key, _storable(raw), _storable(reason))
        self.write("INSERT OR REPLACE INTO attempts VALUES (?, ?, ?)", row)

    def drop_attempt(self, key: str) -> None:
        self.write("DELETE FROM attempts WHERE key = ?", (key,))

    def answers(self, task: Task = "ner", variant: int = 0) -> dict[str, Answers]:
        """The good answers by post id, in the order of the ids; of several to the same post and
        dimension, the last. `variant` picks among several rewritings of a post."""
        values: dict[str, dict[str, Any]] = {}
        for post_id, dimension, value in self.rows(
            "SELECT post_id, dimension, value FROM answers "
            "WHERE task = ? AND status = 'ok' AND (variant = ? OR dimension IN (?, ?, ?)) "
            "ORDER BY post_id, seq",
            *(task, variant, *KNOWLEDGE),
        ):
            values.setdefault(post_id, {})[dimension] = self._loaded(post_id, dimension, value)
        return {i: Answers.model_validate({"id": i, **by_name}) for i, by_name in values.items()}

    def rejected(self) -> list[StoredAnswer]:
        """The answers that could not be used, with their reasons, oldest first."""
        rows = self.rows(
            "SELECT key, post_id, task, dimension, template, source, model, raw, value, reason, "
            "variant FROM answers WHERE status = 'rejected' ORDER BY seq"
        )
        return [StoredAnswer(*row) for row in rows]

    def every(self) -> Iterator[StoredAnswer]:
        """All answers, the rejected ones too, in an order that does not depend on when they
        came."""
        with self.plain_errors():
            for row in self.connection.execute(
                "SELECT key, post_id, task, dimension, template, source, model, raw, value, "
                "reason, variant FROM answers ORDER BY task, post_id, dimension, variant, seq, key"
            ):
                answer = StoredAnswer(*row)
                if answer.value is not None:
                    loaded = self._loaded(answer.post_id, answer.dimension, row[8])
                    answer = replace(answer, value=loaded)
                yield answer

    def _loaded(self, post_id: str, dimension: str, value: str) -> Any:
        try:
            if dimension not in DIMENSIONS:
                raise ValueError("unknown dimension")
            answers = Answers.model_validate({"id": post_id, dimension: json.loads(value)})
            return getattr(answers, dimension)
        except ValidationError as error:
            reason = explain(error)[0]
        except (ValueError, TypeError) as error:
            reason = str(error)
        raise MMCoTError(
            Errors.E302.format(path=self.path, post_id=post_id, dimension=dimension, reason=reason)
        )


def load_answers(path: Path, task: Task = "ner", variant: int = 0) -> dict[str, Answers]:
    """Answers by post id, from a recorded file (`.jsonl`, whatever the task) or else a store.
    `variant` picks among several rewritings of a post.

    Raises MMCoTError where the file cannot be read; in a recorded file it names the line.
    """
    if path.suffix.lower() == ".jsonl":
        return read_answers(path) if variant == 0 else {}
    with AnswerStore(path, read_only=True) as store:
        return store.answers(task, variant)


def _storable(text: str | None) -> str | None:
    return text if text is None else text.encode("utf-8", "replace").decode("utf-8")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


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
    with replace_file(path) as temporary, temporary.open("wb") as file:
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
    for number, line in iter_lines(path):
        if line.strip():
            yield _row(path, number, line)


def _row(path: Path, number: int, line: bytes) -> StoredAnswer:
    try:
        return ExportedAnswer.model_validate(json.loads(line.decode("utf-8"))).stored()
    except pydantic.ValidationError as error:
        problem, expected = explain(error)
    except (ValueError, RecursionError) as error:
        problem, expected = f"not JSON ({error})", "one answer of an export"
    raise located(path, number, problem, expected, _CURE)

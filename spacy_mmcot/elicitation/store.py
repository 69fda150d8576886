"""Answers on disk: the store, one SQLite file that keeps every answer of an LLM, good or rejected;
its export as JSON Lines; and files of recorded answers, with the source that answers from them.

An answer is found by what was asked (template, messages, picture, model, parameters), so nothing
is asked twice, and a changed prompt or model asks again and keeps the old answers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pydantic
from pydantic_core import to_json

from ..errors import Errors, MMCoTError
from ..files import decode_line, iter_lines, parse_json, write_records
from ..messages import explain, located
from ..types import DIMENSIONS, KNOWLEDGE, Answers, Conclusion, Dimension, Post, Task, Text
from .conclusion import join_conclusions, merge_conclusions
from .database import Database
from .prompts import Prompt
from .replies import Reply

Record = TypeVar("Record")
# The fields of StoredAnswer in their order.
_COLUMNS = "key, post_id, task, dimension, template, source, model, raw, value, reason, variant"


@dataclass(frozen=True)
class StoredAnswer:
    """One row of the store, and one line of an export. `template` is that of the Prompt.
    `value`, an AnswerValue, is None where the answer was rejected for `reason`."""

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")

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


_EXAMPLES = pydantic.TypeAdapter(dict[str, Post])
_EXPORTED = pydantic.TypeAdapter(StoredAnswer)


def answer_key(prompt: Prompt, model: str, parameters: Mapping[str, object]) -> str:
    """The address of an answer: a SHA-256 over all that was asked, of whom, and how."""
    asked: list[Any] = [prompt.template, list(prompt.messages), model, dict(parameters)]
    if prompt.picture is not None:
        asked.append(prompt.picture.digest)
    if prompt.schema is not None:
        # Which of its formats an endpoint grants is found out later; what is wanted is known.
        asked.append(prompt.schema)
    if prompt.dimension == "conclusion" and prompt.variant:
        asked.append(prompt.variant)  # the same words, asked once more
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode("ascii")).hexdigest()


class AnswerStore(Database):
    """A Database of answers; each `put` is committed when it returns, or with the transaction
    that it is in."""

    def put(self, answer: StoredAnswer) -> bool:
        """Keep an answer; False where the store has it already, or a good one in place of it."""
        value = None if answer.value is None else to_json(answer.value).decode()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return self.write(
            f"INSERT INTO answers ({_COLUMNS}, status, created) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key, post_id) DO UPDATE "
            "SET raw = excluded.raw, value = excluded.value, reason = NULL, status = 'ok' "
            "WHERE status = 'rejected' AND excluded.status = 'ok'",
            *(vars(answer) | {"value": value}).values(),
            *("rejected" if value is None else "ok", now),
        )

    def has_answer(self, key: str) -> bool:
        """Whether a question has an answer, for whichever post."""
        return bool(self.fetch("SELECT 1 FROM answers WHERE key = ? LIMIT 1", key))

    def reuse(self, key: str, post_id: str) -> str | None:
        """The status of a question's answer, "ok" or "rejected", None without any. The answer then
        is this post's too, and counts rather than a later one to the same post and dimension by
        another model or prompt."""
        query = "SELECT max(post_id = ?), min(status) FROM answers WHERE key = ?"
        ((known, status),) = self.fetch(query, post_id, key)
        later = known and self.fetch(
            "SELECT a.template, b.template "
            "FROM answers a JOIN answers b USING (task, post_id, dimension, variant) "
            "WHERE a.key = ? AND a.post_id = ? AND b.seq > a.seq",
            *(key, post_id),
        )
        if known == 0 or any(_overlap(*map(_find_place, templates)) for templates in later or ()):
            columns = f"{_COLUMNS}, status, created"
            self.write(
                f"INSERT OR REPLACE INTO answers ({columns}) "
                f"SELECT {columns.replace('post_id', '?')} FROM answers WHERE key = ? LIMIT 1",
                *(post_id, key),
            )
        return None if status is None else str(status)

    def drop_rejected(self, task: Task, model: str, dimensions: Iterable[Dimension]) -> None:
        """Forget a model's rejected answers, so that their questions are asked again."""
        self.write(
            "DELETE FROM answers WHERE status = 'rejected' AND task = ? AND model = ? "
            "AND dimension IN (SELECT value FROM json_each(?))",
            *(task, model, json.dumps([*dimensions])),
        )

    def attempt(self, key: str) -> tuple[str, str] | None:
        """Raw text and reason of a first answer that could not be used, while its repair round is
        not settled."""
        rows = self.fetch("SELECT raw, reason FROM attempts WHERE key = ?", key)
        return rows[0] if rows else None

    def put_attempt(self, key: str, raw: str, reason: str) -> None:
        self.write("INSERT OR REPLACE INTO attempts VALUES (?, ?, ?)", key, raw, reason)

    def answers(
        self,
        task: Task = "ner",
        variant: int = 0,
        post_id: str | None = None,
        start: int | None = None,
    ) -> dict[str, Answers]:
        """The good answers by post id (of one post, where it is given), in the order of the ids; of
        several to the same post and dimension, the last. `variant` picks among several
        augmentations of a post; several conclusions vote. Those to the parts of a text are one, of
        as many as have an answer; `start` picks that to the part which begins there."""
        # Not `post_id = ifnull(?, post_id)`, which no index serves.
        of_post = "" if post_id is None else "AND post_id = ? "
        found: dict[str, dict[str, dict[int, list[tuple[_Place, Any]]]]] = {}
        for name, dimension, number, template, value in self.fetch(
            "SELECT post_id, dimension, variant, template, value FROM answers "
            f"WHERE task = ? {of_post}AND "
            "(variant = ? OR dimension IN (SELECT value FROM json_each(?))) AND status = 'ok' "
            "ORDER BY post_id, seq",
            *(task, *([post_id] if of_post else []), variant, json.dumps(KNOWLEDGE)),
        ):
            place = _find_place(template)
            if start is None or start == place.start:
                variants = found.setdefault(name, {}).setdefault(dimension, {})
                loaded = self._load_value(name, dimension, value)
                variants.setdefault(number, []).append((place, loaded))
        answers = {}
        for name, dimensions in found.items():
            values: dict[str, Any] = {}
            for dimension, variants in dimensions.items():
                joined = [_join_parts(rows) for rows in variants.values()]
                is_vote = dimension == "conclusion"
                values[dimension] = merge_conclusions(joined) if is_vote else joined[-1]
            answers[name] = Answers.model_validate({"id": name, **values})
        return answers

    def find_conclusion(self, keys: Iterable[str]) -> Conclusion | None:
        """The conclusion that answers a question, or those about all parts of a text, for whichever
        post; None where one has no answer that can be used."""
        parts = []
        for key in keys:
            query = "SELECT template, post_id, value FROM answers WHERE key = ? AND status = 'ok'"
            rows = self.fetch(f"{query} LIMIT 1", key)
            if not rows:
                return None
            ((template, name, value),) = rows
            parts.append((_find_place(template), self._load_value(name, "conclusion", value)))
        joined: Conclusion = _join_parts(parts)
        return joined

    def read_examples(self) -> dict[str, Post] | None:
        """The examples of the store's conclusions by the keys of their texts, None before any."""
        if not self.fetch("SELECT 1 FROM sqlite_schema WHERE name = 'examples'"):
            return None
        rows = self.fetch("SELECT posts FROM examples")
        return _EXAMPLES.validate_json(rows[0][0]) if rows else None

    def keep_examples(self, posts: dict[str, Post]) -> None:
        """Keep the examples that conclusions are asked with, in place of others."""
        if posts == self.read_examples():
            return
        with self.transaction():
            self.write("CREATE TABLE IF NOT EXISTS examples (posts TEXT NOT NULL)")
            self.write("DELETE FROM examples")
            self.write("INSERT INTO examples VALUES (?)", _EXAMPLES.dump_json(posts).decode())

    def texts(
        self, task: Task, post_id: str, dimensions: Sequence[Dimension], start: int | None = None
    ) -> dict[Dimension, str]:
        """The good answers to one post, or to the part of it that begins at `start`, as texts, in
        the order of the dimensions."""
        known = self.answers(task, post_id=post_id, start=start).get(post_id)
        values = {name: getattr(known, name, None) for name in dimensions}
        return {name: _as_text(value) for name, value in values.items() if value is not None}

    def rejected(self) -> list[StoredAnswer]:
        """The answers that could not be used, with their reasons, oldest first."""
        query = f"SELECT {_COLUMNS} FROM answers WHERE status = 'rejected' ORDER BY seq"
        return [StoredAnswer(*row) for row in self.fetch(query)]

    def iter_all(self) -> Iterator[StoredAnswer]:
        """All answers, rejected ones too, in an order that does not depend on when they came."""
        order = "task, post_id, dimension, variant, seq, key"
        with self.translate_errors():
            for row in self.connection.execute(f"SELECT {_COLUMNS} FROM answers ORDER BY {order}"):
                answer = StoredAnswer(*row)
                if answer.value is not None:
                    value = self._load_value(answer.post_id, answer.dimension, answer.value)
                    answer = replace(answer, value=value)
                yield answer

    def _load_value(self, post_id: str, dimension: str, value: str) -> Any:
        try:
            if dimension not in DIMENSIONS:
                raise ValueError("unknown dimension")
            return _validate_value(post_id, dimension, json.loads(value))
        except (ValueError, TypeError) as error:
            reason = explain(error)[0] if isinstance(error, pydantic.ValidationError) else error
            details = {"post_id": post_id, "dimension": dimension, "reason": reason}
            raise MMCoTError(Errors.E302.format(path=self.path, **details)) from None


def _validate_value(post_id: str, dimension: str, value: Any) -> Any:
    return getattr(Answers.model_validate({"id": post_id, dimension: value}), dimension)


def load_answers(path: Path | str, task: Task = "ner", variant: int = 0) -> dict[str, Answers]:
    """Answers by post id, from a recorded file (`.jsonl`, whatever the task) or else a store.
    `variant` picks among several augmentations of a post.

    Raises MMCoTError where the file cannot be read; in a recorded file it names the line.
    """
    path = Path(path)
    if path.suffix.lower() == ".jsonl":
        return read_answers(path) if variant == 0 else {}
    with AnswerStore(path, read_only=True) as store:
        return store.answers(task, variant)


def count_variants(path: Path, task: Task = "ner") -> int:
    """How many times a file of answers, as of `load_answers`, has augmentations at most."""
    if path.suffix.lower() == ".jsonl":
        return 1
    with AnswerStore(path, read_only=True) as store:
        ((last,),) = store.fetch("SELECT max(variant) FROM answers WHERE task = ?", task)
    return 1 + (last or 0)


class _Place(NamedTuple):
    """The part that an answer is about, and the text's length; (0, 0, 0) for a whole text."""

    start: int
    end: int
    length: int


def _find_place(template: str) -> _Place:
    _, _, place = template.partition(" ")
    return _Place(*map(int, re.findall("[0-9]+", place) or (0, 0, 0)))


def _overlap(a: _Place, b: _Place) -> bool:
    return a.length != b.length or not a.length or (a.start < b.end and b.start < a.end)


def _join_parts(rows: Sequence[tuple[_Place, Any]]) -> Any:
    """The last answer to a text, or the last ones to its parts, as one."""
    kept: dict[_Place, Any] = {}
    for place, value in reversed(rows):
        if not any(_overlap(place, other) for other in kept):
            kept[place] = value
    places = sorted(kept)
    values = [kept[place] for place in places]
    if not places[0].length:
        return values[0]
    if isinstance(values[0], Conclusion):
        return join_conclusions([place[:2] for place in places], values)
    if isinstance(values[0], list):
        return [item for value in values for item in value]
    return "\n".join(values)


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(f"{item.mention}: {item.kind}. {item.explanation}" for item in value)
    return str(value)


def export_answers(store: AnswerStore, path: Path) -> int:
    """Write all answers, rejected ones too, in an order that does not depend on when they came,
    and in a last line the examples of conclusions; returns the number of answers. The file appears
    when it is whole. Raises MMCoTError where it cannot be written."""
    examples = store.read_examples()
    last = [] if examples is None else [{"examples": examples}]
    return write_records(path, chain(store.iter_all(), last)) - len(last)


def import_answers(store: AnswerStore, path: Path) -> int:
    """Add an export's answers that the store does not have, and its examples where the store has
    none; returns the number of answers added. All of them or, at a broken row, none: raises
    MMCoTError that names the line."""
    added = 0
    with store.transaction():
        for _, row in _iter_records(_parse_exported, path, "one answer of an export"):
            if isinstance(row, StoredAnswer):
                added += store.put(row)
            elif store.read_examples() is None:
                store.keep_examples(row)
    return added


def _parse_exported(row: Any) -> StoredAnswer | dict[str, Post]:
    if isinstance(row, dict) and row.keys() == {"examples"}:
        return _EXAMPLES.validate_python(row["examples"])
    answer = _EXPORTED.validate_python(row)
    if answer.value is None:
        return answer
    return replace(answer, value=_validate_value(answer.post_id, answer.dimension, answer.value))


class RecordedSource:
    """Answers each prompt by the post's id and the dimension. Reads `path` once, here; raises
    MMCoTError where it cannot be read or a row is broken."""

    name = "recorded"
    model = ""
    paid = False

    def __init__(self, path: Path | str) -> None:
        self.url = str(path)
        self._answers = read_answers(Path(path))

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
        answers = None if prompt.variant else self._answers.get(prompt.post_id)
        value = None if answers is None else getattr(answers, prompt.dimension)
        return value if value is None or isinstance(value, str) else to_json(value).decode()


def read_answers(path: Path) -> dict[str, Answers]:
    """The answers of a JSONL file by post id, in file order. Raises MMCoTError that names the line
    for a broken row or an id that occurs twice."""
    found: dict[str, tuple[int, Answers]] = {}
    expected = "one JSON object with an id and answers"
    for number, row in _iter_records(Answers.model_validate, path, expected):
        if row.id in found:
            problem = f"id {row.id!r} occurs in line {found[row.id][0]} too"
            raise located(path, number, problem, "each id once", "Delete or rename a row.")
        found[row.id] = number, row
    return {name: row for name, (_, row) in found.items()}


def _iter_records(
    parse: Callable[[Any], Record], path: Path, expected: str
) -> Iterator[tuple[int, Record]]:
    """Line numbers, and what `parse` makes of the JSON in each line that is not blank."""
    for number, line in iter_lines(path):
        if not line.strip():
            continue
        text = decode_line(path, number, line)
        try:
            record = parse(parse_json(text))
        except ValueError as error:
            fault = (
                explain(error)
                if isinstance(error, pydantic.ValidationError)
                else (str(error), expected)
            )
            raise located(path, number, *fault, "Correct the row or delete it.") from None
        yield number, record

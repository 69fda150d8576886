"""The answers store: one SQLite file that keeps every answer an LLM gave, good or rejected.

An answer is found by what was asked (template, messages, picture, model, parameters), so nothing
is asked twice, and a changed prompt or model asks anew beside the old answers. The same file keeps
what a run must not forget: spend, claims, first attempts and batches (see ledger, claims, batches).
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import quote

from pydantic import ValidationError
from pydantic_core import to_json

from ..errors import Errors, MMCoTError, explain
from ..types import DIMENSIONS, KNOWLEDGE, Answers, Dimension, Task
from .parser import AnswerValue
from .prompts import Prompt
from .recorded import read_answers
from .schemas import answer_schema
from .tables import TABLES

_APPLICATION_ID = 0x4D4D436F  # "MMCo", in the file's header
_SCHEMA_VERSION = 2
_BUSY_SECONDS = 30.0
_SCHEMA = """
CREATE TABLE answers (
    seq INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    post_id TEXT NOT NULL,
    task TEXT NOT NULL,
    dimension TEXT NOT NULL,
    template TEXT NOT NULL,
    source TEXT NOT NULL,
    model TEXT NOT NULL,
    raw TEXT NOT NULL,
    value TEXT,
    status TEXT NOT NULL CHECK (status IN ('ok', 'rejected')),
    reason TEXT,
    created TEXT NOT NULL,
    variant INTEGER NOT NULL DEFAULT 0,
    UNIQUE (key, post_id)
);
CREATE INDEX answers_by_post ON answers (task, post_id, dimension);
"""
_UPGRADE = "ALTER TABLE answers ADD COLUMN variant INTEGER NOT NULL DEFAULT 0"
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


class AnswerStore:
    """Opens the store at `path`, or creates it. Several processes may share one store; each `put`
    is committed when it returns. A read-only store never changes the file.

    Raises MMCoTError where the file is missing (read-only), is no such store or cannot be used.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        if read_only and not path.is_file():
            raise MMCoTError(Errors.E100.format(path=path))
        with self.plain_errors():
            if not read_only:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                f"file:{quote(str(path.absolute()))}?{self._mode(read_only)}",
                uri=True,
                timeout=_BUSY_SECONDS,
                isolation_level=None,
            )
            try:
                self._open(read_only)
            except BaseException:
                self._connection.close()
                raise

    @property
    def connection(self) -> sqlite3.Connection:
        """For the tables beside the answers. Use it inside `transaction` or `plain_errors`."""
        return self._connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What is done in the block is committed as one when it ends, or not at all. A block
        within a block is a part of the outer one."""
        if self._connection.in_transaction:
            yield self._connection
            return
        with self.plain_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

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
        return self._write(
            f"INSERT OR IGNORE INTO answers ({_COLUMNS}, created) VALUES ({marks})", row
        )

    def known(self, key: str, post_id: str) -> Known:
        """What the store has about a question of a post's, in one look."""
        row = self._rows(
            "SELECT EXISTS (SELECT 1 FROM answers WHERE key = ? AND post_id = ?), "
            "EXISTS (SELECT 1 FROM answers WHERE key = ?), "
            "EXISTS (SELECT 1 FROM attempts WHERE key = ?)",
            *(key, post_id, key, key),
        )[0]
        return Known(*map(bool, row))

    def share(self, key: str, post_id: str) -> bool:
        """Keep the answer to the same question about another post for this post too."""
        columns = _COLUMNS.replace("post_id", "?")
        return self._write(
            f"INSERT OR IGNORE INTO answers ({_COLUMNS}, created) "
            f"SELECT {columns}, created FROM answers WHERE key = ? LIMIT 1",
            (post_id, key),
        )

    def renew(self, key: str, post_id: str) -> bool:
        """Let this answer stand again where a later one to the same post and dimension, by
        another model or prompt, has taken its place."""
        later = self._rows(
            "SELECT 1 FROM answers a JOIN answers b USING (task, post_id, dimension, variant) "
            "WHERE a.key = ? AND a.post_id = ? AND b.seq > a.seq LIMIT 1",
            *(key, post_id),
        )
        return bool(later) and self._write(
            "UPDATE answers SET seq = (SELECT max(seq) + 1 FROM answers) "
            "WHERE key = ? AND post_id = ?",
            (key, post_id),
        )

    def attempt(self, key: str) -> tuple[str, str] | None:
        """Raw text and reason of a first answer that could not be used, while its repair round is
        not settled."""
        rows = self._rows("SELECT raw, reason FROM attempts WHERE key = ?", key)
        return rows[0] if rows else None

    def put_attempt(self, key: str, raw: str, reason: str) -> None:
        row = (key, _storable(raw), _storable(reason))
        self._write("INSERT OR REPLACE INTO attempts VALUES (?, ?, ?)", row)

    def drop_attempt(self, key: str) -> None:
        self._write("DELETE FROM attempts WHERE key = ?", (key,))

    def answers(self, task: Task = "ner", variant: int = 0) -> dict[str, Answers]:
        """The good answers by post id, in the order of the ids; of several to the same post and
        dimension, the last. `variant` picks among several rewritings of a post."""
        values: dict[str, dict[str, Any]] = {}
        for post_id, dimension, value in self._rows(
            "SELECT post_id, dimension, value FROM answers "
            "WHERE task = ? AND status = 'ok' AND (variant = ? OR dimension IN (?, ?, ?)) "
            "ORDER BY post_id, seq",
            *(task, variant, *KNOWLEDGE),
        ):
            values.setdefault(post_id, {})[dimension] = self._loaded(post_id, dimension, value)
        return {i: Answers.model_validate({"id": i, **by_name}) for i, by_name in values.items()}

    def rejected(self) -> list[StoredAnswer]:
        """The answers that could not be used, with their reasons, oldest first."""
        rows = self._rows(
            "SELECT key, post_id, task, dimension, template, source, model, raw, value, reason, "
            "variant FROM answers WHERE status = 'rejected' ORDER BY seq"
        )
        return [StoredAnswer(*row) for row in rows]

    def every(self) -> Iterator[StoredAnswer]:
        """All answers, the rejected ones too, in an order that does not depend on when they
        came."""
        with self.plain_errors():
            for row in self._connection.execute(
                "SELECT key, post_id, task, dimension, template, source, model, raw, value, "
                "reason, variant FROM answers ORDER BY task, post_id, dimension, variant, seq, key"
            ):
                answer = StoredAnswer(*row)
                if answer.value is not None:
                    loaded = self._loaded(answer.post_id, answer.dimension, row[8])
                    answer = replace(answer, value=loaded)
                yield answer

    def close(self) -> None:
        """Bring all answers into the one file at `path`."""
        with self.plain_errors():
            if not self._connection.execute("PRAGMA query_only").fetchone()[0]:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _mode(self, read_only: bool) -> str:
        if not read_only:
            return "mode=rwc"
        # Without a log nobody is writing, and SQLite need not put its own files beside the store.
        log = self.path.with_name(f"{self.path.name}-wal")
        return "mode=ro" if log.exists() else "mode=ro&immutable=1"

    def _open(self, read_only: bool) -> None:
        execute = self._connection.execute
        if read_only:
            execute("PRAGMA query_only = ON")
        elif not self._header():
            self._create()
        application, version = self._header() or (0, 0)
        if application == _APPLICATION_ID and version < _SCHEMA_VERSION:
            if read_only:
                reason = "its layout is of an earlier version; spacy-mmcot elicit renews it"
                raise MMCoTError(Errors.E300.format(path=self.path, reason=reason))
            version = self._upgrade()
        if application != _APPLICATION_ID:
            raise MMCoTError(Errors.E300.format(path=self.path, reason="another kind of database"))
        if version != _SCHEMA_VERSION:
            reason = f"its layout has version {version}, this program knows {_SCHEMA_VERSION}"
            raise MMCoTError(Errors.E300.format(path=self.path, reason=reason))
        if not read_only:
            # Survives the end of the process at any moment; only a power cut may take the last few.
            execute("PRAGMA synchronous = NORMAL")

    def _header(self) -> tuple[int, int] | None:
        """Application id and layout version; None in a file without tables."""
        execute = self._connection.execute
        if not execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            return None
        ids = (
            execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        return tuple(ids)

    def _create(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            if not self._header():
                for statement in (_SCHEMA + TABLES).split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        # SQLite does not wait by itself where another process switches at the same time.
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _upgrade(self) -> int:
        with self.transaction() as connection:
            if (self._header() or (0, 0))[1] < _SCHEMA_VERSION:
                for statement in (_UPGRADE + ";" + TABLES).split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        return _SCHEMA_VERSION

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self.plain_errors():
            return self._connection.execute(statement, values).fetchall()

    def _write(self, statement: str, values: tuple[Any, ...]) -> bool:
        with self.plain_errors():
            return self._connection.execute(statement, values).rowcount > 0

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

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
        """SQLite's errors in our words."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise MMCoTError(Errors.E301.format(path=self.path, reason=error)) from None
        except sqlite3.DatabaseError as error:
            raise MMCoTError(Errors.E300.format(path=self.path, reason=error)) from None
        except OSError as error:
            raise MMCoTError(Errors.E301.format(path=self.path, reason=error.strerror)) from None


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

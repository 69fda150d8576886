"""The SQLite file behind an answers store, and its tables:

answers:  every answer, good or rejected; of several to one question, the highest seq counts.
attempts: a first answer that could not be used, kept before the repair round is paid for.
ledger:   what was spent, by run, model and dimension.
claims:   questions that a run, or a batch, has in flight, with the money set aside for them.
batches:  batches at the endpoint, written down before they are made there.
inbox:    answers of batches that came and are not settled yet.
examples: the labelled posts that conclusions are asked with; there from the first of these on.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self
from urllib.parse import quote

from ..errors import Errors, MMCoTError
from ..files import check_exists

_TABLES = """
CREATE TABLE answers (
    seq INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    post_id TEXT NOT NULL, task TEXT NOT NULL, dimension TEXT NOT NULL, template TEXT NOT NULL,
    source TEXT NOT NULL, model TEXT NOT NULL,
    raw TEXT NOT NULL,
    value TEXT,
    status TEXT NOT NULL CHECK (status IN ('ok', 'rejected')),
    reason TEXT,
    created TEXT NOT NULL,
    variant INTEGER NOT NULL DEFAULT 0,
    UNIQUE (key, post_id)
);
CREATE INDEX answers_by_post ON answers (task, post_id, dimension);
CREATE TABLE attempts (key TEXT PRIMARY KEY, raw TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE ledger (
    run TEXT NOT NULL, source TEXT NOT NULL, model TEXT NOT NULL, dimension TEXT NOT NULL,
    requests INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cost REAL NOT NULL, unconfirmed REAL NOT NULL,
    PRIMARY KEY (run, source, model, dimension)
) WITHOUT ROWID;
CREATE TABLE claims (
    key TEXT PRIMARY KEY, owner TEXT NOT NULL, cost REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE batches (
    name TEXT PRIMARY KEY, url TEXT NOT NULL, model TEXT NOT NULL, remote TEXT,
    created REAL NOT NULL
);
CREATE TABLE inbox (
    key TEXT PRIMARY KEY, status INTEGER NOT NULL, body TEXT NOT NULL, batch TEXT NOT NULL
)"""

_APPLICATION_ID = 0x4D4D436F  # "MMCo", in the file's header
_VERSION = 4
_BUSY_SECONDS = 30.0
_MOUNTED = "it is mounted without its folder, where its log has to be; mount the folder"


class Database:
    """Opens the file at `path`, or creates it. Several processes may share it; what is written
    outside a transaction is committed at once. A read-only database never changes the file.

    Raises MMCoTError where the file is missing (read-only), is no such store or cannot be used.
    """

    def __init__(self, path: Path | str, read_only: bool = False) -> None:
        self.path = path = Path(path)
        self._read_only = read_only
        self._copy: TemporaryDirectory[str] | None = None
        if read_only:
            check_exists(path)
        with self.translate_errors():
            # A log beside a link would be nobody's.
            self.file = path.resolve()
            if not read_only:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            file, mode = self._choose_file() if read_only else (self.file, "rwc")
            # For the tables beside the answers, inside `transaction` or `translate_errors`.
            address = f"file:{quote(str(file))}?mode={mode}"
            self.connection = sqlite3.connect(
                address, uri=True, timeout=_BUSY_SECONDS, isolation_level=None
            )
            try:
                self._open()
            except BaseException:
                self._close()
                raise

    def _choose_file(self) -> tuple[Path, str]:
        """The file to read and SQLite's mode of opening it."""
        log = self.file.with_name(f"{self.file.name}-wal")
        if os.access(self.file.parent, os.W_OK):
            # Without a log, SQLite makes one and, as a writer alone does, takes it away again.
            return self.file, "ro" if log.exists() else "rw"
        if not log.exists():
            return self.file, "ro&immutable=1"
        # SQLite reads a log only where it can write beside it.
        self._copy = TemporaryDirectory()
        for path in (self.file, log):
            shutil.copy(path, self._copy.name)
        return Path(self._copy.name, self.file.name), "rw"

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What is done in the block is committed as one when it ends, or not at all. A block
        within a block is a part of the outer one."""
        if self.connection.in_transaction:
            yield self.connection
            return
        with self.translate_errors():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
            except BaseException:
                self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")

    def close(self) -> None:
        """Bring all answers into the one file at `path`."""
        with self.translate_errors():
            if not self._read_only:
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._close()

    def _close(self) -> None:
        self.connection.close()
        if self._copy is not None:
            self._copy.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self) -> None:
        if not self._read_only:
            if _is_mounted(self.file):
                raise MMCoTError(Errors.E301.format(path=self.path, reason=_MOUNTED))
            if not self._has_tables():
                self._create()
        (application,) = self.connection.execute("PRAGMA application_id").fetchone()
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        reason = "another kind of database" if application != _APPLICATION_ID else ""
        if not reason and version != _VERSION:
            reason = f"its layout has version {version}, this program knows {_VERSION}"
        if reason:
            raise MMCoTError(Errors.E300.format(path=self.path, reason=reason))
        if self._read_only:
            self.connection.execute("PRAGMA query_only = ON")
        else:
            # Survives the end of the process at any moment; only a power cut may take the last few.
            self.connection.execute("PRAGMA synchronous = NORMAL")

    def _has_tables(self) -> bool:
        return bool(self.connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])

    def _create(self) -> None:
        with self.transaction():
            if not self._has_tables():
                marks = (f"application_id = {_APPLICATION_ID}", f"user_version = {_VERSION}")
                for statement in (*_TABLES.split(";"), *(f"PRAGMA {mark}" for mark in marks)):
                    self.connection.execute(statement)
        # SQLite does not wait by itself where another process switches at the same time.
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self.connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def fetch(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows that a statement gives."""
        with self.translate_errors():
            return self.connection.execute(statement, values).fetchall()

    def write(self, statement: str, *values: object) -> bool:
        """Run a statement; whether it changed a row. Halves of surrogate pairs, for which SQLite
        has no form, become question marks."""
        row = [v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for v in values]
        with self.translate_errors():
            return self.connection.execute(statement, row).rowcount > 0

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """SQLite's errors as MMCoTErrors that name the file."""
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            is_kind = isinstance(error, OSError | sqlite3.OperationalError)
            reason = getattr(error, "strerror", error)
            message = Errors.E301 if is_kind else Errors.E300
            raise MMCoTError(message.format(path=self.path, reason=reason)) from None


def _is_mounted(file: Path) -> bool:
    """Whether the file itself, and not a folder above it, is a mount point, as in a container."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(line.split(" ")[4:5] == [str(file)] for line in mounts.splitlines())

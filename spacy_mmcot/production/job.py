"""A long job over chunks that can be stopped at any moment and goes on where it was.

Every chunk becomes a part file that takes its name only when it is whole, so the parts that are
there are the progress: no second record could say otherwise, after a kill no more is lost than the
chunks in work, and none is written twice. Appending to one output with a committed offset would
serve JSON Lines and CSV, but neither Parquet nor .spacy, whose files cannot grow, nor workers that
finish in another order than they began. The price is that the output lies on disk twice while the
parts are joined; an output folder (see `Layout`) keeps its parts and pays nothing.

Beside the output lies a manifest that says what it is made of, and with what. It is what a second
run goes by: the same job goes on, or is done already; another one is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..errors import Errors, MMCoTError
from ..files import open_file, replace_file


def file_digest(path: Path) -> str:
    """SHA-256. Raises MMCoTError for a missing or unreadable file."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digest(paths: Iterable[Path]) -> str:
    """Of the files' contents and their order; their names do not count."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(bytes.fromhex(file_digest(path)))
    return whole.hexdigest()


class Outcome(NamedTuple):
    """What became of a chunk: how many rows it has, and how many of them were rejected."""

    number: int
    rows: int
    rejected: int


class Layout(NamedTuple):
    """Where a job keeps its files. An output without a suffix is a folder: the parts stay in it as
    they are, which suits what is too large for one file."""

    output: Path
    suffix: str

    @property
    def is_folder(self) -> bool:
        return not self.output.suffix

    @property
    def rejects(self) -> Path:
        return self._beside(".rejected.jsonl")

    @property
    def manifest(self) -> Path:
        return self._beside(".manifest.json")

    @property
    def work(self) -> Path:
        return self._beside(".parts")

    @property
    def parts(self) -> Path:
        return self.output if self.is_folder else self.work

    def part(self, number: int) -> Path:
        return self.parts / f"part-{number:06d}{self.suffix}"

    def rejects_part(self, number: int) -> Path:
        return self.work / f"part-{number:06d}.rejected.jsonl"

    def _beside(self, ending: str) -> Path:
        return self.output.with_name(self.output.name + ending)


class Job:
    """A job's files on disk, for one process at a time (see `opened_job`)."""

    def __init__(self, layout: Layout, identity: Mapping[str, Any]) -> None:
        self.layout = layout
        self.identity = json.loads(json.dumps(identity))

    def begin(self, overwrite: bool) -> Mapping[str, Any] | None:
        """The counts of the same job where it is done already, otherwise None: then it goes on.

        Raises MMCoTError where the output is of another job, or of none, unless `overwrite`.
        """
        layout = self.layout
        if overwrite:
            self.clear()
        elif layout.manifest.exists():
            manifest = self._manifest()
            if not manifest["done"] and not self._parts():
                # It failed before it came to anything, and there is nothing to go on with.
                self.clear()
            else:
                self._compare(manifest["job"])
            if manifest["done"] and layout.output.exists():
                shutil.rmtree(layout.work, ignore_errors=True)
                return manifest["done"]
        elif _holds_something(layout.output):
            raise MMCoTError(Errors.E744.format(path=layout.output, manifest=layout.manifest))
        try:
            layout.parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = Errors.E103.format(path=layout.parts, reason=error.strerror)
            raise MMCoTError(message) from None
        self._note(None)
        return None

    def is_same(self) -> bool:
        """Whether what an earlier run left is of the same job."""
        path = self.layout.manifest
        return path.exists() and self._manifest()["job"] == self.identity

    def finished_parts(self, count: int) -> set[int]:
        names = self._parts()
        return {i for i in range(count) if self.layout.part(i).name in names}

    def rejected(self, count: int) -> int:
        """How many rows the rejected parts hold."""
        return sum(sum(1 for _ in path.open("rb")) for path in self._rejected_parts(count))

    def finish(self, count: int, done: Mapping[str, Any]) -> None:
        """Join what was rejected, note the counts, and take the parts away. The output itself must
        be in place."""
        parts = self._rejected_parts(count)
        if parts:
            with replace_file(self.layout.rejects) as temporary, temporary.open("wb") as file:
                for part in parts:
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, file)
        else:
            self.layout.rejects.unlink(missing_ok=True)
        self._note(done)
        shutil.rmtree(self.layout.work, ignore_errors=True)

    def clear(self) -> None:
        """Take away whatever an earlier job left in the same place, the manifest last: what is
        left after a kill is still known for what it is."""
        layout = self.layout
        shutil.rmtree(layout.work, ignore_errors=True)
        if layout.output.is_dir():
            for part in layout.output.glob("part-*"):
                part.unlink()
        else:
            layout.output.unlink(missing_ok=True)
        layout.rejects.unlink(missing_ok=True)
        layout.manifest.unlink(missing_ok=True)

    def _parts(self) -> set[str]:
        with suppress(FileNotFoundError, NotADirectoryError):
            return {path.name for path in self.layout.parts.glob(f"part-*{self.layout.suffix}")}
        return set()

    def _rejected_parts(self, count: int) -> list[Path]:
        return [path for i in range(count) if (path := self.layout.rejects_part(i)).exists()]

    def _manifest(self) -> Any:
        path = self.layout.manifest
        try:
            manifest = json.loads(path.read_text("utf-8"))
            return {"job": dict(manifest["job"]), "done": manifest["done"]}
        except OSError as error:
            raise MMCoTError(Errors.E102.format(path=path, reason=error.strerror)) from None
        except (ValueError, TypeError, KeyError):
            reason = "not a manifest"
            raise MMCoTError(Errors.E102.format(path=path, reason=reason)) from None

    def _compare(self, before: dict[str, Any]) -> None:
        for name, now in self.identity.items():
            if before.get(name) != now:
                raise MMCoTError(
                    Errors.E745.format(
                        path=self.layout.output,
                        name=name,
                        before=_brief(before.get(name)),
                        now=_brief(now),
                    )
                )

    def _note(self, done: Mapping[str, Any] | None) -> None:
        with replace_file(self.layout.manifest) as temporary:
            text = json.dumps({"job": self.identity, "done": done}, indent=2)
            temporary.write_text(text + "\n", "utf-8")


@contextmanager
def opened_job(layout: Layout, identity: Mapping[str, Any]) -> Iterator[Job]:
    """A job that no other process works on, as far as the file system knows of locks.

    Raises MMCoTError where another process does.
    """
    path = layout.output.with_name(f".{layout.output.name}.lock")
    try:
        layout.output.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("wb")
    except OSError as error:
        raise MMCoTError(Errors.E103.format(path=path, reason=error.strerror)) from None
    with file:
        if not _lock(file, path):
            raise MMCoTError(Errors.E746.format(path=layout.output))
        try:
            yield Job(layout, identity)
        finally:
            path.unlink(missing_ok=True)


def _lock(file: BinaryIO, path: Path) -> bool:
    """Whether this process has the lock now. The kernel takes it back from a process that dies."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    # A file system without locks is no reason not to work.
    except OSError:
        return True
    # The process that had it may have taken the file away after we opened it.
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _holds_something(output: Path) -> bool:
    with suppress(NotADirectoryError, FileNotFoundError):
        return any(output.iterdir())
    return output.exists()


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "..."

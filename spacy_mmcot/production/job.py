"""A long job over chunks that can be stopped at any moment and continues where it was.

The output of a chunk is a part file. It takes its name when it is complete, so the parts on disk
are the record of progress: a kill costs the chunks in work, and no row is written twice. At the end
the parts are joined. Meanwhile the output lies on disk twice; an output folder (see `Layout`) keeps
its parts instead. Appending to one file would not work for Parquet and .spacy, which cannot grow,
nor for several workers, which finish chunks in any order.

A manifest beside the output says what the job consists of. A second run compares itself with it:
the same job continues, or is done already; another job is an error.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from ..errors import Errors, MMCoTError
from ..files import catch_write_errors, open_file, read_bytes, replace_file, write_json


def digest_file(path: Path) -> str:
    """The SHA-256 of a file's content. Raises MMCoTError for a missing or unreadable file."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_files(paths: Iterable[Path]) -> str:
    """The SHA-256 of the files' contents in their order, whatever their names."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(bytes.fromhex(digest_file(path)))
    return digest.hexdigest()


class Outcome(NamedTuple):
    """What became of a chunk: the number of its rows, and of those that were rejected."""

    number: int
    rows: int
    rejected: int


class Layout(NamedTuple):
    """Where a job keeps its files. An output without a suffix is a folder that keeps the parts as
    they are, for results that are too large for one file.

    suffix: of the parts, such as ".jsonl".
    """

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
    """A job's files on disk. `open_job` keeps other processes out."""

    def __init__(self, layout: Layout, identity: Mapping[str, Any]) -> None:
        """identity: what makes the job this one, as JSON."""
        self.layout = layout
        self.identity = json.loads(json.dumps(identity))

    def begin(self, overwrite: bool) -> Mapping[str, Any] | None:
        """Prepare the job's folders. Returns None, or the counts given to `finish` where the same
        job is done already.

        overwrite: remove what an earlier job left.

        Raises MMCoTError where the output exists and is of another job, or of none.
        """
        layout = self.layout
        if overwrite:
            self.clear()
        elif layout.manifest.exists():
            manifest = self._read_manifest()
            if manifest["done"] or self._part_names():
                self._check_identity(manifest["job"])
            else:
                # It failed before its first part.
                self.clear()
            if manifest["done"] and layout.output.exists():
                shutil.rmtree(layout.work, ignore_errors=True)
                return manifest["done"]
        elif _holds_something(layout.output):
            raise MMCoTError(Errors.E744.format(path=layout.output, manifest=layout.manifest))
        with catch_write_errors(layout.parts):
            layout.parts.mkdir(parents=True, exist_ok=True)
        self._write_manifest(None)
        return None

    def is_same(self) -> bool:
        """Whether an earlier run left files of this same job."""
        path = self.layout.manifest
        return path.exists() and self._read_manifest()["job"] == self.identity

    def list_finished(self, count: int) -> set[int]:
        """The numbers of the chunks, of `count`, whose parts are on disk."""
        names = self._part_names()
        return {i for i in range(count) if self.layout.part(i).name in names}

    def count_rejected(self, count: int) -> int:
        """The number of rejected rows in the parts of `count` chunks."""
        return sum(sum(1 for _ in path.open("rb")) for path in self._rejects_parts(count))

    def finish(self, count: int, done: Mapping[str, Any]) -> None:
        """Join the rejected rows of `count` chunks, write `done` into the manifest and remove the
        parts. The output itself must be complete."""
        parts = self._rejects_parts(count)
        if parts:
            with replace_file(self.layout.rejects) as temporary, temporary.open("wb") as file:
                for part in parts:
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, file)
        else:
            self.layout.rejects.unlink(missing_ok=True)
        self._write_manifest(done)
        shutil.rmtree(self.layout.work, ignore_errors=True)

    def clear(self) -> None:
        """Remove whatever an earlier job left here. The manifest goes last: what a kill leaves is
        still known as a job's."""
        layout = self.layout
        shutil.rmtree(layout.work, ignore_errors=True)
        if layout.output.is_dir():
            for part in layout.output.glob("part-*"):
                part.unlink()
        else:
            layout.output.unlink(missing_ok=True)
        layout.rejects.unlink(missing_ok=True)
        layout.manifest.unlink(missing_ok=True)

    def _part_names(self) -> set[str]:
        with suppress(FileNotFoundError, NotADirectoryError):
            return {path.name for path in self.layout.parts.glob(f"part-*{self.layout.suffix}")}
        return set()

    def _rejects_parts(self, count: int) -> list[Path]:
        return [path for i in range(count) if (path := self.layout.rejects_part(i)).exists()]

    def _read_manifest(self) -> dict[str, Any]:
        path = self.layout.manifest
        try:
            manifest = json.loads(read_bytes(path))
            return {"job": dict(manifest["job"]), "done": manifest["done"]}
        except (ValueError, TypeError, KeyError):
            reason = "not a manifest"
            raise MMCoTError(Errors.E102.format(path=path, reason=reason)) from None

    def _write_manifest(self, done: Mapping[str, Any] | None) -> None:
        write_json(self.layout.manifest, {"job": self.identity, "done": done})

    def _check_identity(self, before: dict[str, Any]) -> None:
        for name, now in self.identity.items():
            if before.get(name) != now:
                values = {"before": _shorten(before.get(name)), "now": _shorten(now)}
                path = self.layout.output
                raise MMCoTError(Errors.E745.format(path=path, name=name, **values))


@contextmanager
def open_job(layout: Layout, identity: Mapping[str, Any]) -> Iterator[Job]:
    """The job, under a lock that the system releases when this process dies.

    Raises MMCoTError where another process works on the same output.
    """
    path = layout.output.with_name(f".{layout.output.name}.lock")
    lock = FileLock(path)
    with catch_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:  # an OSError itself
            raise MMCoTError(Errors.E746.format(path=layout.output)) from None
    try:
        yield Job(layout, identity)
    finally:
        # Removed while it is held: whoever opened it in between notices, and tries again.
        path.unlink(missing_ok=True)
        lock.release()


def _holds_something(output: Path) -> bool:
    with suppress(NotADirectoryError, FileNotFoundError):
        return any(output.iterdir())
    return output.exists()


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "..."

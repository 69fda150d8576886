"""A long job of a trained pipeline over chunks, which can be stopped at any moment and continues
where it was.

The output of a chunk is a part file. It takes its name when it is complete, so the parts on disk
are the record of progress. At the end they are joined; an output folder keeps them instead. A
manifest beside the output says what the job consists of: the same job continues, or is done
already; another one is an error.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from .. import files
from ..errors import Errors, MMCoTError
from ..messages import first_line
from . import tables
from .tables import Chunk, ColumnNames, TableFormat

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.vocab import Vocab


def _digest(named: Iterable[tuple[str, Path]]) -> str:
    """The SHA-256 of the names and contents of (name, file). Raises MMCoTError for a file that
    cannot be read."""
    digest = hashlib.sha256()
    for name, path in named:
        digest.update(os.fsencode(name) + b"\0")
        with files.open_file(path) as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def digest_files(paths: Sequence[Path]) -> str:
    """The SHA-256 of the files' contents in their order, and of what their names say of them: the
    format, and columns (see `read_partitions`)."""
    partitions = tables.read_partitions(paths)
    return _digest(
        (f"{path.suffix.lower()} {tables.to_json(partition)}", path)
        for path, partition in zip(paths, partitions, strict=True)
    )


class InputFiles:
    """The files that a job reads, and whether they are still what they were at its start."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._before = {path: _read_status(path) for path in paths}
        self._paths, self.digest = paths, digest_files(paths)

    def check_unchanged(self) -> None:
        """Raises MMCoTError for a file whose content was changed in the meantime."""
        changed = [path for path, before in self._before.items() if _read_status(path) != before]
        if changed and digest_files(self._paths) != self.digest:
            raise MMCoTError(Errors.E752.format(path=changed[0]))


def _read_status(path: Path) -> tuple[int, int, int]:
    with files.catch_read_errors(path):
        status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def load_pipeline(source: str | Path, vocab: Vocab | None = None) -> Language:
    """The trained pipeline in a folder or of an installed package, on another one's vocab if given.
    Raises MMCoTError where there is none that can be read."""
    import spacy

    try:
        return spacy.load(source, vocab=True if vocab is None else vocab)
    except MMCoTError:
        raise
    # A damaged pipeline makes the libraries raise all kinds of exceptions.
    except Exception as error:
        raise MMCoTError(Errors.E700.format(source=source, reason=first_line(error))) from error


def use_gpu(number: int) -> None:
    """Have pipelines that are loaded from now on run on this GPU; -1 changes nothing. Raises
    MMCoTError where it cannot be used."""
    import spacy

    if number < 0:
        return
    try:
        spacy.require_gpu(number)
    except Exception as error:  # of torch, cupy or CUDA
        raise MMCoTError(Errors.E702.format(number=number, reason=first_line(error))) from None


def digest_pipeline(source: str) -> str:
    """The SHA-256 of the names and contents of all files of a pipeline's folder or package, apart
    from what Python compiles. Raises MMCoTError where there is neither."""
    from spacy.util import get_package_path, is_package

    folder = Path(source)
    if not folder.is_dir():
        if not is_package(source):
            reason = "neither a folder nor an installed package"
            raise MMCoTError(Errors.E700.format(source=source, reason=reason))
        folder = get_package_path(source)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = [path for path in paths if "__pycache__" not in path.parts]
    return _digest((path.relative_to(folder).as_posix(), path) for path in kept)


class Layout:
    """Where a job keeps its files. An output without a suffix is a folder that keeps the parts, for
    results that are too large for one file. format, names: of the parts, and of their columns."""

    def __init__(
        self, output: Path, format: TableFormat, names: ColumnNames = tables.DEFAULT_COLUMNS
    ) -> None:
        self.output, self.format, self.names = output, format, names
        self.is_folder, self.work = not output.suffix, self.beside(".parts")
        self.parts = output if self.is_folder else self.work

    def beside(self, ending: str) -> Path:
        return self.output.with_name(self.output.name + ending)

    def part(self, number: int) -> Path:
        return self.parts / f"part-{number:06d}.{self.format}"

    def rejects_part(self, number: int) -> Path:
        return self.work / f"part-{number:06d}.rejected.jsonl"


# The names of a job's parts, finished and not; no other file is ever removed.
_OWN_NAMES = re.compile(
    rf"part-[0-9]{{6,}}\.(?:{'|'.join(tables.FORMATS)}|rejected\.jsonl)"
    rf"|\.part-[0-9]{{6,}}\.[a-z.]+\.[0-9]+\.tmp|joined\.[a-z]+|\.joined\.[a-z]+\.[0-9]+\.tmp"
)


class Job:
    """A job's files on disk. `open_job` keeps other processes out. identity: what makes the job
    this one, as JSON."""

    def __init__(self, layout: Layout, identity: Mapping[str, Any]) -> None:
        self.layout = layout
        self.identity = json.loads(json.dumps(identity))
        self.manifest = layout.beside(".manifest.json")
        self.rejects = layout.beside(".rejected.jsonl")

    def begin(self, overwrite: bool) -> dict[str, int] | None:
        """Prepare the job's folders; `overwrite` removes what an earlier job left. Returns None, or
        what `finish` returned where the same job is done already.

        Raises MMCoTError where the output, or the file of rejected rows, exists and is of another
        job, or of none.
        """
        layout = self.layout
        own = [self.rejects] if layout.is_folder else [layout.output, self.rejects]
        taken = next(filter(os.path.lexists, own), None)
        if overwrite:
            self.clear()
        elif self.manifest.exists():
            identity, done = self._read_manifest()
            if done or self._list_parts():
                self._check_identity(identity)
            elif taken:
                # The job failed before its first part, so this is not its file.
                raise MMCoTError(Errors.E744.format(path=taken))
            else:
                self.clear()
            if done and layout.output.exists():
                if self._measure_output() != done["bytes"]:
                    raise MMCoTError(Errors.E753.format(path=layout.output))
                self._remove_parts(layout.work)
                return {name: done[name] for name in ("rows", "rejected")}
        elif taken or (layout.output.is_dir() and any(layout.output.iterdir())):
            raise MMCoTError(Errors.E744.format(path=taken or layout.output))
        with files.catch_write_errors(layout.parts):
            files.make_folder(layout.parts)
            files.make_folder(layout.work)
        self._write_manifest(None)
        return None

    def is_same(self) -> bool:
        """Whether an earlier run left files of this same job."""
        return self.manifest.exists() and self._read_manifest()[0] == self.identity

    def is_finished(self, chunk: Chunk) -> bool:
        """Whether the chunk's part is on disk and holds its rows, undamaged."""
        part, rejects = self.layout.part(chunk.number), self.layout.rejects_part(chunk.number)
        if not part.is_file():
            return False
        try:
            rows = tables.count_rows(part, self.layout.format, self.layout.names)
        except MMCoTError:
            return False
        rejected = rejects.read_bytes().count(b"\n") if rejects.exists() else 0
        return chunk.rows in (rows, rows + rejected)

    def write_output(self, write: Callable[[Path], None]) -> None:
        """Write the output, joined from the parts. Raises MMCoTError where a file of someone else
        has taken its place since the job began."""
        output, joined = self.layout.output, self.layout.work / f"joined.{self.layout.format}"
        with files.replace_file(joined) as temporary:
            write(temporary)
        # A run that was killed right here has left the same file.
        if output.exists() and not filecmp.cmp(joined, output, shallow=False):
            raise MMCoTError(Errors.E744.format(path=output))
        files.move_file(joined, output)

    def finish(self, chunks: Sequence[Chunk]) -> dict[str, int]:
        """Join the rejected rows of the chunks and remove the parts. The output itself must be
        complete. Returns the numbers of rows and of rejected rows, which the manifest keeps."""
        rejected = 0
        with files.replace_file(self.rejects) as temporary, temporary.open("wb") as file:
            for chunk in chunks:
                if (path := self.layout.rejects_part(chunk.number)).exists():
                    content = path.read_bytes()
                    file.write(content)
                    rejected += content.count(b"\n")
        if not rejected:
            self.rejects.unlink()
        done = {"rows": sum(chunk.rows for chunk in chunks), "rejected": rejected}
        self._write_manifest({**done, "bytes": self._measure_output()})
        self._remove_parts(self.layout.work)
        return done

    def clear(self) -> None:
        """Remove whatever an earlier job left here. The manifest goes last: what a kill leaves is
        still known as a job's."""
        output = self.layout.output
        self._remove_parts(self.layout.work)
        if output.is_dir():
            self._remove_parts(output)
        else:
            output.unlink(missing_ok=True)
        self.rejects.unlink(missing_ok=True)
        self.manifest.unlink(missing_ok=True)

    def _remove_parts(self, folder: Path) -> None:
        """Remove a job's files from a folder, and the folder unless it is the output's or holds
        files of someone else."""
        if folder.is_symlink() or not folder.is_dir():
            return
        for path in folder.iterdir():
            if _OWN_NAMES.fullmatch(path.name) and (path.is_symlink() or not path.is_dir()):
                path.unlink()
        if folder != self.layout.output:
            with suppress(OSError):
                folder.rmdir()

    def _list_parts(self) -> list[Path]:
        return list(self.layout.parts.glob(f"part-*[0-9].{self.layout.format}"))

    def _measure_output(self) -> int:
        """The bytes of the output, of a folder those of its parts."""
        output = self.layout.output
        paths = self._list_parts() if output.is_dir() else [output]
        return sum(path.stat().st_size for path in paths if path.exists())

    def _read_manifest(self) -> tuple[dict[str, Any], dict[str, int] | None]:
        try:
            manifest = json.loads(files.read_bytes(self.manifest))
            return dict(manifest["job"]), manifest["done"]
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError):
            message = Errors.E102.format(path=self.manifest, reason="not a manifest")
            raise MMCoTError(message) from None

    def _write_manifest(self, done: Mapping[str, Any] | None) -> None:
        files.write_json(self.manifest, {"job": self.identity, "done": done})

    def _check_identity(self, before: dict[str, Any]) -> None:
        for name, now in self.identity.items():
            if before.get(name) != now:
                values = {"before": _shorten(before.get(name)), "now": _shorten(now)}
                message = Errors.E745.format(path=self.layout.output, name=name, **values)
                raise MMCoTError(message)


@contextmanager
def open_job(layout: Layout, identity: Mapping[str, Any]) -> Iterator[Job]:
    """The job, under a lock that the system releases when this process dies. Raises MMCoTError
    where another process works on the same output."""
    path = layout.output.with_name(f".{layout.output.name}.lock")
    if path.is_symlink() or (path.exists() and path.stat().st_size):
        raise MMCoTError(Errors.E744.format(path=path))
    lock = FileLock(path)
    with files.catch_write_errors(path):
        files.make_folder(path.parent)
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


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "..."

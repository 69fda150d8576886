"""A long job of a trained pipeline over chunks, which can be stopped at any moment and continues
where it was.

The output of a chunk is a part file. It takes its name when it is complete, so the parts on disk
are the record of progress: a kill costs the chunks in work, and no row is written twice. At the end
the parts are joined; an output folder keeps them instead.

A manifest beside the output says what the job consists of. A second run compares itself with it:
the same job continues, or is done already; another job is an error.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock, Timeout

from ..errors import Errors, MMCoTError, first_line
from ..files import catch_write_errors, open_file, read_bytes, replace_file, write_json
from .tables import TableFormat

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.vocab import Vocab


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


def load_pipeline(source: str | Path, vocab: Vocab | None = None) -> Language:
    """The trained pipeline in a folder or of an installed package.

    vocab: that of another pipeline, whose Docs this one can then read; None for its own.

    Raises MMCoTError where there is no pipeline, or it cannot be read.
    """
    import spacy
    from safetensors import SafetensorError

    try:
        return spacy.load(source, vocab=True if vocab is None else vocab)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise MMCoTError(Errors.E700.format(source=source, reason=first_line(error))) from error


def use_gpu(number: int) -> None:
    """Have pipelines that are loaded from now on run on this GPU; -1 changes nothing. Raises
    MMCoTError where there is none, or spaCy lacks what it needs for it."""
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

    if Path(source).is_dir():
        folder = Path(source)
    elif is_package(source):
        folder = get_package_path(source)
    else:
        reason = "neither a folder nor an installed package"
        raise MMCoTError(Errors.E700.format(source=source, reason=reason))
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(bytes.fromhex(digest_file(path)))
    return digest.hexdigest()


class Layout(NamedTuple):
    """Where a job keeps its files. An output without a suffix is a folder that keeps the parts as
    they are, for results that are too large for one file.

    format: of the parts, such as "jsonl".
    """

    output: Path
    format: TableFormat

    @property
    def is_folder(self) -> bool:
        return not self.output.suffix

    def beside(self, ending: str) -> Path:
        return self.output.with_name(self.output.name + ending)

    @property
    def work(self) -> Path:
        return self.beside(".parts")

    @property
    def parts(self) -> Path:
        return self.output if self.is_folder else self.work

    def part(self, number: int) -> Path:
        return self.parts / f"part-{number:06d}.{self.format}"

    def rejects_part(self, number: int) -> Path:
        return self.work / f"part-{number:06d}.rejected.jsonl"


class Job:
    """A job's files on disk. `open_job` keeps other processes out."""

    def __init__(self, layout: Layout, identity: Mapping[str, Any]) -> None:
        """identity: what makes the job this one, as JSON."""
        self.layout = layout
        self.identity = json.loads(json.dumps(identity))
        self.manifest = layout.beside(".manifest.json")
        self.rejects = layout.beside(".rejected.jsonl")

    def begin(self, overwrite: bool) -> dict[str, int] | None:
        """Prepare the job's folders. Returns None, or what `finish` returned where the same job is
        done already.

        overwrite: remove what an earlier job left.

        Raises MMCoTError where the output exists and is of another job, or of none.
        """
        layout = self.layout
        if overwrite:
            self.clear()
        elif self.manifest.exists():
            identity, done = self._read_manifest()
            if done or self._part_names():
                self._check_identity(identity)
            else:
                # It failed before its first part.
                self.clear()
            if done and layout.output.exists():
                shutil.rmtree(layout.work, ignore_errors=True)
                return done
        elif any(layout.output.iterdir()) if layout.output.is_dir() else layout.output.exists():
            raise MMCoTError(Errors.E744.format(path=layout.output, manifest=self.manifest))
        with catch_write_errors(layout.parts):
            layout.parts.mkdir(parents=True, exist_ok=True)
        self._write_manifest(None)
        return None

    def is_same(self) -> bool:
        """Whether an earlier run left files of this same job."""
        return self.manifest.exists() and self._read_manifest()[0] == self.identity

    def list_finished(self, count: int) -> set[int]:
        """The numbers of the chunks, of `count`, whose parts are on disk."""
        names = self._part_names()
        return {i for i in range(count) if self.layout.part(i).name in names}

    def finish(self, count: int, rows: int) -> dict[str, int]:
        """Join the rejected rows of `count` chunks and remove the parts. The output itself must be
        complete. Returns the numbers of rows and of rejected rows, which the manifest keeps."""
        rejected = 0
        with replace_file(self.rejects) as temporary, temporary.open("wb") as file:
            for path in filter(Path.exists, map(self.layout.rejects_part, range(count))):
                with path.open("rb") as part:
                    for line in part:
                        file.write(line)
                        rejected += 1
        if not rejected:
            self.rejects.unlink()
        done = {"rows": rows, "rejected": rejected}
        self._write_manifest(done)
        shutil.rmtree(self.layout.work, ignore_errors=True)
        return done

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
        self.rejects.unlink(missing_ok=True)
        self.manifest.unlink(missing_ok=True)

    def _part_names(self) -> set[str]:
        return {path.name for path in self.layout.parts.glob(f"part-*[0-9].{self.layout.format}")}

    def _read_manifest(self) -> tuple[dict[str, Any], dict[str, int] | None]:
        try:
            manifest = json.loads(read_bytes(self.manifest))
            return dict(manifest["job"]), manifest["done"]
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError):
            message = Errors.E102.format(path=self.manifest, reason="not a manifest")
            raise MMCoTError(message) from None

    def _write_manifest(self, done: Mapping[str, Any] | None) -> None:
        write_json(self.manifest, {"job": self.identity, "done": done})

    def _check_identity(self, before: dict[str, Any]) -> None:
        for name, now in self.identity.items():
            if before.get(name) != now:
                values = {"before": _shorten(before.get(name)), "now": _shorten(now)}
                message = Errors.E745.format(path=self.layout.output, name=name, **values)
                raise MMCoTError(message)


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


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "..."

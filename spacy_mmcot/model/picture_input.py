"""Arrays kept by name: in memory, and on disk for the runs to come.

The pictures of Docs, as pixels ready for a vision model, each distinct one prepared once.
"""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import PIL.Image
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..docs import get_image
from ..errors import Errors, MMCoTError, Warnings
from ..files import replace_file
from ..pictures.decode import decode_picture
from ..pictures.read import BadPicture, PicturePolicy, digest, read_picture
from ..types import ID_KEY

Array = NDArray[Any]


class MemoryCache:
    """The last used arrays, at most `megabytes` of them. Threads may share it."""

    def __init__(self, megabytes: float):
        self._limit = int(megabytes * 1e6)
        self._arrays: OrderedDict[str, Array] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[MemoryCache], tuple[float]]:
        # A pickled cache starts empty: what it holds can be had again, a lock cannot be sent.
        return MemoryCache, (self._limit / 1e6,)

    def get(self, name: str) -> Array | None:
        with self._lock:
            if name in self._arrays:
                self._arrays.move_to_end(name)
            return self._arrays.get(name)

    def put(self, name: str, array: Array) -> None:
        with self._lock:
            if name in self._arrays:
                self._bytes -= self._arrays.pop(name).nbytes
            self._arrays[name] = array
            self._bytes += array.nbytes
            while self._bytes > self._limit:
                self._bytes -= self._arrays.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        with self._lock:
            self._arrays.clear()
            self._bytes = 0


class DiskCache:
    """Arrays as files of a folder, at most `megabytes` of them; what was not used for longest goes
    first. Processes may share the folder. A cache that fails is slow, never wrong: whatever is
    damaged or cannot be written counts as not there."""

    def __init__(self, folder: Path, megabytes: float):
        self._folder = folder
        self._limit = int(megabytes * 1e6)
        self._bytes: int | None = None  # as counted when last looked, plus what was written since

    def get(self, name: str) -> Array | None:
        path = self._folder / f"{name}.npy"
        try:
            array = numpy.load(path, allow_pickle=False)
            os.utime(path)
        except (OSError, ValueError, EOFError):
            return None
        return array

    def put(self, name: str, array: Array) -> None:
        if array.nbytes > self._limit:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{name}.npy"
            with replace_file(path, durable=False) as temporary, open(temporary, "wb") as file:
                numpy.save(file, array, allow_pickle=False)
            if self._bytes is None:
                self._bytes = sum(size for _, size, _ in self._files())
            else:
                self._bytes += path.stat().st_size
            if self._bytes > self._limit:
                self._evict()
        except (OSError, MMCoTError):
            return

    def _files(self) -> list[tuple[float, int, Path]]:
        files = []
        for path in self._folder.glob("*.npy"):
            try:
                status = path.stat()
            except OSError:
                continue
            files.append((status.st_mtime, status.st_size, path))
        return files

    def _evict(self) -> None:
        files = sorted(self._files())
        self._bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            # Down to nine tenths, so that a full cache is not swept at every write.
            if self._bytes <= 0.9 * self._limit:
                break
            path.unlink(missing_ok=True)
            self._bytes -= size


class Pictured(NamedTuple):
    """The distinct pictures of some Docs."""

    digests: list[str]
    values: list[str | bytes]  # of the first Doc that has it: a file's path, or the content
    rows: list[int]  # a Doc's index into these, -1 without a picture


def find_pictures(docs: Sequence[Doc], policy: PicturePolicy) -> Pictured:
    """Which pictures the Docs name, told apart by their content. A Doc whose picture cannot be
    read counts as one without, with a warning; or it raises, where the policy says so."""
    found = Pictured([], [], [])
    index: dict[str, int] = {}
    for doc in docs:
        value = get_image(doc)
        row = -1
        if value is not None:
            try:
                name, value = _named(value, policy)
                row = index.setdefault(name, len(index))
                if row == len(found.digests):
                    found.digests.append(name)
                    found.values.append(value)
            except BadPicture as problem:
                refuse(doc, problem, policy)
        found.rows.append(row)
    return found


def pixels(value: str | bytes, policy: PicturePolicy, size: int) -> NDArray[numpy.uint8]:
    """The picture as bytes of shape (3, size, size), its sides squeezed to a square so that
    nothing is cut off. Raises BadPicture."""
    image = decode_picture(read_picture(value, policy), policy, size)
    square = image.resize((size, size), PIL.Image.Resampling.BILINEAR, reducing_gap=2.0)
    return numpy.ascontiguousarray(numpy.asarray(square, dtype="uint8").transpose(2, 0, 1))


def refuse(doc: Doc, problem: BadPicture, policy: PicturePolicy) -> None:
    """Say that a Doc is read without its picture, and why; raise where the policy asks for it."""
    name = doc.user_data.get(ID_KEY) or repr(doc.text[:40])
    if policy.on_bad_image == "raise":
        raise MMCoTError(Errors.E406.format(doc=name, reason=problem))
    warnings.warn(Warnings.W400.format(doc=name, reason=problem), stacklevel=2)


def _named(value: str | bytes, policy: PicturePolicy) -> tuple[str, str | bytes]:
    """The picture's digest, and what to read it from: what is no file's path is read here, once,
    since an address may say something else the next time."""
    if isinstance(value, str) and "://" not in value:
        try:
            status = Path(value).stat()
        except (OSError, ValueError):
            status = None
        if status is not None:
            identity = (status.st_mtime_ns, status.st_size, status.st_ino)
            return _file_digest(value, policy, *identity), value
    data = read_picture(value, policy)
    return digest(data), data


@functools.lru_cache(maxsize=65536)
def _file_digest(value: str, policy: PicturePolicy, changed: int, size: int, inode: int) -> str:
    """Reads a file once while it stays as it is: epochs ask again and again."""
    return digest(read_picture(value, policy))

"""The pictures of a batch of Docs: found and identified by content, prepared as pixels, cached, and
hidden or swapped in training.
"""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import PIL.Image
import torch
from cachetools import LRUCache
from numpy.typing import NDArray
from spacy.tokens import Doc
from thinc.api import Model
from torch import Tensor

from ..errors import Errors, MMCoTError, Warnings
from ..files import replace_file
from ..pictures.decode import decode_picture
from ..pictures.read import (
    BadPicture,
    PicturePolicy,
    get_image,
    hash_picture,
    is_address,
    read_picture,
)
from ..types import ID_KEY

Array = NDArray[Any]


@dataclass(frozen=True)
class PictureSettings:
    """How the encoder uses pictures. prompts: visual prompt vectors before the pieces; dropout:
    how often training hides a Doc's picture; swap: how often it shows a Doc that keeps its picture
    another one; matching: weight of learning which text and picture belong together.

    Raises MMCoTError for a share outside of 0 to 1 and for a negative weight.
    """

    prompts: int = 4
    dropout: float = 0.5
    swap: float = 0.15
    matching: float = 0.2

    def __post_init__(self) -> None:
        for name, value, most, allowed in (
            ("picture_dropout", self.dropout, 1.0, "a share from 0 to 1"),
            ("picture_swap", self.swap, 1.0, "a share from 0 to 1"),
            ("picture_matching", self.matching, float("inf"), "a weight of at least 0"),
        ):
            if not 0.0 <= value <= most:
                raise MMCoTError(Errors.E409.format(name=name, received=value, allowed=allowed))


@dataclass(frozen=True)
class CacheSettings:
    """Where prepared pictures are cached, and how much of them.

    folder: folder on disk; None for spacy-mmcot/pictures in the user's cache folder.
    disk_mb: maximum size on disk, in megabytes; 0 for none.
    memory_mb: maximum size in memory, in megabytes.
    """

    folder: str | None
    disk_mb: float
    memory_mb: float


class PatchFeatures(NamedTuple):
    """The features of the pictures of some Docs, each distinct picture once."""

    patches: Tensor  # (pictures, patches, width)
    rows: list[int]  # each Doc's index into the pictures, -1 without one


VisionModel = Model[Sequence[Doc], PatchFeatures]


class DocPictures(NamedTuple):
    """The pictures that a batch of Docs is read with."""

    patches: Tensor  # (pictures, patches, patch width), each distinct picture once
    own: list[int]  # each Doc's index into the pictures, -1 without one
    shown: list[int]  # the same after swapping
    backprop: Callable[[Tensor], Any]  # takes the gradient of the patches


def see_pictures(
    vision: VisionModel, docs: Sequence[Doc], is_train: bool, settings: PictureSettings
) -> DocPictures | None:
    """The patch features of the Docs' pictures; None where no Doc has one, or training hides
    all."""
    indexes = [i for i, doc in enumerate(docs) if get_image(doc) is not None]
    if is_train and indexes:
        kept = (torch.rand(len(indexes)) >= settings.dropout).tolist()
        indexes = [i for i, keep in zip(indexes, kept, strict=True) if keep]
    if not indexes:
        return None
    features, backprop = vision([docs[i] for i in indexes], is_train)
    n_pictures = len(features.patches)
    if not n_pictures:
        return None
    own = [-1] * len(docs)
    for i, row in zip(indexes, features.rows, strict=True):
        own[i] = row
    shown = own
    if is_train and n_pictures > 1:
        swapped = (torch.rand(len(docs)) < settings.swap).tolist()
        others = torch.randint(1, n_pictures, (len(docs),)).tolist()
        shown = [
            (row + other) % n_pictures if swap and row >= 0 else row
            for row, swap, other in zip(own, swapped, others, strict=True)
        ]
    return DocPictures(features.patches.requires_grad_(is_train), own, shown, backprop)


class ArrayCache:
    """Arrays by name, in memory and, where a call says so, on disk. Threads may share it; a pickled
    copy starts with an empty memory."""

    def __init__(self, settings: CacheSettings):
        self._settings = settings
        self._memory: LRUCache[str, Array] = LRUCache(
            settings.memory_mb * 1e6, getsizeof=attrgetter("nbytes")
        )
        self._lock = threading.Lock()
        self._disk = DiskCache(_get_folder(settings.folder), settings.disk_mb)

    def __reduce__(self) -> tuple[type[ArrayCache], tuple[CacheSettings]]:
        return ArrayCache, (self._settings,)

    def get(self, name: str, *, disk: bool = False) -> Array | None:
        with self._lock:
            array = self._memory.get(name)
        if array is None and disk:
            array = self._disk.get(name)
            if array is not None:
                self.put(name, array)
        return array

    def put(self, name: str, array: Array, *, disk: bool = False) -> None:
        # cachetools raises ValueError for one that is larger than the cache.
        with self._lock, suppress(ValueError):
            self._memory[name] = array
        if disk:
            self._disk.put(name, array)


def _get_folder(configured: str | None) -> Path:
    if configured:
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "spacy-mmcot" / "pictures"


class DiskCache:
    """Arrays as files of a folder, at most `megabytes` of them; the least recently used go first.
    Processes may share the folder. A damaged file counts as missing, and an array that cannot be
    written is not kept.

    By hand, since diskcache unpickles what it finds in the folder (CVE-2025-69872).
    """

    def __init__(self, folder: Path, megabytes: float):
        self._folder = folder
        self._limit = int(megabytes * 1e6)
        self._room = 0  # bytes until the folder is looked through again

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
        with suppress(OSError, MMCoTError):
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{name}.npy"
            with replace_file(path, durable=False) as temporary, open(temporary, "wb") as file:
                numpy.save(file, array, allow_pickle=False)
            self._room -= array.nbytes
            if self._room < 0:
                self._evict()

    def _evict(self) -> None:
        """Keep to the limit. Deletes down to nine tenths, so that a full cache is not looked
        through at every write."""
        files = []
        for path in self._folder.glob("*.npy"):
            with suppress(OSError):  # another process deleted it
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        if total > self._limit:
            for _, size, path in sorted(files):
                if total <= 0.9 * self._limit:
                    break
                path.unlink(missing_ok=True)
                total -= size
        self._room = self._limit - total


class FoundPictures(NamedTuple):
    """The distinct pictures of some Docs."""

    digests: list[str]
    values: list[str | bytes]  # of the first Doc that has it: a file's path, or the content
    rows: list[int]  # each Doc's index into these, -1 without a picture


def find_pictures(docs: Sequence[Doc], policy: PicturePolicy) -> FoundPictures:
    """The Docs' distinct pictures, identified by their content. A Doc whose picture cannot be
    read counts as one without, with a warning, or raises MMCoTError where the policy says so."""
    found = FoundPictures([], [], [])
    index: dict[str, int] = {}
    for doc in docs:
        value = get_image(doc)
        row = -1
        if value is not None:
            try:
                name, value = _identify(value, policy)
                row = index.setdefault(name, len(index))
                if row == len(found.digests):
                    found.digests.append(name)
                    found.values.append(value)
            except BadPicture as problem:
                report_bad_picture(doc, problem, policy)
        found.rows.append(row)
    return found


def read_pixels(value: str | bytes, policy: PicturePolicy, size: int) -> NDArray[numpy.uint8]:
    """The picture as bytes of shape (3, size, size), resized to a square so that nothing is cut
    off. Raises BadPicture."""
    image = decode_picture(read_picture(value, policy), policy, size)
    square = image.resize((size, size), PIL.Image.Resampling.BILINEAR, reducing_gap=2.0)
    return numpy.ascontiguousarray(numpy.asarray(square, dtype="uint8").transpose(2, 0, 1))


def report_bad_picture(doc: Doc, problem: BadPicture, policy: PicturePolicy) -> None:
    """Warn that a Doc is read without its picture, or raise MMCoTError where the policy says so."""
    name = doc.user_data.get(ID_KEY) or repr(doc.text[:40])
    if policy.on_bad_image == "raise":
        raise MMCoTError(Errors.E406.format(doc=name, reason=problem))
    warnings.warn(Warnings.W400.format(doc=name, reason=problem), stacklevel=2)


def _identify(value: str | bytes, policy: PicturePolicy) -> tuple[str, str | bytes]:
    """The picture's digest, and the path or content to read it from. Raises BadPicture."""
    if isinstance(value, str) and not is_address(value):
        try:
            status = Path(value).stat()
        except (OSError, ValueError):
            status = None
        if status is not None:
            identity = (status.st_mtime_ns, status.st_size, status.st_ino)
            return _file_digest(value, policy, *identity), value
    data = read_picture(value, policy)
    return hash_picture(data), data


@functools.lru_cache(maxsize=65536)
def _file_digest(value: str, policy: PicturePolicy, changed: int, size: int, inode: int) -> str:
    """Reads a file once while it stays as it is: epochs ask again and again."""
    return hash_picture(read_picture(value, policy))

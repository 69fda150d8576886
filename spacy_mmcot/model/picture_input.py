"""The pictures of a batch of Docs: found and identified by content, prepared as pixels, cached, and
hidden or swapped in training.
"""

from __future__ import annotations

import functools
import itertools
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
from ..pictures.decode import decode_picture
from ..pictures.read import BadPicture, PicturePolicy, get_image, hash_picture, read_picture
from ..types import ID_KEY

Array = NDArray[Any]


@dataclass(frozen=True)
class PictureSettings:
    """How the encoder uses pictures. dropout: how often training hides a Doc's picture; swap: how
    often it shows a Doc that keeps its picture another one; matching: weight of learning which text
    and picture belong together.

    Raises MMCoTError for a share outside of 0 to 1 and for a negative weight.
    """

    dropout: float = 0.5
    swap: float = 0.15
    matching: float = 0.2

    def __post_init__(self) -> None:
        for name, most in (("dropout", 1.0), ("swap", 1.0), ("matching", float("inf"))):
            value = getattr(self, name)
            if not 0.0 <= value <= most:
                setting, allowed = f"picture_{name}", f"0 to {most:g}"
                raise MMCoTError(Errors.E409.format(name=setting, received=value, allowed=allowed))


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
    """Features of the Docs' pictures; None where no Doc has one, or training hides all."""
    indexes = [i for i, doc in enumerate(docs) if len(doc) and get_image(doc) is not None]
    if is_train and indexes:
        kept = (torch.rand(len(indexes)) >= settings.dropout).tolist()
        indexes = list(itertools.compress(indexes, kept))
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


class PictureCache:
    """What a vision model makes of pictures, by name: at most `megabytes`, the least recently used
    go first. Threads may share it; a pickled copy starts empty."""

    def __init__(self, megabytes: float):
        self._megabytes = megabytes
        self._arrays: LRUCache[str, Array] = LRUCache(
            megabytes * 1e6, getsizeof=attrgetter("nbytes")
        )
        self._maker: object = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[PictureCache], tuple[float]]:
        return PictureCache, (self._megabytes,)

    def get(self, name: str, maker: object) -> Array | None:
        """maker: the module that makes the arrays now. Another one's are forgotten."""
        with self._lock:
            if maker is not self._maker:
                self._arrays.clear()
                self._maker = maker
            return self._arrays.get(name)

    def put(self, name: str, array: Array) -> None:
        # cachetools raises ValueError for one that is larger than the cache.
        with self._lock, suppress(ValueError):
            self._arrays[name] = array


def find_pictures(
    docs: Sequence[Doc], policy: PicturePolicy
) -> tuple[dict[str, str | bytes], list[str | None]]:
    """The Docs' distinct pictures by digest, each the path of a file or its content, and each Doc's
    digest, None without a picture. A Doc whose picture cannot be read counts as one without, with a
    warning, or raises MMCoTError where the policy says so."""
    values: dict[str, str | bytes] = {}
    digests: list[str | None] = [None] * len(docs)
    for i, doc in enumerate(docs):
        image = get_image(doc)
        if image is not None:
            try:
                digests[i] = digest = _identify(image, policy)
                values.setdefault(digest, image)
            except BadPicture as problem:
                report_bad_picture(doc, problem, policy)
    return values, digests


def read_pixels(value: str | bytes, policy: PicturePolicy, size: int) -> NDArray[numpy.uint8]:
    """The whole picture as a square, uint8 (3, size, size). Raises BadPicture."""
    image = decode_picture(read_picture(value, policy), policy, size)
    square = image.resize((size, size), PIL.Image.Resampling.BILINEAR, reducing_gap=2.0)
    return numpy.ascontiguousarray(numpy.asarray(square, dtype="uint8").transpose(2, 0, 1))


def report_bad_picture(doc: Doc, problem: BadPicture, policy: PicturePolicy) -> None:
    """Warn that a Doc is read without its picture, or raise MMCoTError where the policy says so."""
    name = doc.user_data.get(ID_KEY) or repr(doc.text[:40])
    if policy.on_bad_image == "raise":
        raise MMCoTError(Errors.E406.format(doc=name, reason=problem))
    warnings.warn(Warnings.W400.format(doc=name, reason=problem), stacklevel=2)


def _identify(value: str | bytes, policy: PicturePolicy) -> str:
    """The picture's digest. Raises BadPicture."""
    if isinstance(value, str):
        # What fails here fails again in read_picture, which says why.
        with suppress(OSError, ValueError):
            status = Path(value).stat()
            identity = (status.st_mtime_ns, status.st_size, status.st_ino)
            return _file_digest(value, policy, *identity)
    return hash_picture(read_picture(value, policy))


@functools.lru_cache(maxsize=65536)
def _file_digest(value: str, policy: PicturePolicy, changed: int, size: int, inode: int) -> str:
    """Reads a file once while it stays as it is: epochs ask again and again."""
    return hash_picture(read_picture(value, policy))

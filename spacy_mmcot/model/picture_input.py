"""The pictures of a batch of Docs: found and identified by content, prepared as pixels, searched
for text, cached, and hidden or swapped in training.
"""

import functools
import math
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy
import PIL.Image
import torch
from cachetools import LRUCache
from numpy.typing import NDArray
from spacy.tokens import Doc
from spacy.util import minibatch
from thinc.api import Model
from torch import Tensor

from ..errors import Errors, MMCoTError, Warnings
from ..messages import check_range
from ..pictures.decode import decode_picture
from ..pictures.read import BadPicture, PicturePolicy, get_image, hash_picture, read_picture
from ..types import ID_KEY
from .sources import find_package

# No postponed annotations here: spaCy reads those of architectures at run time.

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
        owner = "spacy_mmcot.PromptedTransformer.v1"
        for name, most in (("dropout", 1.0), ("swap", 1.0), ("matching", math.inf)):
            check_range(owner, f"picture_{name}", getattr(self, name), 0.0, most)


class PatchFeatures(NamedTuple):
    """The features of the pictures of some Docs, each distinct picture once."""

    patches: Tensor  # (pictures, patches, width)
    rows: list[int]  # each Doc's index into the pictures, -1 without one
    texts: Sequence[str] = ()  # what is written in each picture; empty where nobody reads it


VisionModel = Model[Sequence[Doc], PatchFeatures]


class DocPictures(NamedTuple):
    """The pictures that a batch of Docs is read with."""

    patches: Tensor  # (pictures, patches, patch width), each distinct picture once
    own: list[int]  # each Doc's index into the pictures, -1 without one
    shown: list[int]  # what it is shown: -1 where hidden, another's where swapped
    texts: Sequence[str]  # what is written in each picture, "" for nothing
    backprop: Callable[[Tensor], Any]  # takes the gradient of the patches


def see_pictures(
    vision: VisionModel, docs: Sequence[Doc], is_train: bool, settings: PictureSettings
) -> DocPictures | None:
    """Features of the Docs' pictures; None where no Doc has one."""
    indexes = [i for i, doc in enumerate(docs) if len(doc) and get_image(doc) is not None]
    hidden = [False] * len(docs)
    if is_train and indexes:
        hidden = (torch.rand(len(docs)) < settings.dropout).tolist()
    if not settings.matching:
        # Nothing else learns from hidden pictures.
        indexes = [i for i in indexes if not hidden[i]]
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
    if is_train:
        swapped = (torch.rand(len(docs)) < settings.swap).tolist()
        # 0, which changes nothing, where there is no other picture.
        others = torch.randint(min(1, n_pictures - 1), n_pictures, (len(docs),)).tolist()
        drawn = zip(own, hidden, swapped, others, strict=True)
        shown = [
            -1 if row < 0 or hide else (row + swap * other) % n_pictures
            for row, hide, swap, other in drawn
        ]
    texts = features.texts or [""] * n_pictures
    return DocPictures(features.patches.requires_grad_(is_train), own, shown, texts, backprop)


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

    def __reduce__(self) -> tuple[Any, tuple[float]]:
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


# Pictures that go through a vision model at once: bounds memory whatever the batch of Docs.
CHUNK = 8


def load_pictures(
    docs: Sequence[Doc],
    policy: PicturePolicy,
    cache: PictureCache,
    read: Callable[[str | bytes], Array],
    *,
    compute: Callable[[Array], Array] | None = None,
    maker: object = None,
) -> tuple[list[Array], list[int]]:
    """An array for each distinct picture of the Docs, from the cache where that has it, and each
    Doc's index into these, -1 without a picture. A Doc whose picture cannot be read counts as one
    without, with a warning, or raises MMCoTError where the policy says so.

    read: makes an array of a file's path, or its content; raises BadPicture. compute: what is kept
    instead of some pictures' arrays, stacked. maker: see `PictureCache.get`.
    """
    values: dict[str, str | bytes] = {}
    digests: list[str | None] = [None] * len(docs)
    for i, doc in enumerate(docs):
        image = get_image(doc)
        if image is not None:
            try:
                digests[i] = digest = _identify(image, policy)
                values.setdefault(digest, image)
            except BadPicture as problem:
                _report_bad_picture(doc, problem, policy)
    arrays = {digest: cache.get(digest, maker) for digest in values}
    for batch in minibatch([digest for digest in arrays if arrays[digest] is None], CHUNK):
        made = {}
        for digest in batch:
            try:
                made[digest] = read(values[digest])
            except BadPicture as problem:
                for doc, own in zip(docs, digests, strict=True):
                    if own == digest:
                        _report_bad_picture(doc, problem, policy)
        if made and compute is not None:
            computed = compute(numpy.stack(list(made.values())))
            made = dict(zip(made, computed, strict=True))
        arrays.update(made)
        for digest, array in made.items():
            cache.put(digest, array)
    good = {digest: array for digest, array in arrays.items() if array is not None}
    index: dict[str | None, int] = {digest: i for i, digest in enumerate(good)}
    return list(good.values()), [index.get(digest, -1) for digest in digests]


def read_pixels(value: str | bytes, policy: PicturePolicy, size: int) -> NDArray[numpy.uint8]:
    """The whole picture as a square, uint8 (3, size, size). Raises BadPicture."""
    image = decode_picture(read_picture(value, policy), policy, size)
    square = image.resize((size, size), PIL.Image.Resampling.BILINEAR, reducing_gap=2.0)
    return numpy.ascontiguousarray(numpy.asarray(square, dtype="uint8").transpose(2, 0, 1))


# The attribute of a vision model with the most word pieces of a picture's text.
WORD_PIECES = "word_pieces"
# Pictures are read at this many pixels of the longer side: twice as many take four times as long.
_READ_PIXELS = 640
# A side below this, in pixels, holds no line of text.
_LINE_PIXELS = 16
# Of the texts in memory.
_TEXT_MB = 10.0


def PictureText(
    vision: Optional[VisionModel] = None,  # noqa: UP045
    pictures: Optional[PicturePolicy] = None,  # noqa: UP045
    max_pieces: int = 16,
) -> VisionModel:
    """`spacy_mmcot.PictureText.v1`: reads what is written in pictures (signs, shirts, banners), by
    the package rapidocr. The encoder reads the embeddings of its word pieces as visual prompts.

    vision: a model that sees the same pictures as patches; None for their text alone.
    pictures: which pictures are read, and what happens with others (`spacy_mmcot.Pictures.v1`);
        None for its defaults. `vision` has its own.
    max_pieces: most word pieces of a picture's text.

    Raises MMCoTError for less than one piece, and where rapidocr or onnxruntime is not installed.
    """
    check_range("spacy_mmcot.PictureText.v1", "max_pieces", max_pieces, 1)
    policy, cache = pictures or PicturePolicy(), PictureCache(_TEXT_MB)
    return Model(
        "picture_text",
        functools.partial(_read_texts, policy=policy, cache=cache),
        init=_init_text,
        layers=[vision] if vision is not None else [],
        dims={"nO": None},
        attrs={WORD_PIECES: max_pieces},
    )


def _init_text(model: VisionModel, X: Any = None, Y: Any = None) -> None:
    _check_reader()
    for vision in model.layers:
        vision.initialize()
    model.set_dim("nO", model.layers[0].get_dim("nO") if model.layers else 0)


def _read_texts(
    model: VisionModel,
    docs: Sequence[Doc],
    is_train: bool,
    policy: PicturePolicy,
    cache: PictureCache,
) -> tuple[PatchFeatures, Callable[[Tensor], Any]]:
    features, backprop, seen = None, lambda _: docs, docs
    if model.layers:
        features, backprop = model.layers[0](docs, is_train)
        # What it cannot read it has reported.
        seen = [docs[features.rows.index(i)] for i in range(len(features.patches))]
    arrays, rows = load_pictures(
        seen, policy, cache, lambda value: numpy.array(read_words(value, policy))
    )
    texts = [str(array) for array in arrays]
    if features is not None:
        read = ["" if row < 0 else texts[row] for row in rows]
        return features._replace(texts=read), backprop
    return PatchFeatures(torch.zeros(len(texts), 0, 0), rows, texts), backprop


def read_words(value: str | bytes, policy: PicturePolicy) -> str:
    """What is written in the picture, its lines one after the other; "" for nothing. Raises
    BadPicture, and MMCoTError where the packages are not installed."""
    image = decode_picture(read_picture(value, policy), policy, _READ_PIXELS)
    image.thumbnail((_READ_PIXELS, _READ_PIXELS))
    if min(image.size) < _LINE_PIXELS:
        return ""
    return " ".join(_load_reader(os.getpid())(image).txts or ())


@functools.lru_cache(maxsize=1)
def _load_reader(process: int) -> Any:
    """process: its number. A forked one needs a reader of its own, since threads do not survive a
    fork."""
    _check_reader()
    from rapidocr import RapidOCR

    settings = {
        "Global.log_level": "critical",
        "Global.use_cls": False,  # no lines upside down
        "Det.limit_type": "max",  # no picture is made larger
        "Det.limit_side_len": _READ_PIXELS,
        "EngineConfig.onnxruntime.intra_op_num_threads": torch.get_num_threads(),
    }
    return RapidOCR(params=settings)


def _check_reader() -> None:
    for package in ("rapidocr", "onnxruntime"):
        find_package(f"package:{package}")


def _report_bad_picture(doc: Doc, problem: BadPicture, policy: PicturePolicy) -> None:
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

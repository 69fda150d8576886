"""The pictures of Docs, as pixels ready for a vision model, each distinct one prepared once."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy
import PIL.Image
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..docs import get_image
from ..errors import Errors, MMCoTError, Warnings
from ..pictures.decode import decode_picture
from ..pictures.policy import PicturePolicy
from ..pictures.read import BadPicture, digest, read_picture
from ..types import ID_KEY


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

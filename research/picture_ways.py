"""The ways in which a study reads the pictures of labelled Docs."""

from __future__ import annotations

import functools
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy
import PIL.Image
from spacy.tokens import Doc

from research.errors import StudyErrors
from spacy_mmcot import MMCoTError, PicturePolicy, set_image
from spacy_mmcot.pictures.read import (
    BadPicture,
    encode_picture,
    get_image,
    hash_picture,
    read_picture,
)

# "none" and "real" are what `evaluate` has. "black": a black picture in the place of each.
# "shuffled": the picture of another Doc, never one of the same content, and the same one each time.
# "foreign": that of a Doc whose labels no name of this Doc has anywhere; "fitting": that of a Doc
# with other labels that names of this Doc have elsewhere. A Doc without such another has none.
Way = Literal["none", "real", "shuffled", "black", "foreign", "fitting"]
Picture = str | bytes

# Fixed, so that scores with shuffled pictures can be compared between runs and machines.
_SHUFFLE_SEED = 1
_BLACK_SIDE = 64


def change_pictures(docs: Iterable[Doc], way: Way, source: object) -> Iterable[Doc]:
    """The Docs with their pictures as the way says; "none" and "real" leave them as they are.

    source: what messages call the Docs.

    Raises MMCoTError where all pictures to shuffle are the same one.
    """
    if way in ("none", "real"):
        return docs
    docs = list(docs)
    if way in ("foreign", "fitting"):
        return _exchange(docs, way)
    own = {i: picture for i, doc in enumerate(docs) if (picture := get_image(doc)) is not None}
    others = _shuffle(own.values(), source) if way == "shuffled" else {}
    for i, picture in own.items():
        set_image(docs[i], others[picture] if others else _make_black())
    return docs


def _exchange(docs: list[Doc], way: Way) -> list[Doc]:
    meanings: dict[str, set[str]] = defaultdict(set)
    for doc in docs:
        for entity in doc.ents:
            meanings[entity.text].add(entity.label_)
    seen = [i for i, doc in enumerate(docs) if get_image(doc) is not None]
    shown = {i: {entity.label_ for entity in docs[i].ents} for i in seen}
    pictures = {i: get_image(docs[i]) for i in seen}
    rng = random.Random(_SHUFFLE_SEED)
    for i in seen:
        known = set().union(*(meanings[entity.text] for entity in docs[i].ents))
        if way == "foreign":
            others = [j for j in seen if shown[j] and not shown[j] & known]
        else:
            others = [j for j in seen if shown[j] and shown[j] <= known - shown[i]]
        set_image(docs[i], pictures[rng.choice(others)] if others else None)
    return docs


def compare_gates(own: Sequence[float], others: Sequence[float]) -> float:
    """How often the gate of an own picture is above that of another's, 0 to 1; equal ones count
    half (the area under the ROC curve)."""
    difference = numpy.subtract.outer(own, others)
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def _shuffle(pictures: Iterable[Picture], source: object) -> dict[Picture, Picture]:
    """For each picture one of another content: the next one in a random circle of all contents, so
    that none stays in its place, however often it is used.

    Raises MMCoTError where all have the same content.
    """
    contents = {picture: _identify(picture) for picture in pictures}
    first_of = {content: picture for picture, content in reversed(contents.items())}
    if len(first_of) == 1:
        raise MMCoTError(StudyErrors.E216.format(path=source))
    order = list(first_of)
    random.Random(_SHUFFLE_SEED).shuffle(order)
    after = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    return {picture: first_of[after[content]] for picture, content in contents.items()}


def _identify(picture: Picture) -> Picture:
    """The hash of the picture's bytes; the name of a picture that cannot be read."""
    try:
        return hash_picture(read_picture(picture, PicturePolicy()))
    except BadPicture:
        return picture


@functools.cache
def _make_black() -> Picture:
    return encode_picture(PIL.Image.new("RGB", (_BLACK_SIDE, _BLACK_SIDE)))

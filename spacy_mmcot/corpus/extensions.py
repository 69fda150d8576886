"""Extension attributes of Doc and Span.

Everything they hold lies in `doc.user_data` as msgpack-plain values, so that `Doc.to_bytes`,
`DocBin(store_user_data=True)` and `nlp.pipe(n_process=2)` carry it. A list may come back from a
DocBin as a tuple: read sequences by iterating over them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc, Span

from ..docs import get_image
from ..errors import Errors, MMCoTError
from ..pictures.read import BadPicture
from ..pictures.stored import stored_picture
from ..types import ALIGNMENT_KEY, IMAGE_KEY, PAIRS_KEY, RELATIONS_KEY, Relation


class Alignment(NamedTuple):
    """How the text of a Doc and its picture met in the model that read them."""

    gate: float  # 0 to 1: how far the picture bears on the text; below 0.5 it had no part
    grid: tuple[int, int]  # rows and columns of the picture's patches
    tokens: NDArray[numpy.float32]  # (tokens, rows, columns): each token's attention, at most 1


def register() -> None:
    """Add the attributes, once; calling it again changes nothing.

    `doc._.mmcot_image`: path or URL (str) or content (bytes) of the picture, None without one;
    `set_image` says what it may be set to.
    `doc._.mmcot_alignment`: `Alignment(gate, grid, tokens)` of a Doc that was read with a picture,
    where the pipeline keeps it (`spacy_mmcot.alignment_setter.v1`), otherwise None.
    `doc._.mmcot_knowledge`: dict with those of the keys `noun` (a list of dicts with `mention`,
    `kind` and `explanation`), `sentence`, `multimodality` and `caption` that are known, or None.
    `doc._.mmcot_rel`: tuple of `Relation(head, tail, label, score)`, empty by default.
    `span._.mmcot_score`: probability of the mention, or None.
    `doc._.mmcot_confidence`: probability, by the account of `mmcot_ner`, that it found all mentions
    of the Doc and no other, with the right labels: that of the predicted tag sequence. 1.0 for an
    empty Doc, None where no `mmcot_ner` ran. Relations do not count in it.
    """
    if not Doc.has_extension("mmcot_image"):
        Doc.set_extension("mmcot_image", getter=get_image, setter=set_image)
    if not Doc.has_extension("mmcot_alignment"):
        Doc.set_extension("mmcot_alignment", getter=get_alignment)
    if not Doc.has_extension("mmcot_knowledge"):
        Doc.set_extension("mmcot_knowledge", default=None)
    if not Doc.has_extension("mmcot_rel"):
        Doc.set_extension("mmcot_rel", getter=get_relations, setter=set_relations)
    if not Span.has_extension("mmcot_score"):
        Span.set_extension("mmcot_score", default=None)
    if not Doc.has_extension("mmcot_confidence"):
        Doc.set_extension("mmcot_confidence", default=None)


def set_image(doc: Doc, image: object) -> None:
    """Store a picture: a path or URL (str, pathlib.Path), a file's content (bytes, bytearray,
    memoryview), or a PIL image, which is kept as a PNG file's content; None takes it away. Whether
    it can be read shows when a pipeline reads it.

    Raises MMCoTError for anything else.
    """
    data: dict[Any, Any] = doc.user_data
    if image is None:
        data.pop(IMAGE_KEY, None)
        return
    try:
        data[IMAGE_KEY] = stored_picture(image)
    except BadPicture as error:
        raise MMCoTError(Errors.E209.format(problem=error)) from None


def get_alignment(doc: Doc) -> Alignment | None:
    """Where each token looked in the Doc's picture, None where that was not kept."""
    stored = doc.user_data.get(ALIGNMENT_KEY)
    if stored is None:
        return None
    rows, columns = stored["grid"]
    tokens = numpy.frombuffer(stored["tokens"], dtype="float16").astype("float32")
    return Alignment(stored["gate"], (rows, columns), tokens.reshape(-1, rows, columns))


def get_relations(doc: Doc) -> tuple[Relation, ...]:
    """The Doc's relations. A mention that is an entity of the Doc comes back as that entity."""
    mention = _finder(doc)
    relations = []
    for h0, h1, t0, t1, label, score in doc.user_data.get(RELATIONS_KEY, ()):
        head, tail = mention(h0, h1), mention(t0, t1)
        # A part of a Doc, cut out with its user data, no longer holds every mention.
        if head is not None and tail is not None:
            relations.append(Relation(head, tail, label, score))
    return tuple(relations)


def set_relations(doc: Doc, relations: Iterable[Relation]) -> None:
    """Store relations between spans of this Doc. Character offsets outlive a retokenisation.

    Raises MMCoTError where a span belongs to another Doc.
    """
    stored = []
    for head, tail, label, score in relations:
        if head.doc is not doc or tail.doc is not doc:
            raise MMCoTError(Errors.E200.format(label=label, head=head.text, tail=tail.text))
        stored.append(
            [head.start_char, head.end_char, tail.start_char, tail.end_char, label, float(score)]
        )
    doc.user_data[RELATIONS_KEY] = stored


def get_pairs(doc: Doc) -> list[tuple[Span, Span]] | None:
    """The ordered (head, tail) pairs of mentions that were judged, or are asked about; None where
    every ordered pair of two entities counts. Mentions come back as in `get_relations`."""
    stored = doc.user_data.get(PAIRS_KEY)
    if stored is None:
        return None
    mention = _finder(doc)
    pairs = []
    for h0, h1, t0, t1 in stored:
        head, tail = mention(h0, h1), mention(t0, t1)
        if head is not None and tail is not None:
            pairs.append((head, tail))
    return pairs


def set_pairs(doc: Doc, pairs: Iterable[tuple[Span, Span]]) -> None:
    """Store which ordered pairs of spans of this Doc were judged, or are asked about.

    Raises MMCoTError where a span belongs to another Doc.
    """
    stored = []
    for head, tail in pairs:
        if head.doc is not doc or tail.doc is not doc:
            raise MMCoTError(Errors.E208.format(head=head.text, tail=tail.text))
        stored.append([head.start_char, head.end_char, tail.start_char, tail.end_char])
    doc.user_data[PAIRS_KEY] = stored


def _finder(doc: Doc) -> Callable[[int, int], Span | None]:
    mentions = {(ent.start_char, ent.end_char): ent for ent in doc.ents}

    def mention(start: int, end: int) -> Span | None:
        return mentions.get((start, end)) or doc.char_span(start, end, alignment_mode="expand")

    return mention

"""Extension attributes of Doc and Span.

Everything they hold lies in `doc.user_data` as msgpack-plain values, so that `Doc.to_bytes`,
`DocBin(store_user_data=True)` and `nlp.pipe(n_process=2)` carry it. A list may come back from a
DocBin as a tuple: read sequences by iterating over them.

From records of text and picture to Docs that a pipeline takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc, Span

from ..docs import get_image
from ..errors import Errors, MMCoTError, shown
from ..pictures.read import BadPicture, stored_picture
from ..types import ALIGNMENT_KEY, ID_KEY, IMAGE_KEY, PAIRS_KEY, RELATIONS_KEY, Post, Relation


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


def get_judged_pairs(doc: Doc) -> list[tuple[int, int, int, int]] | None:
    """Which ordered pairs of mentions were judged, or are asked about: the pairs that were set on
    the Doc, and the pair of each of its relations. Training and scoring both go by this. Pairs are
    character offsets (head start, head end, tail start, tail end), ends exclusive.

    None where no pairs were set: then every ordered pair of two different entities was judged.
    """
    stored = doc.user_data.get(PAIRS_KEY)
    if stored is None:
        return None
    related = [(h0, h1, t0, t1) for h0, h1, t0, t1, *_ in doc.user_data.get(RELATIONS_KEY, ())]
    return list(dict.fromkeys([*((h0, h1, t0, t1) for h0, h1, t0, t1 in stored), *related]))


def get_pairs(doc: Doc) -> list[tuple[Span, Span]] | None:
    """The (head, tail) mentions of `get_judged_pairs`; None where every ordered pair of two
    entities counts. Mentions come back as in `get_relations`."""
    judged = get_judged_pairs(doc)
    if judged is None:
        return None
    mention = _finder(doc)
    pairs = []
    for h0, h1, t0, t1 in judged:
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


Record = Post | Mapping[str, Any] | tuple[str, Any] | list[Any]


def attach(
    nlp: Language,
    records: Iterable[Record],
    *,
    text: str = "text",
    image: str = "image",
    id: str = "id",
) -> Iterator[Doc]:
    """Docs with their pictures, one at a time, to predict on: `nlp.pipe(attach(nlp, records))`.

    A record is a Post, a dict whose keys `text`, `image` and `id` name, or a pair (text, image).
    An image is what `doc._.mmcot_image` takes; a key that is absent, or null (None, "" or NaN), is
    no picture, and no id. A Doc is `nlp.make_doc(text)` with the picture and the id; the entities
    that a Post may hold are left out. Relative paths stay relative to the working directory.

    Raises MMCoTError for the first record that is none of these, with its number from 1.
    """
    register()
    try:
        rows = iter(records)
    except TypeError:
        raise MMCoTError(Errors.E212.format(received=_shown(records))) from None
    for number, record in enumerate(rows, start=1):
        try:
            fields = _fields(record, text, image, id)
            doc = _doc(nlp, fields, number)
        except BadPicture as error:
            problem = f"the picture {error}"
        except _BadRecord as error:
            problem = str(error)
        else:
            yield doc
            continue
        keys = ", ".join(map(repr, (text, image, id)))
        raise MMCoTError(Errors.E210.format(number=number, problem=problem, keys=keys))


class _BadRecord(ValueError):
    """What is wrong with a record."""


class _Fields(NamedTuple):
    text: Any
    image: Any
    id: Any


def _fields(record: object, text: str, image: str, id: str) -> _Fields:
    if isinstance(record, Post):
        return _Fields(record.text, record.image, record.id)
    if isinstance(record, Mapping):
        if text not in record:
            keys = ", ".join(map(repr, record)) or "none"
            raise _BadRecord(f"the dict has no key {text!r} for the text, its keys are {keys}")
        return _Fields(record[text], record.get(image), record.get(id))
    if isinstance(record, tuple | list) and len(record) == 2:
        return _Fields(record[0], record[1], None)
    raise _BadRecord(f"received {_shown(record)}")


def _doc(nlp: Language, fields: _Fields, number: int) -> Doc:
    text, image, name = fields
    if not isinstance(text, str):
        raise _BadRecord(f"the text is {_shown(text)}")
    if not _is_null(name) and (not isinstance(name, str | Integral) or isinstance(name, bool)):
        raise _BadRecord(f"the id is {_shown(name)}")
    if len(text) > nlp.max_length:
        message = Errors.E211.format(number=number, length=len(text), limit=nlp.max_length)
        raise MMCoTError(message)
    doc = nlp.make_doc(text)
    data: dict[Any, Any] = doc.user_data
    if not _is_null(name):
        data[ID_KEY] = str(name)
    if not _is_null(image):
        data[IMAGE_KEY] = stored_picture(image)
    return doc


def _is_null(value: object) -> bool:
    return (
        value is None
        or (isinstance(value, str) and not value)
        or (isinstance(value, float) and math.isnan(value))
    )


def _shown(value: object) -> str:
    return f"{shown(value)} ({type(value).__qualname__})"

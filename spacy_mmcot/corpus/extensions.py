"""Extension attributes of Doc and Span, and copies of a Doc without annotation.

All values are kept in `doc.user_data` and serialise with msgpack, so that `Doc.to_bytes`,
`DocBin(store_user_data=True)` and `nlp.pipe(n_process=2)` carry them. A list may come back from a
DocBin as a tuple: read sequences by iterating over them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from ..errors import Errors, MMCoTError
from ..pictures.read import BadPicture, encode_picture, get_image
from ..types import ALIGNMENT_KEY, IMAGE_KEY, PAIRS_KEY, RELATIONS_KEY, Relation


class Alignment(NamedTuple):
    """How a model related the tokens of a Doc to its picture."""

    gate: float  # 0 to 1: how relevant the picture is to the text; below 0.5 it was not used
    grid: tuple[int, int]  # rows and columns of the picture's patches
    tokens: NDArray[numpy.float32]  # (tokens, rows, columns): each token's attention, at most 1


def register_extensions() -> None:
    """Add the attributes to spaCy's Doc and Span; a second call changes nothing.

    `doc._.mmcot_image`: path (str) or content (bytes) of the picture, None without one; `set_image`
    says what it may be set to.
    `doc._.mmcot_alignment`: `Alignment(gate, grid, tokens)` of a Doc with a picture, where the
    pipeline keeps it (`spacy_mmcot.alignment_setter.v1`), otherwise None.
    `doc._.mmcot_knowledge`: dict with those of the keys `noun` (a list of dicts with `mention`,
    `kind` and `explanation`), `sentence`, `multimodality` and `caption` that are known, or None.
    `doc._.mmcot_rel`: tuple of `Relation(head, tail, label, score)`, empty by default.
    `span._.mmcot_score`: probability of the mention, or None.
    `doc._.mmcot_confidence`: probability, as `mmcot_ner` estimates it, that all entities of the Doc
    are right and none is missing: that of the predicted tag sequence. 1.0 for an empty Doc, None
    where no `mmcot_ner` ran. Relations do not count in it.
    """
    attributes: dict[str, dict[str, Any]] = {
        "mmcot_image": {"getter": get_image, "setter": set_image},
        "mmcot_alignment": {"getter": get_alignment},
        "mmcot_knowledge": {"default": None},
        "mmcot_rel": {"getter": get_relations, "setter": set_relations},
        "mmcot_confidence": {"default": None},
    }
    for name, settings in attributes.items():
        if not Doc.has_extension(name):
            Doc.set_extension(name, **settings)
    if not Span.has_extension("mmcot_score"):
        Span.set_extension("mmcot_score", default=None)


def set_image(doc: Doc, image: object) -> None:
    """Store a picture: a path (str, pathlib.Path), a file's content (bytes, bytearray, memoryview),
    or a PIL image, which is kept as a PNG file's content; None removes it. Whether it can be read
    shows only when a pipeline reads it.

    Raises MMCoTError for anything else.
    """
    data: dict[Any, Any] = doc.user_data
    if image is None:
        data.pop(IMAGE_KEY, None)
        return
    try:
        data[IMAGE_KEY] = encode_picture(image)
    except BadPicture as error:
        raise MMCoTError(Errors.E209.format(problem=error)) from None


def get_alignment(doc: Doc) -> Alignment | None:
    """Each token's attention on the Doc's picture; None where the pipeline did not keep it."""
    stored = doc.user_data.get(ALIGNMENT_KEY)
    if stored is None:
        return None
    rows, columns = stored["grid"]
    tokens = numpy.frombuffer(stored["tokens"], dtype="float16").astype("float32")
    return Alignment(stored["gate"], (rows, columns), tokens.reshape(-1, rows, columns))


def get_relations(doc: Doc) -> tuple[Relation, ...]:
    """The Doc's relations. A mention that is an entity of the Doc comes back as that entity."""
    found = _find_spans(doc, doc.user_data.get(RELATIONS_KEY, ()))
    return tuple(Relation(head, tail, *rest) for head, tail, rest in found)


def set_relations(doc: Doc, relations: Iterable[Relation]) -> None:
    """Store relations between spans of this Doc. Character offsets outlive a retokenisation.

    Raises MMCoTError where a span belongs to another Doc.
    """
    doc.user_data[RELATIONS_KEY] = [
        [*_list_offsets(doc, head, tail), label, float(score)]
        for head, tail, label, score in relations
    ]


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
    return None if judged is None else [(h, t) for h, t, _ in _find_spans(doc, judged)]


def set_pairs(doc: Doc, pairs: Iterable[tuple[Span, Span]]) -> None:
    """Store which ordered pairs of spans of this Doc were judged, or are asked about.

    Raises MMCoTError where a span belongs to another Doc.
    """
    doc.user_data[PAIRS_KEY] = [_list_offsets(doc, head, tail) for head, tail in pairs]


def _list_offsets(doc: Doc, head: Span, tail: Span) -> list[int]:
    if head.doc is not doc or tail.doc is not doc:
        raise MMCoTError(Errors.E200.format(head=head.text, tail=tail.text))
    return [head.start_char, head.end_char, tail.start_char, tail.end_char]


def _find_spans(doc: Doc, rows: Iterable[Sequence[Any]]) -> Iterator[tuple[Span, Span, list[Any]]]:
    """Head and tail of each row that begins with their character offsets, and the rest of the row.
    Offsets of an entity give that entity."""
    entities = {(ent.start_char, ent.end_char): ent for ent in doc.ents}
    for h0, h1, t0, t1, *rest in rows:
        head, tail = (
            entities.get(place) or doc.char_span(*place, alignment_mode="expand")
            for place in ((h0, h1), (t0, t1))
        )
        # A slice of a Doc (span.as_doc) has the user data of all, but not every mention.
        if head is not None and tail is not None:
            yield head, tail, rest


def copy_tokens(doc: Doc, keys: Iterable[Any] | None = None, vocab: Vocab | None = None) -> Doc:
    """A Doc of the same tokens without annotation. A pipeline's traces on a Doc stay behind: an
    encoder's states would triple the size of a corpus.

    keys: the entries of `doc.user_data` to copy, where the Doc has them; None for all.
    vocab: of the copy; None for that of the Doc.
    """
    copy = Doc(
        doc.vocab if vocab is None else vocab,
        words=[token.text for token in doc],
        spaces=[bool(token.whitespace_) for token in doc],
    )
    data: dict[Any, Any] = doc.user_data
    copied = data if keys is None else keys
    copy.user_data.update({key: data[key] for key in copied if key in data})
    return copy


def copy_entities(doc: Doc, copy: Doc) -> None:
    """Give a copy of the Doc its entities, and the pairs of them that were judged."""
    spans = [Span(copy, ent.start, ent.end, label=ent.label) for ent in doc.ents]
    copy.set_ents(spans, default="outside" if doc.has_annotation("ENT_IOB") else "missing")
    pairs = get_judged_pairs(doc)
    if pairs is not None:
        copy.user_data[PAIRS_KEY] = [list(pair) for pair in pairs]

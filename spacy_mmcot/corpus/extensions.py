"""Extension attributes of Doc and Span, and copies of a Doc without annotation.

All values are kept in `doc.user_data` and serialise with msgpack, so that `Doc.to_bytes`,
`DocBin(store_user_data=True)` and `nlp.pipe(n_process=2)` carry them. A list may come back from a
DocBin as a tuple: read sequences by iterating over them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import permutations
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from ..errors import Errors, MMCoTError
from ..messages import shown
from ..pictures.read import BadPicture, encode_picture, get_image
from ..types import ALIGNMENT_KEY, IMAGE_KEY, PAIRS_KEY, RELATIONS_KEY, Relation, digest_text


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
    `span._.mmcot_relations`, `span._.mmcot_pairs`: of the Span of the whole text, what
    `doc._.mmcot_rel` and `get_pairs` read, in plain lists for `Doc.to_json`.
    `doc._.mmcot_confidence`: probability, as `mmcot_ner` estimates it, that all entities of the Doc
    are right and none is missing: that of the predicted tag sequence. 1.0 for an empty Doc, None
    where no `mmcot_ner` ran. Relations do not count in it.
    `doc._.mmcot_weakest`: the same probability of the Doc's least certain sentence. The longer a
    Doc, the less likely it is that all of it is right, so this one compares Docs of any length.
    `doc._.mmcot_source`: whose answer a Doc has that went through `mmcot_cascade`, see there; None
    for others.
    """
    attributes: dict[str, dict[str, Any]] = {
        "mmcot_image": {"getter": get_image, "setter": set_image},
        "mmcot_alignment": {"getter": get_alignment},
        "mmcot_knowledge": {"default": None},
        "mmcot_rel": {"getter": get_relations, "setter": set_relations},
        "mmcot_confidence": {"default": None},
        "mmcot_weakest": {"default": None},
        "mmcot_source": {"default": None},
    }
    for name, settings in attributes.items():
        if not Doc.has_extension(name):
            Doc.set_extension(name, **settings)
    for name in ("mmcot_score", RELATIONS_KEY, PAIRS_KEY):
        if not Span.has_extension(name):
            Span.set_extension(name, default=None)


def set_image(doc: Doc, image: object) -> None:
    """Store a picture: a path (str, pathlib.Path), a file's content (bytes, bytearray, memoryview),
    or a PIL image, which is kept as a PNG file's content; None removes it. Whether it can be read
    shows only when a pipeline reads it.

    Raises MMCoTError for anything else.
    """
    if image is None:
        doc.user_data.pop(IMAGE_KEY, None)
        return
    try:
        doc.user_data[IMAGE_KEY] = encode_picture(image)
    except BadPicture as error:
        raise MMCoTError(Errors.E209.format(problem=error)) from None


def get_alignment(doc: Doc) -> Alignment | None:
    """Each token's attention on the Doc's picture; None where the pipeline did not keep it, or for
    other tokens."""
    stored = doc.user_data.get(ALIGNMENT_KEY)
    if stored is None:
        return None
    rows, columns = stored["grid"]
    tokens = numpy.frombuffer(stored["tokens"], dtype="float16").astype("float32")
    if stored["text"] != digest_text(doc.text) or tokens.size != len(doc) * rows * columns:
        return None  # of a Doc from which this one was cut or copied
    return Alignment(stored["gate"], (rows, columns), tokens.reshape(-1, rows, columns))


# Character offsets of head and tail, ends exclusive: h0, h1, t0, t1.
PairOffsets = tuple[int, int, int, int]


def get_relations(doc: Doc) -> tuple[Relation, ...]:
    """The Doc's relations. A mention that is an entity of the Doc comes back as that entity; a
    relation whose mention does not begin and end with a token is left out."""
    rows = list_relations(doc)
    if not rows:
        return ()
    spans = _find_spans(doc, [row[:4] for row in rows])
    found = zip(spans, rows, strict=True)
    return tuple(Relation(*ends, *row[4:]) for ends, row in found if ends is not None)


def set_relations(doc: Doc, relations: Iterable[Relation] | None) -> None:
    """Store relations between spans of this Doc, or that nobody has looked for any. Their heads and
    tails may also be character offsets, as `Doc.from_json` gives them.

    Raises MMCoTError for something else, and where a span belongs to another Doc.
    """
    try:
        rows = [(*_list_offsets(doc, h, t), x, float(score)) for h, t, x, score in relations or ()]
        _keep_rows(doc, RELATIONS_KEY, None if relations is None else rows)
    except MMCoTError:
        raise
    except (TypeError, ValueError):
        raise MMCoTError(Errors.E208.format(received=shown(relations))) from None


def list_relations(doc: Doc) -> list[tuple[int, int, int, int, str, float]] | None:
    """The character offsets of head and tail of each relation, its label and its score; None where
    nobody has looked for relations."""
    return _list_rows(doc, RELATIONS_KEY)


def get_judged_pairs(doc: Doc) -> list[PairOffsets] | None:
    """Which ordered pairs of mentions were judged, or are asked about: the pairs that were set on
    the Doc, and the pair of each of its relations. Training and scoring both go by this. None where
    no pairs were set: then every ordered pair of two different entities was judged. In Docs that
    `Doc.from_docs` joined, those are the pairs within each of them."""
    stored: list[PairOffsets] | None = _list_rows(doc, PAIRS_KEY)
    relations = list_relations(doc)
    if stored is None:
        if relations is None:
            return None
        parts = [key[2:] for key in _list_keys(doc, RELATIONS_KEY)]
        if any(start <= 0 and _find_end(doc) <= end for start, end in parts):
            return None
        places = [(ent.start_char, ent.end_char) for ent in doc.ents]
        groups = [[p for p in places if start <= p[0] and p[1] <= end] for start, end in parts]
        stored = [(*h, *t) for group in groups for h, t in permutations(group, 2)]
    return list(dict.fromkeys([*stored, *(row[:4] for row in relations or ())]))


def get_pairs(doc: Doc) -> list[tuple[Span, Span]] | None:
    """The (head, tail) mentions of `get_judged_pairs`; None where every ordered pair of two
    entities counts. Mentions come back as in `get_relations`."""
    if (judged := get_judged_pairs(doc)) is None:
        return None
    return [ends for ends in _find_spans(doc, judged) if ends is not None]


def set_pairs(doc: Doc, pairs: Iterable[tuple[Span, Span]]) -> None:
    """Store which ordered pairs of spans of this Doc were judged, or are asked about.

    Raises MMCoTError where a span belongs to another Doc.
    """
    _keep_rows(doc, PAIRS_KEY, [_list_offsets(doc, head, tail) for head, tail in pairs])


class _JsonSpan(Span):
    """A Span that srsly writes as its character offsets, as `Doc.to_json` asks of attributes."""

    @classmethod
    def make(cls, span: Span) -> _JsonSpan:
        ids: Any = {"label": span.label, "kb_id": span.kb_id, "span_id": span.id}
        return cls(span.doc, span.start, span.end, **ids)

    def __json__(self) -> str:
        return f"[{self.start_char},{self.end_char}]"


def _list_offsets(doc: Doc, head: Any, tail: Any) -> PairOffsets:
    if not isinstance(head, Span):  # offsets, from JSON
        return *head, *tail
    if head.doc is not doc or tail.doc is not doc:
        raise MMCoTError(Errors.E200.format(head=head.text, tail=tail.text))
    return head.start_char, head.end_char, tail.start_char, tail.end_char


# Rows about pairs of mentions are kept as an attribute of the Span of the whole text, so that
# `Span.as_doc` and `Doc.from_docs` move them along with the text. Each row ends with a digest of
# its mentions' texts: where these are not at the offsets, the row belongs to another text.


def _keep_rows(doc: Doc, name: str, rows: Iterable[tuple[Any, ...]] | None) -> None:
    """rows: the character offsets of head and tail, and what is known of the pair. None removes
    those that there are."""
    for key in _list_keys(doc, name):
        del doc.user_data[key]
    if rows is None:
        return
    rows = list(rows)
    text = doc.text if rows else ""  # which spaCy puts together from the tokens
    place: Any = ("._.", name, 0, _find_end(doc))
    doc.user_data[place] = [[*row, _digest(text, *row[:4])] for row in rows]


def _find_end(doc: Doc) -> int:
    """Where the last token ends, in characters."""
    return doc[-1].idx + len(doc[-1]) if len(doc) else 0


def _list_rows(doc: Doc, name: str) -> list[Any] | None:
    """The rows whose mentions are in the Doc's text; None where none were kept, or all are another
    text's."""
    data, keys = doc.user_data, _list_keys(doc, name)
    found: list[Any] | None = None
    text = doc.text if any(data[key] for key in keys) else ""
    for key in keys:
        rows = [(*(at + key[2] for at in row[:4]), *row[4:]) for row in data[key]]
        # In a part of a Doc, mentions may be outside of the text; never other words inside of it.
        inside = [row for row in rows if min(row[:4]) >= 0 and max(row[:4]) <= len(text)]
        if all(_digest(text, *row[:4]) == row[-1] for row in inside):
            found = (found or []) + [row[:-1] for row in inside]
    return found


def _list_keys(doc: Doc, name: str) -> list[Any]:
    return [k for k in doc.user_data if isinstance(k, tuple) and k[:2] == ("._.", name)]


def _digest(text: str, h0: int, h1: int, t0: int, t1: int) -> int:
    return digest_text(f"{text[h0:h1]}\0{text[t0:t1]}")


def _find_spans(doc: Doc, pairs: Iterable[PairOffsets]) -> Iterator[tuple[Span, Span] | None]:
    """Head and tail of each pair; None where one does not begin and end with a token."""
    entities = {(ent.start_char, ent.end_char): ent for ent in doc.ents}
    for h0, h1, t0, t1 in pairs:
        head, tail = (entities.get(ends) or doc.char_span(*ends) for ends in ((h0, h1), (t0, t1)))
        if head is None or tail is None:
            yield None
        else:
            yield _JsonSpan.make(head), _JsonSpan.make(tail)


def list_missing(doc: Doc) -> list[tuple[int, int]]:
    """The character offsets of the tokens that nobody has judged for entities; of a Doc without any
    entity annotation, all."""
    return [(t.idx, t.idx + len(t)) for t in doc if t.ent_iob == 0]


def copy_tokens(doc: Doc, keys: Iterable[Any] | None = None, vocab: Vocab | None = None) -> Doc:
    """A Doc of the same tokens without annotation, and without the encoder's states, which would
    triple the size of a corpus. keys: those of `doc.user_data` to copy; None for all. vocab: of the
    copy; None for that of the Doc."""
    words, spaces = [token.text for token in doc], [bool(token.whitespace_) for token in doc]
    copy = Doc(doc.vocab if vocab is None else vocab, words=words, spaces=spaces)
    data = doc.user_data
    copied = data if keys is None else {key: data[key] for key in keys if key in data}
    copy.user_data.update(copied)
    return copy


def copy_entities(doc: Doc, copy: Doc) -> None:
    """Give a copy of the Doc its entities, and the pairs of them that were judged."""
    spans = [Span(copy, ent.start, ent.end, label=ent.label) for ent in doc.ents]
    copy.set_ents(spans, default="outside" if doc.has_annotation("ENT_IOB") else "missing")
    if (pairs := get_judged_pairs(doc)) is not None:
        _keep_rows(copy, PAIRS_KEY, pairs)

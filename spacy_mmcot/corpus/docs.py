"""Docs from posts, with their labels, and from plain records of text and picture.

`make_doc` is for training data: every entity of the post becomes one of the Doc. `attach` is for
texts to predict on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any, Literal

from spacy.language import Language
from spacy.tokens import Doc

from .. import types
from ..errors import Errors, MMCoTError
from ..messages import shown
from ..pictures.read import BadPicture, encode_picture
from ..types import Answers, Entity, Post, Relation, is_null
from .extensions import register_extensions, set_pairs, set_relations
from .posts import Findings

Tokenizer = Literal["spacy", "whitespace"]
Record = Post | Mapping[str, Any] | tuple[str, Any] | list[Any]

_TRIMMED = "entities with white space at an edge, trimmed"
_SPLIT = "tokens split at the edge of an entity"


def make_doc(
    nlp: Language,
    post: Post,
    answers: Answers | None = None,
    *,
    tokenizer: Tokenizer = "spacy",
    keep_mentions: bool = False,
    findings: Findings | None = None,
) -> Doc:
    """A Doc with the post's text, id, picture path, knowledge, entities, relations and pairs.

    tokenizer: the pipeline's own, or `whitespace` for text that was tokenised before: a token is
        what stands between spaces (U+0020). A token in which an entity begins or ends is split
        there.
    keep_mentions: an unlabelled post keeps its entities and pairs, and loses its relations alone.
        For corpora whose mentions are given and whose relations are sought.
    findings: takes what was changed.

    The entities of a post that is not labelled, or of the split `unlabelled`, are marked as
    missing, as are the tokens of `post.missing`; the spans of `post.rejected` are in
    `doc.spans["incorrect_spans"]`. Raises MMCoTError for a text that is longer than the tokenizer
    takes.
    """
    register_extensions()
    findings = findings or Findings()
    _check_length(nlp, f"Post {post.id}", post.text)
    labelled = post.split != "unlabelled"
    has_entities = post.entities is not None and (labelled or keep_mentions)
    entities = [_trim(post, e, findings) for e in post.entities or ()] if has_entities else []
    rejected = [_trim(post, e, findings) for e in post.rejected or () if has_entities]
    unjudged = post.missing or ()
    doc = nlp.make_doc(post.text) if tokenizer == "spacy" else _split_at_spaces(nlp, post.text)
    doc = _split_at_edges(doc, post, [*entities, *rejected], findings)

    doc.user_data[types.ID_KEY] = post.id
    if post.image is not None:
        doc.user_data[types.IMAGE_KEY] = post.image
    if knowledge := collect_knowledge(post, answers):
        doc.user_data[types.KNOWLEDGE_KEY] = knowledge
    if not has_entities:
        doc.set_ents([], default="missing")
        return doc
    # No token reaches over an edge now, so that every entity has its span.
    spans: list[Any] = [doc.char_span(e.start, e.end, label=e.label) for e in entities]
    known = {token.i for span in spans for token in span}
    missing = [
        doc[token.i : token.i + 1]
        for token in doc
        if token.i not in known
        and any(token.idx < end and start < token.idx + len(token) for start, end in unjudged)
    ]
    doc.set_ents(spans, missing=missing, default="outside")
    if rejected:
        barred: list[Any] = [doc.char_span(e.start, e.end, label=e.label) for e in rejected]
        doc.spans[types.REJECTED_KEY] = barred
    if post.pairs is not None:
        set_pairs(doc, [(spans[head], spans[tail]) for head, tail in post.pairs])
    # An empty list is stored too: it says that somebody looked and there is none.
    if post.relations is not None and labelled:
        relations = [Relation(spans[r.head], spans[r.tail], r.label, 1.0) for r in post.relations]
        set_relations(doc, relations)
    return doc


def _check_length(nlp: Language, what: str, text: str) -> None:
    if len(text) > nlp.max_length:
        raise MMCoTError(Errors.E206.format(what=what, length=len(text), limit=nlp.max_length))


def collect_knowledge(post: Post, answers: Answers | None) -> dict[str, Any]:
    """What `doc._.mmcot_knowledge` holds: the answers to the knowledge questions, and the caption,
    as far as they are known."""
    known = (
        answers.model_dump(include=set[str](types.KNOWLEDGE), exclude_none=True) if answers else {}
    )
    if post.caption:
        known["caption"] = post.caption
    return known


def _describe(post: Post, entity: Entity) -> str:
    surface = post.text[entity.start : entity.end]
    return f"{post.id}: {surface!r} ({entity.start}, {entity.end}, {entity.label})"


def _trim(post: Post, entity: Entity, findings: Findings) -> Entity:
    """The entity without white space at its edges, which spaCy allows no entity to have."""
    surface = post.text[entity.start : entity.end]
    start = entity.end - len(surface.lstrip())
    end = entity.start + len(surface.rstrip())
    if (start, end) != (entity.start, entity.end):
        findings.change(_TRIMMED, _describe(post, entity))
    return entity.model_copy(update={"start": start, "end": end})


def _split_at_spaces(nlp: Language, text: str) -> Doc:
    """A Doc whose tokens are the runs between spaces. Further spaces between two runs are a token,
    as with spaCy's tokenizer, so that the Doc's text stays the post's."""
    found = re.findall(r"([^ ]+)( ?)|( +)", text)
    words = [word or spaces for word, _, spaces in found]
    return Doc(nlp.vocab, words=words, spaces=[bool(space) for _, space, _ in found])


def _split_at_edges(doc: Doc, post: Post, entities: Sequence[Entity], findings: Findings) -> Doc:
    """The Doc with every token split in which an entity begins or ends."""
    edges = {edge: entity for entity in entities for edge in (entity.start, entity.end)}
    words: list[str] = []
    spaces: list[bool] = []
    for token in doc:
        start, end = token.idx, token.idx + len(token)
        inside = sorted(edge for edge in edges if start < edge < end)
        words.extend(post.text[left:right] for left, right in pairwise([start, *inside, end]))
        spaces.extend([False] * len(inside))
        spaces.append(bool(token.whitespace_))
        for entity in {edges[edge].start: edges[edge] for edge in inside}.values():
            findings.change(_SPLIT, f"{_describe(post, entity)} in the token {token.text!r}")
    return doc if len(words) == len(doc) else Doc(doc.vocab, words=words, spaces=spaces)


def attach(
    nlp: Language,
    records: Iterable[Record],
    *,
    text: str = "text",
    image: str = "image",
    id: str = "id",
    on_error: Callable[[int, MMCoTError], None] | None = None,
) -> Iterator[Doc]:
    """Docs with their pictures, one at a time, to predict on: `nlp.pipe(attach(nlp, records))`.

    A record is a Post, a dict whose keys `text`, `image` and `id` name, or a pair (text, image).
    An image is what `doc._.mmcot_image` takes. A key that is absent or null (None, "" or NaN)
    stands for no picture, or no id. A Doc is `nlp.make_doc(text)` with the picture and the id; a
    Post's labels are left out. Relative paths stay relative to the working directory.

    on_error: called with the number of a record that is refused, from 1, and the error; the others
        go on. Refused is a record that is none of these, a text that is too long for the pipeline,
        and one that holds one half of a surrogate pair, as `json.loads` and `os.fsdecode` give.

    Raises MMCoTError for the first record that is refused, unless there is an `on_error`.
    """
    register_extensions()
    try:
        numbered = enumerate(records, start=1)
    except TypeError:
        raise MMCoTError(Errors.E212.format(received=_show(records))) from None
    for number, record in numbered:
        try:
            doc = _attach_record(nlp, number, *_read_fields(record, text, image, id))
        except MMCoTError as error:
            refused = error
            if isinstance(error, BadRecord):
                keys = ", ".join(map(repr, (text, image, id)))
                refused = MMCoTError(Errors.E210.format(number=number, problem=error, keys=keys))
            if on_error is None:
                raise refused from None
            on_error(number, refused)
        else:
            yield doc


class BadRecord(MMCoTError):
    """What is wrong with a record."""


def _read_fields(record: object, text: str, image: str, id: str) -> tuple[Any, Any, Any]:
    """Text, image and id of a record."""
    if isinstance(record, Post):
        return record.text, record.image, record.id
    if isinstance(record, Mapping):
        if text not in record:
            keys = ", ".join(map(repr, record)) or "none"
            raise BadRecord(f"the dict has no key {text!r} for the text, its keys are {keys}")
        return record[text], record.get(image), record.get(id)
    if isinstance(record, tuple | list) and len(record) == 2:
        return record[0], record[1], None
    raise BadRecord(f"received {_show(record)}")


def encode_record(text: object, image: object, name: object) -> str | bytes | None:
    """What a Doc keeps of a record's picture. Raises BadRecord for a text, a picture or an id that
    no Doc can have."""
    if not isinstance(text, str):
        raise BadRecord(f"the text is {_show(text)}")
    if not is_null(name) and (not isinstance(name, str | Integral) or isinstance(name, bool)):
        raise BadRecord(f"the id is {_show(name)}")
    for role, value in (("text", text), ("id", name), ("picture's path", image)):
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                place = f"character {error.start + 1} of the {role}"
                raise BadRecord(f"{place} is one half of a surrogate pair") from None
    try:
        return None if is_null(image) else encode_picture(image)
    except BadPicture as error:
        raise BadRecord(f"the picture {error}") from None


def _attach_record(nlp: Language, number: int, text: Any, image: Any, name: Any) -> Doc:
    picture = encode_record(text, image, name)
    _check_length(nlp, f"spacy_mmcot.attach, record {number}", text)
    doc = nlp.make_doc(text)
    if not is_null(name):
        doc.user_data[types.ID_KEY] = str(name)
    if picture is not None:
        doc.user_data[types.IMAGE_KEY] = picture
    return doc


def _show(value: object) -> str:
    return f"{shown(value)} ({type(value).__qualname__})"

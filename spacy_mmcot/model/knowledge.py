"""What an LLM said about a Doc, as a teacher's input: tags on the tokens and a second text segment
for its encoder, tags of pairs for its pair classifier.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy
import pydantic
from numpy.typing import NDArray
from spacy.strings import get_string_id
from spacy.tokens import Doc, Span

from ..errors import Errors, MMCoTError
from ..messages import explain
from ..types import DEFAULT_CONFIDENCE, KNOWLEDGE_KEY, SURENESS, Conclusion, NounItem, Sureness

# Rows of the table of tag embeddings, and how many of them a token has at most: one for being part
# of a mention of the `noun` answer, two for its kind, two for the conclusion. Any name finds its
# two rows by hashes: two names hardly share both (Svenstrup et al., NeurIPS 2017, "Hash
# embeddings").
TAG_ROWS = 1024
TAGS_PER_TOKEN = 5
# The same for a pair of mentions: one row where relations were asked for, two for the conclusion on
# the pair, one for its second choice, two for the conclusion on the pair in the other direction.
TAGS_PER_PAIR = 6

# The share of a conclusion's probability that is spread over all labels.
PRIOR_FLOOR = 0.1

_ALTERNATIVES = re.compile(r"[/,;|()]| or | and ")
_TAIL = re.compile(r" (?:of|in|from|for|at|by|on|about|with)\b.*")


class _Knowledge(pydantic.BaseModel):
    """What `doc._.mmcot_knowledge` holds."""

    caption: str | None = None
    noun: list[NounItem] | None = None
    sentence: str | None = None
    multimodality: str | None = None
    conclusion: Conclusion | None = None


class _Kept(pydantic.BaseModel):
    """So that messages name the knowledge."""

    knowledge: _Knowledge


class ConcludedSpan(NamedTuple):
    """An entity that an LLM concludes on: token offsets, end exclusive."""

    start: int
    end: int
    label: str
    sure: Sureness


class ConcludedPair(NamedTuple):
    """A relation that an LLM concludes on. head, tail: first tokens; label: may be NO_RELATION."""

    head: int
    tail: int
    label: str
    sure: Sureness
    or_label: str | None


def get_concluded_entities(doc: Doc) -> list[ConcludedSpan] | None:
    """The entities of the Doc's conclusion, in text order; None where none were asked for."""
    entities = _get_conclusion(doc).entities
    if entities is None:
        return None
    return [
        ConcludedSpan(span.start, span.end, item.label, item.sure)
        for item in entities
        if (span := _find_span(doc, item.start, item.mention)) is not None
    ]


def get_concluded_relations(doc: Doc) -> list[ConcludedPair] | None:
    """The relations of the Doc's conclusion; None where none were asked for."""
    relations = _get_conclusion(doc).relations
    if relations is None:
        return None
    pairs = []
    for item in relations:
        head = _find_span(doc, item.head_start, item.head)
        tail = _find_span(doc, item.tail_start, item.tail)
        if head is not None and tail is not None:
            conclusion = item.label, item.sure, item.or_label
            pairs.append(ConcludedPair(head.start, tail.start, *conclusion))
    return pairs


def find_parts(doc: Doc) -> NDArray[numpy.int64]:
    """Shape (tokens,): which part of the text the LLM was shown with each token, to conclude on; -1
    where a part has no answer. All 0 for a text that was asked about as a whole."""
    parts = _get_conclusion(doc).parts
    found = numpy.full(len(doc), -1 if parts else 0, dtype="int64")
    starts = numpy.array([token.idx for token in doc], dtype="int64")
    for number, (start, end) in enumerate(parts or ()):
        found[(start <= starts) & (starts < end)] = number
    return found


def _get_conclusion(doc: Doc) -> Conclusion:
    return _get_knowledge(doc).conclusion or Conclusion()


def _find_span(doc: Doc, start: int | None, surface: str) -> Span | None:
    """The tokens of the surface at a character; None where the text does not have it there."""
    if start is None or not doc.text.startswith(surface, start):
        return None
    return doc.char_span(start, start + len(surface), alignment_mode="expand")


@functools.lru_cache(maxsize=4096)
def hash_tag(name: str) -> tuple[int, int]:
    """Two rows of the table of tag embeddings, never row 0."""
    first, second = (1 + get_string_id(f"{name}\0{i}") % (TAG_ROWS - 1) for i in range(2))
    return first, second


def find_kind(kind: str) -> str:
    """The word that names a kind: "footballer" of "Spanish footballer/actor from Madrid"."""
    first = _ALTERNATIVES.split(kind.lower().strip())[0]
    words = re.findall(r"\w+", _TAIL.sub("", first))
    return words[-1] if words else ""


def tag_tokens(doc: Doc) -> NDArray[numpy.int64]:
    """The rows of each token's tag embeddings, (tokens, TAGS_PER_TOKEN), 0 for none: the kind of a
    mention of the `noun` answer, and label and sureness of a concluded entity, each apart for the
    first token and the others."""
    tags = numpy.zeros((len(doc), TAGS_PER_TOKEN), dtype="int64")
    items = _get_knowledge(doc).noun or ()
    for i, start, end in _locate_mentions(doc, [item.mention for item in items]):
        for token in range(start, end):
            name = f"noun {'B' if token == start else 'I'}"
            tags[token, 0] = hash_tag(name)[0]
            tags[token, 1:3] = hash_tag(f"{name} {find_kind(items[i].kind)}")
    for span in get_concluded_entities(doc) or ():
        for token in range(span.start, span.end):
            place = "B" if token == span.start else "I"
            tags[token, 3:5] = hash_tag(f"conclusion {place} {span.label} {span.sure}")
    return tags


def make_tag_probabilities(
    n_tokens: int, tags: Sequence[str], spans: Iterable[tuple[int, int, str, float]]
) -> NDArray[numpy.float32]:
    """(tokens, tags): the probability of each span on its tags, the rest on O, the first tag.

    spans: (start, end, label, probability), token offsets, end exclusive.
    """
    probabilities = numpy.zeros((n_tokens, len(tags)), dtype="float32")
    probabilities[:, 0] = 1.0
    for start, end, label, probability in spans:
        probabilities[start:end] = 0.0
        probabilities[start:end, 0] = 1 - probability
        probabilities[start, tags.index(f"B-{label}")] = probability
        probabilities[start + 1 : end, tags.index(f"I-{label}")] = probability
    return probabilities


def compute_tag_priors(doc: Doc, tags: Sequence[str]) -> NDArray[numpy.float32]:
    """(tokens, tags): the log-probabilities of the tags by the Doc's conclusion alone, before
    anything is learned; 0 where no entities were asked for, or no answer came."""
    entities = get_concluded_entities(doc)
    if entities is None:
        return numpy.zeros((len(doc), len(tags)), dtype="float32")
    spans = [
        (c.start, c.end, c.label, DEFAULT_CONFIDENCE[c.sure])
        for c in entities
        if f"B-{c.label}" in tags
    ]
    probabilities = make_tag_probabilities(len(doc), tags, spans)
    priors = numpy.log((1 - PRIOR_FLOOR) * probabilities + PRIOR_FLOOR / len(tags))
    return numpy.where((find_parts(doc) >= 0)[:, None], priors, 0.0).astype("float32")


def tag_pairs(
    doc: Doc,
    mentions: Sequence[Span],
    pairs: NDArray[numpy.int64],
    labels: Mapping[str, int],
) -> NDArray[numpy.int64]:
    """What the LLM concludes on each pair, (pairs, 2 + TAGS_PER_PAIR): the index of the label, -1
    where it was not asked and 0 where there is none; the index of its sureness; and the rows of its
    tag embeddings, 0 for none. A concluded mention is the one that its first token lies
    in. pairs: (pairs, 2), head and tail as indexes into the mentions; labels: the indexes of the
    relation labels."""
    found = numpy.zeros((len(pairs), 2 + TAGS_PER_PAIR), dtype="int64")
    concluded = get_concluded_relations(doc) if len(pairs) else None
    if concluded is None:
        found[:, 0] = -1
        return found
    tags = found[:, 2:]
    heads, tails = find_parts(doc)[[mention.start for mention in mentions]][pairs.T]
    asked = (heads == tails) & (heads >= 0)
    found[~asked, 0] = -1
    tags[asked, 0] = hash_tag("asked")[0]
    mention_at = {token.i: i for i, mention in enumerate(mentions) for token in mention}
    row_of = {(head, tail): row for row, (head, tail) in enumerate(pairs.tolist())}
    for c in concluded:
        head, tail = mention_at.get(c.head, -1), mention_at.get(c.tail, -1)
        if (row := row_of.get((head, tail))) is not None:
            if c.label in labels:
                found[row, :2] = labels[c.label], SURENESS.index(c.sure)
            tags[row, 1:3] = hash_tag(f"{c.label} {c.sure}")
            if c.or_label is not None:
                tags[row, 3] = hash_tag(f"or {c.or_label}")[0]
        if (row := row_of.get((tail, head))) is not None:
            tags[row, 4:6] = hash_tag(f"reverse {c.label} {c.sure}")
    return found


def _locate_mentions(doc: Doc, mentions: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Each place of a mention: its index among the mentions, first token and end token.

    Mentions are matched at token boundaries, without regard to case, white space and leading # or
    @. Where mentions overlap, the longest wins.
    """
    text, starts, ends = _squeeze_doc(doc)
    taken = numpy.zeros(len(doc), dtype=bool)
    squeezed = [_squeeze(mention).lstrip("#@") for mention in mentions]
    for i in sorted(range(len(squeezed)), key=lambda i: -len(squeezed[i])):
        at = text.find(squeezed[i]) if squeezed[i] else -1
        while at >= 0:
            start, end = starts.get(at), ends.get(at + len(squeezed[i]))
            if start is not None and end is not None and not taken[start:end].any():
                taken[start:end] = True
                yield i, start, end
            at = text.find(squeezed[i], at + 1)


def get_segment_parts(doc: Doc) -> list[str]:
    """Caption, meaning of the post, relation of picture and post, as far as the Doc has them."""
    knowledge = _get_knowledge(doc)
    parts = (knowledge.caption, knowledge.sentence, knowledge.multimodality)
    return [part.strip() for part in parts if part and part.strip()]


def get_full_text(doc: Doc) -> str:
    """All knowledge of a Doc as one text, mentions and explanations first."""
    nouns = (
        f"{item.mention}: {item.kind}. {item.explanation}".strip()
        for item in _get_knowledge(doc).noun or ()
    )
    return " ".join([*nouns, *get_segment_parts(doc)]).strip()


def _get_knowledge(doc: Doc) -> _Knowledge:
    """The Doc's knowledge, empty without any. Raises MMCoTError where it has another form."""
    try:
        return _Kept(knowledge=doc.user_data.get(KNOWLEDGE_KEY) or {}).knowledge
    except pydantic.ValidationError as error:
        problem, _ = explain(error)
        message = Errors.E410.format(doc=repr(doc.text[:60]), problem=problem)
        raise MMCoTError(message) from None


def _squeeze(text: str) -> str:
    """In lower case, without white space."""
    return "".join(text.lower().split())


def _squeeze_doc(doc: Doc) -> tuple[str, dict[int, int], dict[int, int]]:
    """The Doc's text in lower case without white space, the tokens that start at a place in it, and
    the end tokens of what ends there."""
    text = ""
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    for i, token in enumerate(doc):
        if word := _squeeze(token.text):
            starts[len(text)] = i
            text += word
            ends[len(text)] = i + 1
            # A token such as "#NBA" is found with and without its sign.
            if name := word.lstrip("#@"):
                starts[len(text) - len(name)] = i
    return text, starts, ends

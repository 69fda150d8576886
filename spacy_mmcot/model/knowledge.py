"""An LLM's knowledge as a teacher reads it: tags on the tokens, and a second text segment."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray
from spacy.strings import get_string_id
from spacy.tokens import Doc

from ..errors import Errors, MMCoTError
from ..types import KNOWLEDGE_KEY, Sureness

# Rows of the table of tag embeddings, and how many of them a token has at most: one for being part
# of a thing that the `noun` answer names, and two each for the kind and for the conclusion. Tags
# find their rows by hashes, two each so that two tags hardly share both (Svenstrup et al., NeurIPS
# 2017, "Hash embeddings"): a scheme of any labels and kinds of any words need no table of names.
TAG_ROWS = 1024
TAGS_PER_TOKEN = 5

_ALTERNATIVES = re.compile(r"[/,;|()]| or | and ")
_TAIL = re.compile(r" (?:of|in|from|for|at|by|on|about|with)\b.*")

# What the segment can hold, in this order.
SEGMENT_GRAINS: tuple[str, ...] = ("caption", "sentence", "multimodality")


class ConcludedSpan(NamedTuple):
    """An entity that an LLM concludes on: token offsets, end exclusive."""

    start: int
    end: int
    label: str
    sure: Sureness


class ConcludedPair(NamedTuple):
    """A relation that an LLM concludes on: the first tokens of head and tail, the label (or
    NO_RELATION), and a second choice."""

    head: int
    tail: int
    label: str
    sure: Sureness
    or_label: str | None


def concluded_entities(doc: Doc) -> list[ConcludedSpan] | None:
    """The entities of the Doc's conclusion, in text order; None where none were asked for."""
    entities = (_knowledge(doc).get("conclusion") or {}).get("entities")
    if entities is None:
        return None
    spans = []
    for item in entities:
        start = item["start"]
        span = doc.char_span(start, start + len(item["mention"]), alignment_mode="expand")
        if span is not None:
            spans.append(ConcludedSpan(span.start, span.end, item["label"], item["sure"]))
    return spans


def concluded_relations(doc: Doc) -> list[ConcludedPair] | None:
    """The relations of the Doc's conclusion; None where none were asked for."""
    relations = (_knowledge(doc).get("conclusion") or {}).get("relations")
    if relations is None:
        return None
    pairs = []
    for item in relations:
        ends = [
            doc.char_span(start, start + len(surface), alignment_mode="expand")
            for start, surface in (
                (item["head_start"], item["head"]),
                (item["tail_start"], item["tail"]),
            )
        ]
        head, tail = ends
        if head is not None and tail is not None:
            pair = ConcludedPair(
                head.start, tail.start, item["label"], item["sure"], item.get("or_label")
            )
            pairs.append(pair)
    return pairs


@functools.lru_cache(maxsize=4096)
def hashed_rows(name: str, n_rows: int = TAG_ROWS) -> tuple[int, int]:
    """Two rows of an embedding table for a name, never row 0."""
    first, second = (1 + get_string_id(f"{name}\0{i}") % (n_rows - 1) for i in range(2))
    return first, second


def kind_of(kind: str) -> str:
    """The word that says what an LLM's kind is in the main: "footballer" of "footballer/actor" and
    of "Spanish footballer from Madrid"."""
    first = _ALTERNATIVES.split(kind.lower().strip())[0]
    words = re.findall(r"\w+", _TAIL.sub("", first))
    return words[-1] if words else ""


def knowledge_tags(doc: Doc) -> NDArray[numpy.int64]:
    """The rows of each token's tag embeddings, (tokens, TAGS_PER_TOKEN), 0 for none: from the
    `noun` answer the kinds of its mentions, from the conclusion label and sureness, each apart for
    the first token of a mention and the others.

    Mentions of the `noun` answer are matched without regard to case, white space and leading # or
    @, at token boundaries only; a longer mention wins over a shorter one inside it.
    """
    tags = numpy.zeros((len(doc), TAGS_PER_TOKEN), dtype="int64")
    if not len(doc):
        return tags
    for start, end, kind in _named_things(doc):
        word = kind_of(kind)
        for token in range(start, end):
            place = "B" if token == start else "I"
            tags[token, 0] = hashed_rows(f"noun {place}")[0]
            tags[token, 1:3] = hashed_rows(f"noun {place} {word}")
    for span in concluded_entities(doc) or ():
        for token in range(span.start, span.end):
            place = "B" if token == span.start else "I"
            tags[token, 3:5] = hashed_rows(f"conclusion {place} {span.label} {span.sure}")
    return tags


def _named_things(doc: Doc) -> list[tuple[int, int, str]]:
    """Where the things of the `noun` answer stand: (first token, end token, kind)."""
    items = _knowledge(doc).get("noun") or ()
    found: list[tuple[int, int, str]] = []
    if not items:
        return found
    text, first_token, last_token = _squeezed(doc)
    taken = numpy.zeros(len(doc), dtype=bool)
    mentions = sorted(
        ((_squeeze(item["mention"]), item["kind"]) for item in items), key=lambda m: -len(m[0])
    )
    for mention, kind in mentions:
        at = text.find(mention) if mention else -1
        while at >= 0:
            start = first_token.get(at)
            last = last_token.get(at + len(mention))
            if start is not None and last is not None and not taken[start : last + 1].any():
                taken[start : last + 1] = True
                found.append((start, last + 1, kind))
            at = text.find(mention, at + 1)
    return found


def segment_parts(doc: Doc, grains: Sequence[str] = SEGMENT_GRAINS) -> list[str]:
    """The knowledge that a list of mentions cannot hold: the picture's caption, what the post
    means, and how picture and post bear on each other; of these, `grains`, as far as known."""
    knowledge = _knowledge(doc)
    parts = (knowledge.get(name) or "" for name in SEGMENT_GRAINS if name in grains)
    return [part.strip() for part in parts if part.strip()]


def segment_text(doc: Doc) -> str:
    """All of these parts as one text."""
    return " ".join(segment_parts(doc))


def full_text(doc: Doc) -> str:
    """All knowledge of a Doc as one text, its mentions and explanations first."""
    nouns = (
        f"{item['mention']}: {item['kind']}. {item.get('explanation') or ''}".strip()
        for item in _knowledge(doc).get("noun") or ()
    )
    return " ".join([*nouns, segment_text(doc)]).strip()


def _knowledge(doc: Doc) -> Mapping[str, Any]:
    """Raises MMCoTError where a user wrote something else there."""
    user_data: dict[Any, Any] = doc.user_data
    knowledge = user_data.get(KNOWLEDGE_KEY) or {}
    problem = _problem(knowledge)
    if problem:
        raise MMCoTError(Errors.E410.format(doc=repr(doc.text[:60]), problem=problem))
    return knowledge


def _problem(knowledge: Any) -> str | None:
    if not isinstance(knowledge, Mapping):
        return f"is a {type(knowledge).__name__}"
    for name in SEGMENT_GRAINS:
        if not isinstance(knowledge.get(name), str | None):
            return f"has a {type(knowledge[name]).__name__} as {name!r}"
    items = knowledge.get("noun") or ()
    if not isinstance(items, Sequence) or isinstance(items, str):
        return f"has a {type(items).__name__} as 'noun'"
    for item in items:
        if not isinstance(item, Mapping):
            return f"has a {type(item).__name__} among its 'noun'"
        for name in ("mention", "kind"):
            if not isinstance(item.get(name), str):
                return f"has a 'noun' without a text as {name!r}: {dict(item)}"
    return None


def _squeeze(text: str) -> str:
    return "".join(text.lower().split()).lstrip("#@")


def _squeezed(doc: Doc) -> tuple[str, dict[int, int], dict[int, int]]:
    """The Doc's lower-cased text without white space; which token starts at an offset of it, and
    which ends there."""
    text = ""
    first_token: dict[int, int] = {}
    last_token: dict[int, int] = {}
    for i, token in enumerate(doc):
        word = "".join(token.text.lower().split())
        if not word:
            continue
        first_token[len(text)] = i
        # A token such as "#NBA" may be named without its sign.
        stripped = word.lstrip("#@")
        if stripped and stripped != word:
            first_token[len(text) + len(word) - len(stripped)] = i
        text += word
        last_token[len(text)] = i
    return text, first_token, last_token

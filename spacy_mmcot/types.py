"""Records that pass between the stages, and the keys under which a Doc keeps its own.

This module knows neither spaCy nor torch at run time, so that every part of the package, the
elicitation side included, can import it at no cost.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args
from zlib import crc32

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    model_validator,
)

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from spacy.tokens import Doc, Span

Knowledge = Literal["noun", "sentence", "multimodality", "conclusion"]
Augmentation = Literal["style", "entity", "image"]
Dimension = Literal[Knowledge, Augmentation]
Split = Literal["train", "unlabelled", "dev", "test"]
Task = Literal["ner", "rel"]
# Formats of corpus files, see `spacy_mmcot/corpus/formats.py`.
Format = Literal[
    "posts",
    "text",
    "table",
    "conll",
    "prodigy",
    "doccano",
    "label-studio",
    "spacy",
    "spacy-json",
    "mnre",
]
Pictures = Literal["none", "real"]
Tokens = Literal["gold", "pipeline"]
Sureness = Literal["high", "medium", "low"]

KNOWLEDGE: tuple[Knowledge, ...] = get_args(Knowledge)
AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)
DIMENSIONS: tuple[Dimension, ...] = KNOWLEDGE + AUGMENTATIONS
SPLITS: tuple[Split, ...] = get_args(Split)
PICTURES: tuple[Pictures, ...] = get_args(Pictures)
TOKENS: tuple[Tokens, ...] = get_args(Tokens)
SURENESS: tuple[Sureness, ...] = get_args(Sureness)
# P(right) of an LLM's conclusion that nobody has checked.
DEFAULT_CONFIDENCE: Mapping[Sureness, float] = {"high": 0.95, "medium": 0.7, "low": 0.5}

# doc.user_data keys. The first five are where spaCy keeps the extension attributes of the same
# names; reading them directly spares the model layer an import of the corpus layer. Any, since
# spaCy's stubs know texts as keys alone.
KNOWLEDGE_KEY: Any = ("._.", "mmcot_knowledge", None, None)
IMAGE_KEY: Any = ("._.", "mmcot_image", None, None)
CONFIDENCE_KEY: Any = ("._.", "mmcot_confidence", None, None)
WEAKEST_KEY: Any = ("._.", "mmcot_weakest", None, None)
SOURCE_KEY: Any = ("._.", "mmcot_source", None, None)
ID_KEY = "mmcot_id"
ROW_KEY = "mmcot_row"
ALIGNMENT_KEY = "mmcot_alignment"
SOFT_LABELS_KEY = "mmcot_soft_labels"
PROMPT_TARGET_KEY = "mmcot_prompt_target"
RELATIONS_KEY = "mmcot_relations"
PAIRS_KEY = "mmcot_pairs"
SOFT_RELATIONS_KEY = "mmcot_soft_relations"

# doc.spans key of the spans that people rejected as mentions, the name that Prodigy gives them.
REJECTED_KEY = "incorrect_spans"

# Stands for "no relation" in files and tables; never the label of a relation.
NO_RELATION = "None"

Text = Annotated[StrictStr, Field(min_length=1)]
Index = Annotated[StrictInt, Field(ge=0)]


class Record(BaseModel):
    """Base of the interchange records: unknown fields are errors, values are not coerced, and texts
    with halves of surrogate pairs, which UTF-8 cannot encode, are errors."""

    # pydantic looks for such halves only in texts that have a limit.
    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, str_max_length=2**40
    )


class Entity(Record):
    """A labelled mention: `start` and `end` are character offsets into the post's text, end
    exclusive."""

    start: Index
    end: Annotated[StrictInt, Field(ge=1)]
    label: Text

    def __str__(self) -> str:
        return f"({self.start}, {self.end}, {self.label})"


class PostRelation(Record):
    """A labelled relation: `head` and `tail` are indexes into the post's entities."""

    head: Index
    tail: Index
    label: Text


class Post(Record):
    """One document of a corpus, the record that every stage reads and writes (a JSON line each).

    `entities` is None for a post that nobody has labelled, [] for one without entities. The labels
    of a post of the split `unlabelled` are never used.

    A post that is labelled in part has `missing`, the (start, end) offsets of what nobody judged,
    and `rejected`, the spans that people looked at and that are no entities of that label. Training
    ignores the tokens of the former and rules out the latter.

    `relations` is None if nobody has labelled relations, [] if there are none; an ordered pair of
    entities has at most one. `pairs` are the (head, tail) indexes of the pairs that were judged or,
    without `relations`, are asked about; None stands for all ordered pairs of two entities.
    """

    id: Text
    text: StrictStr
    entities: list[Entity] | None = None
    relations: list[PostRelation] | None = None
    pairs: list[tuple[Index, Index]] | None = None
    missing: list[tuple[Index, Index]] | None = None
    rejected: list[Entity] | None = None
    image: Text | None = None
    caption: StrictStr | None = None
    split: Split = "train"
    domain: StrictStr | None = None

    @property
    def is_fully_labelled(self) -> bool:
        """Whether people have judged all of the text for entities."""
        return self.entities is not None and not self.missing

    def cut(self, start: int, end: int) -> Post:
        """The post with this stretch of its text alone, and the labels that lie in it."""
        inside = {
            i: Entity(start=e.start - start, end=e.end - start, label=e.label)
            for i, e in enumerate(self.entities or ())
            if start <= e.start and e.end <= end
        }
        number = {old: new for new, old in enumerate(inside)}
        relations = [
            PostRelation(head=number[r.head], tail=number[r.tail], label=r.label)
            for r in self.relations or ()
            if r.head in inside and r.tail in inside
        ]
        labels: dict[str, Any] = {
            "entities": None if self.entities is None else list(inside.values()),
            "relations": None if self.relations is None else relations,
        }
        others = dict.fromkeys(("pairs", "missing", "rejected"))
        return self.model_copy(update={**labels, **others, "text": self.text[start:end]})

    @model_validator(mode="after")
    def _check(self) -> Post:
        if not self.text.strip():
            raise ValueError("text is empty")
        entities = self.entities or []
        check_entities("entities", entities, self.text)
        _check_partial(self, entities)
        relations = [(relation.head, relation.tail) for relation in self.relations or []]
        if any(relation.label == NO_RELATION for relation in self.relations or []):
            raise ValueError(f"a relation is labelled {NO_RELATION}, which stands for no relation")
        _check_pairs("relations", relations, len(entities))
        if self.pairs is not None:
            _check_pairs("pairs", self.pairs, len(entities))
            judged = set(self.pairs)
            for i, pair in enumerate(relations):
                if pair not in judged:
                    raise ValueError(f"relations[{i}] joins {pair}, which is not among the pairs")
        return self


def _check_partial(post: Post, entities: Sequence[Entity]) -> None:
    if post.entities is None and (post.missing is not None or post.rejected is not None):
        raise ValueError("missing and rejected need entities, a list that may be empty")
    for i, entity in enumerate(post.rejected or ()):
        check_entities(f"rejected[{i}]", [entity], post.text)
        if entity in entities:
            raise ValueError(f"rejected[{i}] {entity} is also one of the entities")
    for i, (start, end) in enumerate(post.missing or ()):
        if not start < end <= len(post.text):
            problem = f"missing[{i}] is ({start}, {end})"
            raise ValueError(f"{problem}, which is no stretch of {len(post.text)} characters")
        if any(start < entity.end and entity.start < end for entity in entities):
            raise ValueError(f"missing[{i}] ({start}, {end}) overlaps an entity")


def check_entities(name: str, entities: Sequence[Entity], text: str) -> None:
    """Raises ValueError, naming the field, where an entity does not lie in the text, covers white
    space only, or overlaps another."""
    for i, entity in enumerate(entities):
        where = f"{name}[{i}] {entity}"
        if entity.end > len(text):
            raise ValueError(f"{where} ends past the text's {len(text)} characters")
        if entity.start >= entity.end:
            raise ValueError(f"{where} is empty or reversed")
        if not text[entity.start : entity.end].strip():
            raise ValueError(f"{where} covers white space only")
    ordered = sorted(entities, key=lambda e: e.start)
    for left, right in itertools.pairwise(ordered):
        if right.start < left.end:
            raise ValueError(f"{name} {left} and {right} overlap")


def _check_pairs(name: str, pairs: list[tuple[int, int]], n_entities: int) -> None:
    seen: dict[tuple[int, int], int] = {}
    for i, (head, tail) in enumerate(pairs):
        for role, index in (("head", head), ("tail", tail)):
            if index >= n_entities:
                problem = f"{name}[{i}].{role} is {index}"
                raise ValueError(f"{problem}, but the post has {n_entities} entities")
        if head == tail:
            raise ValueError(f"{name}[{i}] joins entity {head} to itself")
        first = seen.setdefault((head, tail), i)
        if first != i:
            raise ValueError(f"{name}[{i}] joins ({head}, {tail}), as {name}[{first}] does")


class NounItem(Record):
    """One named or special thing an LLM sees in a post: the mention as it stands in the text,
    what kind of thing it is in a few words, and why."""

    mention: Text
    kind: Text
    explanation: StrictStr = ""


def _as_sureness(value: Any) -> Any:
    if isinstance(value, bool):
        return "high" if value else "low"
    return value.strip().lower() if isinstance(value, str) else value


# `true` and `false` stand for high and low; case does not matter.
Sure = Annotated[Sureness, BeforeValidator(_as_sureness)]


class ConcludedEntity(Record):
    """An entity that an LLM concludes on: the mention as it stands in the text, a label of the
    scheme, and how sure the LLM is. `start` is its character offset, None where nobody has located
    it."""

    mention: Text
    label: Text
    sure: Sure = "high"
    start: Index | None = None


class ConcludedRelation(Record):
    """A relation that an LLM concludes on: the mentions of head and tail, a label of the scheme
    (or NO_RELATION for a pair that was asked about), and how sure the LLM is. `or_label` is a
    second choice. The starts are character offsets, as of an entity."""

    head: Text
    label: Text
    tail: Text
    sure: Sure = "high"
    or_label: Text | None = Field(default=None, alias="or")
    head_start: Index | None = None
    tail_start: Index | None = None


class Conclusion(Record):
    """The end of an LLM's chain of thought: the entities and relations of a post in the user's own
    labels. None stands for what was not asked.

    parts: of a long text that was asked about in parts, the (start, end) of those with an answer;
    nothing is known of the rest, nor of relations between parts. None for a text that was asked
    about as a whole.
    """

    reasoning: StrictStr = ""
    entities: list[ConcludedEntity] | None = None
    relations: list[ConcludedRelation] | None = None
    parts: list[tuple[Index, Index]] | None = None


class EntityVariant(Record):
    """The `entity` augmentation's answer: the rewritten post, the (old, new) surfaces to swap in
    order, and whether the LLM holds the result for possible."""

    text: Text
    swaps: list[tuple[Text, Text]]
    possible: bool = True


class Answers(Record):
    """An LLM's answers about one post, a JSON line each in a recorded answers file."""

    id: Text
    noun: list[NounItem] | None = None
    sentence: Text | None = None
    multimodality: Text | None = None
    conclusion: Conclusion | None = None
    style: Text | None = None
    entity: EntityVariant | None = None
    image: Text | None = None


def digest_text(text: str) -> int:
    """The CRC-32 of a text, stored with what was computed from it to notice another text."""
    return crc32(text.encode())


def make_text_key(text: str) -> str:
    """A text's letters and digits in lower case: the same for texts that differ only in case, space
    and punctuation."""
    return "".join(re.findall(r"\w", text.lower())) or text


PART_TOKENS = 4000  # estimated, of a text that an LLM is asked about as a whole
BYTES_PER_TOKEN = 4  # of UTF-8, about, in what LLMs read
# Where a text may be cut, the best first: blank lines, line ends, sentences, clauses, spaces. A
# full stop behind fewer than four letters may be that of an abbreviation, or an initial's.
_BORDERS = [
    re.compile(pattern)
    for pattern in (
        r"\n[ \t\r]*\n",
        r"\n",
        r"(?:(?<=\w{4})\.|[!?…]|(?<=\W)\.)[\"'”’»)\]]*(?=\s)|[。．｡！？؟۔।॥։።។][」』”’）》\"]*",
        r"[,;:،؛](?=\s)|[，、；：]",
        r"\s",
    )
]


def split_text(text: str, tokens: int) -> list[tuple[int, int]]:
    """The (start, end) of consecutive parts that cover a text, each of about `tokens` tokens at
    most: it ends at the last border of the best kind in its second half."""
    parts: list[tuple[int, int]] = []
    start, limit = 0, tokens * BYTES_PER_TOKEN
    first = len(text) - len(text.lstrip())  # no part is white space alone
    while start < len(text):
        first = max(start, first)
        shown = text[first : first + limit].encode("utf-8", "replace")[:limit]
        end = first + max(1, len(shown.decode("utf-8", "ignore")))
        if end < len(text):
            half = (first + end) // 2
            kinds = (list(border.finditer(text, half, end)) for border in _BORDERS)
            end = next((found[-1].end() for found in kinds if found), end)
            end += len(text[end:]) - len(text[end:].lstrip())
        parts.append((start, end))
        start = end
    return parts


def is_null(value: object) -> bool:
    """Whether a value of a table or record stands for none: None, an empty text, or NaN."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value)


def merge_answers(first: Answers | None, later: Answers | None) -> Answers | None:
    """One record of both; the later one wins where both answer the same prompt."""
    if first is None or later is None:
        return later or first
    return first.model_copy(update={k: v for k, v in later if k != "id" and v is not None})


class DocPairs(NamedTuple):
    """A Doc, mentions in it, and the pairs to score: an int array (pairs, 2) of head and tail,
    indexes into the mentions."""

    doc: Doc
    mentions: Sequence[Span]
    pairs: NDArray[numpy.int64]


class Relation(NamedTuple):
    """A relation between two mentions of one Doc, with the model's probability of it."""

    head: Span
    tail: Span
    label: str
    score: float

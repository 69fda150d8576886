"""Records that pass between the stages, and the keys under which a Doc keeps its own.

This module knows neither spaCy nor torch at run time, so that every part of the package, the
elicitation side included, can import it at no cost.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator

if TYPE_CHECKING:
    from spacy.tokens import Span

Knowledge = Literal["noun", "sentence", "multimodality"]
Augmentation = Literal["style", "entity", "image"]
Dimension = Literal[Knowledge, Augmentation]
Split = Literal["train", "unlabelled", "dev", "test"]
Task = Literal["ner", "rel"]

KNOWLEDGE: tuple[Knowledge, ...] = get_args(Knowledge)
AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)
DIMENSIONS: tuple[Dimension, ...] = KNOWLEDGE + AUGMENTATIONS
SPLITS: tuple[Split, ...] = get_args(Split)

# doc.user_data keys. The first two are where spaCy keeps the extension attributes of the same
# names; reading them directly spares the model layer an import of the corpus layer.
KNOWLEDGE_KEY = ("._.", "mmcot_knowledge", None, None)
IMAGE_KEY = ("._.", "mmcot_image", None, None)
ID_KEY = "mmcot_id"
SOFT_LABELS_KEY = "mmcot_soft_labels"
PROMPT_TARGET_KEY = "mmcot_prompt_target"
RELATIONS_KEY = "mmcot_relations"

Text = Annotated[StrictStr, Field(min_length=1)]


class Record(BaseModel):
    """Base of the interchange records: unknown fields are errors, values are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Entity(Record):
    """A labelled mention: `start` and `end` are character offsets into the post's text, end
    exclusive."""

    start: Annotated[StrictInt, Field(ge=0)]
    end: Annotated[StrictInt, Field(ge=1)]
    label: Text


class PostRelation(Record):
    """A labelled relation: `head` and `tail` are indexes into the post's entities."""

    head: Annotated[StrictInt, Field(ge=0)]
    tail: Annotated[StrictInt, Field(ge=0)]
    label: Text


class Post(Record):
    """One document of a corpus, the record that every stage reads and writes (a JSON line each).

    `entities` is None where nobody has labelled the post and [] where it holds no entity. A post
    of the split `unlabelled` is never used with its labels, even where it carries some.
    """

    id: Text
    text: StrictStr
    entities: list[Entity] | None = None
    relations: list[PostRelation] | None = None
    image: Text | None = None
    caption: StrictStr | None = None
    split: Split = "train"
    domain: StrictStr | None = None

    @model_validator(mode="after")
    def _check(self) -> Post:
        if not self.text.strip():
            raise ValueError("text is empty")
        entities = self.entities or []
        for i, entity in enumerate(entities):
            where = f"entities[{i}] ({entity.start}, {entity.end}, {entity.label})"
            if entity.end > len(self.text):
                raise ValueError(f"{where} ends past the text's {len(self.text)} characters")
            if entity.start >= entity.end:
                raise ValueError(f"{where} is empty or reversed")
            if not self.text[entity.start : entity.end].strip():
                raise ValueError(f"{where} covers white space only")
        ordered = sorted(entities, key=lambda e: e.start)
        for left, right in itertools.pairwise(ordered):
            if right.start < left.end:
                raise ValueError(
                    f"entities ({left.start}, {left.end}, {left.label}) and "
                    f"({right.start}, {right.end}, {right.label}) overlap"
                )
        for i, relation in enumerate(self.relations or []):
            for role, index in (("head", relation.head), ("tail", relation.tail)):
                if index >= len(entities):
                    raise ValueError(
                        f"relations[{i}].{role} is {index}, "
                        f"but the post has {len(entities)} entities"
                    )
            if relation.head == relation.tail:
                raise ValueError(f"relations[{i}] joins entity {relation.head} to itself")
        return self


class NounItem(Record):
    """One named or special thing an LLM sees in a post: the mention as it stands in the text,
    what kind of thing it is in a few words, and why."""

    mention: Text
    kind: Text
    explanation: StrictStr = ""


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
    style: Text | None = None
    entity: EntityVariant | None = None
    image: Text | None = None


class Relation(NamedTuple):
    """A relation between two mentions of one Doc, with the model's probability of it."""

    head: Span
    tail: Span
    label: str
    score: float

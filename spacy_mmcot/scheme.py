"""The label scheme, `scheme.yml`: what the labels mean, in the words of the people who use them.

    language: English
    domain: social media posts
    entities:
      PER: people and characters, real or fictional
      ORG: companies, clubs, teams, bands
    relations:
      member_of: {definition: a person plays or works for an organisation, head: PER, tail: ORG}
    guidelines: A mention is copied from the text; "#" and "@" are not part of it.
    examples: 24

An LLM is asked in these terms, and `mmcot_rel` takes from it which labels a pair may have.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic import StrictStr as Str
from srsly.ruamel_yaml import YAML
from srsly.ruamel_yaml.error import YAMLError

from .errors import Errors, MMCoTError
from .files import open_text
from .messages import explain, first_line, located
from .types import NO_RELATION, Post

_TYPICAL = 6  # mentions that a drafted definition names
_CURE = "Correct the scheme."
_RARE = 2  # a relation's types that occur in fewer relations are left out of a draft


def _check_filled(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Words = Annotated[Str, AfterValidator(_check_filled)]
Types = Annotated[list[Str], BeforeValidator(_as_list), Field(min_length=1)]


class RelationLabel(BaseModel):
    """A relation label: what it says of head and tail, and the entity labels that each may have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    definition: Words
    head: Types
    tail: Types


class Scheme(BaseModel):
    """Labels with their definitions, and further instructions for annotators.

    language and domain: what the texts are written in and what they are, as a prompt says it.
    entities: {label: definition}. relations: {label: RelationLabel}. guidelines: rules on where a
    mention begins and ends, and on doubtful cases. examples: how many labelled posts a prompt
    shows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    language: Words = "English"
    domain: Words = "texts"
    entities: dict[Str, Words]
    relations: dict[Str, RelationLabel] = {}
    guidelines: Str = ""
    examples: Annotated[StrictInt, Field(ge=0)] = 24

    @field_validator("entities")
    @classmethod
    def _check_entities(cls, entities: dict[str, str]) -> dict[str, str]:
        if not entities:
            raise ValueError("has no label")
        return entities

    @model_validator(mode="after")
    def _check_relations(self) -> Scheme:
        if NO_RELATION in self.relations:
            raise ValueError(f"relations.{NO_RELATION} stands for no relation, so no label has it")
        for label, relation in self.relations.items():
            for role in ("head", "tail"):
                for name in getattr(relation, role):
                    if name not in self.entities:
                        allowed = ", ".join(self.entities)
                        raise ValueError(
                            f"relations.{label}.{role} is {name!r}, but the entities are {allowed}"
                        )
        return self

    def legal(self) -> dict[str, dict[str, list[str]]]:
        """{head type: {tail type: [labels]}}, the form in which `mmcot_rel` takes it."""
        legal: dict[str, dict[str, list[str]]] = {}
        for label, relation in self.relations.items():
            for head in relation.head:
                for tail in relation.tail:
                    legal.setdefault(head, {}).setdefault(tail, []).append(label)
        return legal


def read_scheme(path: Path | str) -> Scheme:
    """Raises MMCoTError, with the line, for a file that is missing, is no YAML, or has a label
    without a definition, a relation between types that are no entity labels, or an unknown key."""
    path = Path(path)
    parsed = read_yaml(path)
    try:
        # Values of YAML's own types (dates, numbers) are no definitions, and are named as such.
        return Scheme.model_validate(_to_plain(parsed))
    except ValidationError as error:
        first = error.errors()[0]
        problem, expected = explain(error)
        if first["type"] == "value_error":
            words = first["msg"].removeprefix("Value error, ")
            problem = " ".join([".".join(map(str, first["loc"])), words]).strip()
            expected = "labels with definitions, and relations between entity labels"
        line = _find_line(parsed, [*first["loc"], *problem.partition(" ")[0].split(".")])
        raise located(path, line, problem, expected, _CURE) from None


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises MMCoTError, with the line, where it is none."""
    with open_text(path) as file:
        text = file.read()
    try:
        return YAML().load(text)
    except (YAMLError, ValueError, Warning) as error:  # a warning: of a key that is there twice
        mark = getattr(error, "problem_mark", None)
        line = 1 if mark is None else mark.line + 1
        problem = getattr(error, "problem", None) or f"it is not YAML ({first_line(error)})"
        raise located(path, line, str(problem), "YAML", "Correct the file.") from None


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _to_plain(item) for key, item in value.items()}
    return [_to_plain(item) for item in value] if isinstance(value, list) else value


def _find_line(parsed: Any, place: Iterable[Any]) -> int:
    """The line of the deepest key of `place` that the file has."""
    line = 1
    node = parsed
    for key in place:
        position = getattr(node, "lc", None)  # what the parser notes on lists and mappings
        if position is not None and isinstance(node, dict) and key in node:
            line = position.key(key)[0] + 1
            node = node[key]
    return line


def check_labels(scheme: Scheme, posts: Iterable[Post], path: Path) -> None:
    """Raises MMCoTError where a labelled post has a label, or a relation between types, that the
    scheme (read from `path`) does not know."""
    legal = scheme.legal()
    for post in posts:
        what, allowed = "", list(scheme.entities)
        entities = post.entities or []
        for entity in entities:
            if entity.label not in scheme.entities:
                what = f"the entity label {entity.label!r}"
        for relation in [] if what else post.relations or []:
            head, tail = entities[relation.head].label, entities[relation.tail].label
            if relation.label not in scheme.relations:
                what, allowed = f"the relation label {relation.label!r}", list(scheme.relations)
            elif relation.label not in legal.get(head, {}).get(tail, ()):
                known = scheme.relations[relation.label]
                what = f"{relation.label!r} from {head} to {tail}"
                allowed = [f"from {known.head} to {known.tail}"]
        if what:
            names = {"path": path, "post": post.id, "allowed": ", ".join(allowed)}
            raise MMCoTError(Errors.E110.format(what=what, **names))


def draft_scheme(posts: Iterable[Post]) -> Scheme:
    """A scheme for the labels of labelled posts. A label's definition names its most frequent
    mentions and how often it occurs; a relation's head and tail types are those that it was seen
    with. Posts of the split `unlabelled` are left out. Raises MMCoTError where no post is labelled.
    """
    mentions: dict[str, Counter[str]] = defaultdict(Counter)
    signatures: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for post in posts:
        if post.split == "unlabelled":
            continue
        entities = post.entities or []
        for entity in entities:
            mentions[entity.label][post.text[entity.start : entity.end]] += 1
        for relation in post.relations or []:
            types = entities[relation.head].label, entities[relation.tail].label
            signatures[relation.label][types] += 1
    if not mentions:
        raise MMCoTError(Errors.E111)
    return Scheme(
        entities={label: _describe_mentions(mentions[label]) for label in sorted(mentions)},
        relations={label: _describe_relations(signatures[label]) for label in sorted(signatures)},
    )


def _describe_mentions(found: Counter[str]) -> str:
    typical = ", ".join(
        json.dumps(name, ensure_ascii=False) for name, _ in found.most_common(_TYPICAL)
    )
    return f"such as {typical} ({found.total()} mentions)"


def _describe_relations(found: Counter[tuple[str, str]]) -> RelationLabel:
    kept = [types for types, count in found.most_common() if count >= _RARE] or list(found)
    heads, tails = (list(dict.fromkeys(types[i] for types in kept)) for i in (0, 1))
    shown = ", ".join(f"{head} to {tail}" for head, tail in kept)
    definition = f"seen from {shown} ({found.total()} relations)"
    return RelationLabel(definition=definition, head=heads, tail=tails)


def format_scheme(scheme: Scheme) -> str:
    """The scheme as YAML, to be read and edited."""
    yaml, text = YAML(), StringIO()
    yaml.width = 96
    yaml.default_flow_style = False
    yaml.dump(scheme.model_dump(), text)
    return text.getvalue()

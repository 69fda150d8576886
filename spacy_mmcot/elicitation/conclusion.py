"""The end of the chain of thought: entities and relations in the labels of the user's scheme.

An LLM is shown the scheme and labelled posts as examples, the same ones for every post, so that an
endpoint can cache the prompt's beginning. No text is shown with its own labels: a post that is an
example, or has an example's text, gets another set.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import Errors, MMCoTError
from ..messages import explain
from ..scheme import Scheme
from ..types import (
    NO_RELATION,
    SURENESS,
    Answers,
    ConcludedEntity,
    ConcludedRelation,
    Conclusion,
    Post,
    Sureness,
    make_text_key,
    split_text,
)
from .mentions import find_label, find_mention, fold_mention
from .replies import AnswerRejected

Model = TypeVar("Model", bound=BaseModel)
Item = TypeVar("Item", ConcludedEntity, ConcludedRelation)
TEXT = {"type": "string"}

# How many of several answers must agree for a sureness, as shares.
_AGREEMENT: tuple[tuple[float, Sureness], ...] = ((0.8, "high"), (0.5, "medium"), (0.0, "low"))

# An example of a long text is at most this fraction of what a question shows of one.
_EXAMPLE_SHARE = 8


class Examples:
    """Labelled posts that a prompt shows: train posts that have all labels. Of one with more than
    `part_tokens` tokens, about, a short part with as many of the labels as any.

    chosen: twice as many as are shown, by the keys of their texts: the second half stands in where
    one of the first may not. rendered: how prompts show them, by text and whether pairs are given.

    Raises MMCoTError where there are fewer examples than labels while more posts would be there.
    """

    def __init__(
        self, scheme: Scheme, posts: Iterable[Post], part_tokens: int | None = None
    ) -> None:
        self.scheme = scheme
        self.rendered: dict[tuple[str, bool], dict[str, str]] = {}
        labelled: dict[str, Post] = {}
        for post in posts:
            complete = not scheme.relations or post.relations is not None
            if post.split == "train" and post.is_fully_labelled and complete:
                labelled.setdefault(make_text_key(post.text), post)
        n_labels = len(scheme.relations) or len(scheme.entities)
        if scheme.examples and scheme.examples < n_labels <= len(labelled):
            raise MMCoTError(Errors.E112.format(examples=scheme.examples, labels=n_labels))
        chosen = _cover(labelled, scheme, 2 * scheme.examples)
        if part_tokens is not None:
            chosen = {key: _shorten(post, part_tokens) for key, post in chosen.items()}
        self.chosen = chosen

    def shown_to(self, post: Post | None) -> list[Post]:
        """At most `scheme.examples` posts, none of them with the post's text."""
        own = None if post is None else make_text_key(post.text)
        return [p for text, p in self.chosen.items() if text != own][: self.scheme.examples]


def _shorten(post: Post, tokens: int) -> Post:
    if len(split_text(post.text, tokens)) < 2:
        return post
    parts = [post.cut(*place) for place in split_text(post.text, max(1, tokens // _EXAMPLE_SHARE))]
    return max(parts, key=lambda part: len({e.label for e in part.entities or ()}))


def _cover(posts: Mapping[str, Post], scheme: Scheme, count: int) -> dict[str, Post]:
    """`count` posts: each has labels that those before it have least of, or no label."""
    labels: dict[str, set[str]] = {}
    for key, post in posts.items():
        found = post.relations if scheme.relations else post.entities
        labels[key] = {item.label for item in found or ()} or {""}
    left = sorted(posts, key=lambda key: hashlib.sha256(key.encode()).digest())
    seen: Counter[str] = Counter()
    chosen: dict[str, Post] = {}
    while left and len(chosen) < count:
        best = max(left, key=lambda key: max(1 / (1 + seen[label]) for label in labels[key]))
        left.remove(best)
        seen.update(labels[best])
        chosen[best] = posts[best]
    return chosen


def asked_pairs(post: Post) -> list[tuple[str, str]] | None:
    """Head and tail mentions of the pairs that a post asks about; None where it names none."""
    if post.pairs is None or not post.entities:
        return None
    mentions = _list_mentions(post)
    return [(mentions[head], mentions[tail]) for head, tail in post.pairs]


def _list_mentions(post: Post) -> list[str]:
    return [post.text[entity.start : entity.end] for entity in post.entities or ()]


def example_answer(post: Post, scheme: Scheme, pairs: bool) -> str:
    """A labelled post's answer as JSON, without reasoning. pairs: relations alone are asked for,
    and each of the post's pairs, where it names some, has its label."""
    answer: dict[str, Any] = {}
    mentions = _list_mentions(post)
    if not pairs:
        found = sorted(zip(post.entities or (), mentions, strict=True), key=lambda e: e[0].start)
        answer["entities"] = [{"mention": words, "label": e.label} for e, words in found]
    if scheme.relations:
        labels = {(r.head, r.tail): r.label for r in post.relations or ()}
        shown = post.pairs if pairs and post.pairs is not None else labels
        answer["relations"] = [
            {
                "head": mentions[head],
                "label": labels.get((head, tail), NO_RELATION),
                "tail": mentions[tail],
            }
            for head, tail in shown
        ]
    return json.dumps(answer, ensure_ascii=False)


def object_schema(**fields: Any) -> dict[str, Any]:
    """The JSON schema of an object in the strict form that endpoints enforce: every field is
    required, and none beyond."""
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def list_schema(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


def conclusion_schema(scheme: Scheme, pairs: bool) -> dict[str, Any]:
    """The JSON schema of an answer, labels and sureness as enums. pairs: the post's pairs are
    given, so that relations alone are asked for."""
    sure = {"type": "string", "enum": list(SURENESS)}
    fields: dict[str, Any] = {"reasoning": TEXT}
    if not pairs:
        label = {"type": "string", "enum": list(scheme.entities)}
        fields["entities"] = list_schema(object_schema(mention=TEXT, label=label, sure=sure))
    if scheme.relations:
        label = {"type": "string", "enum": _list_relation_labels(scheme, pairs)}
        relation = object_schema(head=TEXT, label=label, tail=TEXT, sure=sure)
        fields["relations"] = list_schema(relation)
    return object_schema(**fields)


def _list_relation_labels(scheme: Scheme, pairs: bool) -> list[str]:
    """What an answer may say of a pair, of given ones also that there is no relation."""
    return [*scheme.relations, *([NO_RELATION] if pairs else [])]


def validate(model: type[Model], value: Any) -> Model:
    """A value as a record. Fields beyond the asked ones are remarks of the LLM's, not a fault, and
    a field that is null is one that it left out. Raises AnswerRejected."""
    try:
        return model.model_validate(_drop_nulls(value), extra="ignore")
    except ValidationError as error:
        problem, expected = explain(error)
        raise AnswerRejected(f"{problem}, expected {expected}") from None


def _drop_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_drop_nulls(item) for item in value]
    if isinstance(value, dict):
        return {name: _drop_nulls(item) for name, item in value.items() if item is not None}
    return value


def read_conclusion(
    value: Any, post: Post, scheme: Scheme | None, offset: int = 0
) -> tuple[Conclusion, list[str]]:
    """An answer as a Conclusion with each mention located in the post's text, and what was dropped:
    labels outside the scheme, mentions that are not in the text, relations whose head or tail was
    not listed or has a label that the scheme does not allow there. scheme: None where any label
    counts. offset: added to each place, of a post that is cut from another. Raises AnswerRejected
    where the answer has another form or leaves out what the scheme asks for, or where none of
    several items is left.
    """
    if not isinstance(value, dict):
        raise AnswerRejected("a list, expected an object with entities or relations")
    answer, given = validate(Conclusion, value), asked_pairs(post) is not None
    asked = [] if scheme is None else conclusion_schema(scheme, given)["required"]
    if missing := [name for name in asked if name not in value and name != "reasoning"]:
        raise AnswerRejected(f"an object without {' and '.join(missing)}")
    entities = relations = None
    dropped: list[str] = []
    if answer.entities is not None:
        entities = _locate_entities(answer.entities, post.text, scheme, offset, dropped)
    if answer.relations is not None:
        ends = {
            (e.start + offset, post.text[e.start : e.end], e.label) for e in post.entities or ()
        }
        if entities is not None and not given:
            ends = {(e.start or 0, e.mention, e.label) for e in entities}
        relations = _locate_relations(answer.relations, ends, scheme, given, dropped)
    if entities is None and relations is None:
        raise AnswerRejected("an object without entities and relations")
    n_items = len(answer.entities or ()) + len(answer.relations or ())
    if n_items > 1 and not entities and not relations:
        raise AnswerRejected(f"none of {n_items} items can be used: {dropped[-1]}")
    return answer.model_copy(update={"entities": entities, "relations": relations}), dropped


def locate_conclusion(answers: Answers, post: Post) -> tuple[Answers, list[str]]:
    """The answers with each mention of the conclusion located in the post's text, as
    `read_conclusion` does, with any label; without the conclusion where none is in the text. And
    what was dropped."""
    if answers.conclusion is None:
        return answers, []
    found, dropped = None, list[str]()
    try:
        stated = answers.conclusion.model_dump(exclude_none=True)
        found, dropped = read_conclusion(stated, post, None)
    except AnswerRejected as rejected:
        dropped = [str(rejected)]
    return answers.model_copy(update={"conclusion": found}), dropped


def _locate_entities(
    entities: Sequence[ConcludedEntity],
    text: str,
    scheme: Scheme | None,
    offset: int,
    dropped: list[str],
) -> list[ConcludedEntity]:
    found: dict[tuple[int, int], ConcludedEntity] = {}
    after = 0
    for entity in entities:
        label = find_label(entity.label, None if scheme is None else [*scheme.entities])
        if label is None:
            dropped.append(f"the entity label {entity.label!r} is not in the scheme")
            continue
        places = find_mention(entity.mention, text)
        if entity.start is not None and text.startswith(entity.mention, entity.start):
            places = [(entity.start, entity.start + len(entity.mention))]
        free = [place for place in places if _free(place, found)]
        if not free:
            why = "overlaps another, or is listed too often" if places else "is not in the text"
            dropped.append(f"the mention {entity.mention!r} {why}")
            continue
        # Mentions come in text order, so of several places the next one is meant.
        start, end = next((p for p in free if p[0] >= after), free[0])
        after = max(after, end)
        update = {"mention": text[start:end], "label": label, "start": start + offset}
        found[start, end] = entity.model_copy(update=update)
    return [found[place] for place in sorted(found)]


def _free(place: tuple[int, int], taken: Iterable[tuple[int, int]]) -> bool:
    return all(place[1] <= start or end <= place[0] for start, end in taken)


def _locate_relations(
    relations: Sequence[ConcludedRelation],
    mentions: Iterable[tuple[int, str, str]],
    scheme: Scheme | None,
    given: bool,
    dropped: list[str],
) -> list[ConcludedRelation]:
    """mentions: start, surface and label of each that a relation may join."""
    ends: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
    for mention in sorted(mentions):
        ends[fold_mention(mention[1])].append(mention)
    found: dict[tuple[int, int], ConcludedRelation] = {}
    allowed = None if scheme is None else _list_relation_labels(scheme, given)
    for relation in relations:
        label = find_label(relation.label, allowed)
        if label is None:
            dropped.append(f"the relation label {relation.label!r} is not in the scheme")
            continue
        joins = None if scheme is None or given else scheme.relations[label]
        pairs = [
            (head, tail)
            for head in ends[fold_mention(relation.head)]
            for tail in ends[fold_mention(relation.tail)]
            if head != tail
            and (joins is None or (head[2] in joins.head and tail[2] in joins.tail))
            and relation.head_start in (None, head[0])
            and relation.tail_start in (None, tail[0])
        ]
        if not pairs:
            joined = f"{relation.head!r} and {relation.tail!r}, which are not both listed"
            dropped.append(f"the relation {label} joins {joined} with labels that it allows")
            continue
        # Of several places of one mention the nearest pair that has no relation yet is meant.
        pairs.sort(key=lambda p: ((p[0][0], p[1][0]) in found, abs(p[0][0] - p[1][0]), p))
        (head_start, head, _), (tail_start, tail, _) = pairs[0]
        if (head_start, tail_start) not in found and (given or label != NO_RELATION):
            update = dict(head=head, head_start=head_start, tail=tail, tail_start=tail_start)
            update["label"] = label
            found[head_start, tail_start] = relation.model_copy(update=update)
    return list(found.values())


def find_gaps(answers: Answers, length: int) -> list[tuple[int, int]]:
    """The stretches (start, end) of a text of `length` characters that its conclusion is not about,
    for want of an answer."""
    parts = answers.conclusion and answers.conclusion.parts
    places = [(0, 0), *parts, (length, length)] if parts else []
    return [(a[1], b[0]) for a, b in pairwise(places) if a[1] < b[0]]


def join_conclusions(places: list[tuple[int, int]], values: Sequence[Conclusion]) -> Conclusion:
    """The conclusions on the parts of a text, in their order, as one. places: where these lie."""
    lists = {
        name: [x for value in values for x in getattr(value, name) or ()]
        for name in ("entities", "relations")
        if any(getattr(value, name) is not None for value in values)
    }
    reasoning = " ".join(value.reasoning for value in values).strip()
    return Conclusion(reasoning=reasoning, parts=places, **lists)


def merge_conclusions(variants: Sequence[Conclusion]) -> Conclusion | None:
    """Several located answers to one question as one: an item that most of them give, with the
    share that agrees as its sureness. None without an answer; a single one stays as it is."""
    if len(variants) < 2:
        return variants[0] if variants else None
    entity_lists = [v.entities for v in variants if v.entities is not None]
    relation_lists = [v.relations for v in variants if v.relations is not None]
    entities: dict[tuple[int, int], ConcludedEntity] = {}
    for entity in _count_votes(entity_lists, "start", "mention", "label"):
        start = entity.start or 0
        place = (start, start + len(entity.mention))
        if _free(place, entities):
            entities[place] = entity
    relations: dict[tuple[int | None, int | None], ConcludedRelation] = {}
    for relation in _count_votes(relation_lists, "head_start", "tail_start", "label"):
        pair = (relation.head_start, relation.tail_start)
        first = relations.get(pair)
        if first is None:
            relations[pair] = relation.model_copy(update={"or_label": None})
        elif first.or_label is None:
            relations[pair] = first.model_copy(update={"or_label": relation.label})
    return Conclusion(
        reasoning=variants[0].reasoning,
        entities=[entities[place] for place in sorted(entities)] if entity_lists else None,
        relations=list(relations.values()) if relation_lists else None,
        parts=max((v.parts or [] for v in variants), key=len) or None,
    )


def _count_votes(answers: Sequence[Sequence[Item]], *names: str) -> Iterator[Item]:
    """Each item by these fields, with the share of the answers that have it as its sureness."""
    key = attrgetter(*names)
    items = {key(item): item for answer in answers for item in answer}
    votes = Counter(key(item) for answer in answers for item in answer)
    for found, count in sorted(votes.items(), key=lambda vote: (-vote[1], vote[0])):
        sure = next(sure for least, sure in _AGREEMENT if count / len(answers) >= least)
        yield items[found].model_copy(update={"sure": sure})

"""The end of the chain of thought: entities and relations in the labels of the user's scheme.

An LLM is shown the scheme and labelled posts as examples, the same ones for every post, so that an
endpoint can cache the prompt's beginning. No text is shown with its own labels: a post that is an
example, or has an example's text, gets another set.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError

from ..errors import Errors, MMCoTError, explain
from ..scheme import Scheme
from ..types import (
    NO_RELATION,
    SURENESS,
    Answers,
    ConcludedEntity,
    ConcludedRelation,
    Conclusion,
    Post,
    PostRelation,
    Sureness,
)
from .replies import AnswerRejected

_TEXT = {"type": "string"}
_NOTHING = ""  # counts like a label, so that examples show posts without an entity or relation

# How many of several answers must agree for a sureness, as shares.
_AGREEMENT: tuple[tuple[float, Sureness], ...] = ((0.8, "high"), (0.5, "medium"), (0.0, "low"))


class Examples:
    """Labelled posts that a prompt shows.

    posts: train posts with their labels; those of other splits and unlabelled ones are left out.
    Raises MMCoTError where there are fewer examples than labels while more posts would be there.
    """

    def __init__(self, scheme: Scheme, posts: Iterable[Post]) -> None:
        self.scheme = scheme
        labelled: dict[str, Post] = {}
        for post in posts:
            if post.split == "train" and is_labelled(post, scheme):
                labelled.setdefault(text_key(post), post)
        n_labels = len(scheme.relations) or len(scheme.entities)
        if scheme.examples and scheme.examples < n_labels <= len(labelled):
            raise MMCoTError(Errors.E112.format(examples=scheme.examples, labels=n_labels))
        # Twice as many as are shown: the second half stands in where one of the first may not.
        self._ordered = _cover(list(labelled.values()), scheme, 2 * scheme.examples)

    def shown_to(self, post: Post | None) -> list[Post]:
        """At most `scheme.examples` posts, none of them with the post's text."""
        own = None if post is None else text_key(post)
        shown = self._ordered[: self.scheme.examples]
        if any(text_key(example) == own for example in shown):
            shown = [p for p in self._ordered if text_key(p) != own][: self.scheme.examples]
        return shown


def is_labelled(post: Post, scheme: Scheme) -> bool:
    return post.entities is not None and (not scheme.relations or post.relations is not None)


def text_key(post: Post) -> str:
    """What two posts of one text share: its letters and digits, whatever their case."""
    return "".join(re.findall(r"\w", post.text.lower())) or post.text


def _cover(posts: Sequence[Post], scheme: Scheme, count: int) -> list[Post]:
    """`count` posts, of which each brings labels that those before it have least of."""
    labels = {id(post): _labels(post, scheme) for post in posts}
    left = sorted(posts, key=lambda post: hashlib.sha256(text_key(post).encode()).digest())
    seen: Counter[str] = Counter()
    chosen: list[Post] = []
    while left and len(chosen) < count:
        gains = [max(1 / (1 + seen[label]) for label in labels[id(post)]) for post in left]
        best = left.pop(gains.index(max(gains)))
        seen.update(labels[id(best)])
        chosen.append(best)
    return chosen


def _labels(post: Post, scheme: Scheme) -> set[str]:
    if scheme.relations:
        found = {relation.label for relation in post.relations or ()}
    else:
        found = {entity.label for entity in post.entities or ()}
    return found or {_NOTHING}


def asked_pairs(post: Post) -> list[tuple[str, str]] | None:
    """Head and tail mentions of the pairs that a post asks about; None where it names none."""
    if post.pairs is None or not post.entities:
        return None
    return [(_mention(post, head), _mention(post, tail)) for head, tail in post.pairs]


def _mention(post: Post, index: int) -> str:
    entity = (post.entities or [])[index]
    return post.text[entity.start : entity.end]


def example_answer(post: Post, scheme: Scheme, pairs: bool) -> str:
    """A labelled post's answer as JSON, without reasoning. pairs: its pairs are given, and each has
    its label."""
    answer: dict[str, Any] = {}
    entities = sorted(enumerate(post.entities or []), key=lambda item: item[1].start)
    if not pairs:
        answer["entities"] = [{"mention": _mention(post, i), "label": e.label} for i, e in entities]
    if scheme.relations:
        relations = post.relations or []
        if pairs:
            known = {(relation.head, relation.tail): relation for relation in relations}
            relations = [
                known.get(pair) or PostRelation(head=pair[0], tail=pair[1], label=NO_RELATION)
                for pair in post.pairs or ()
            ]
        answer["relations"] = [
            {"head": _mention(post, r.head), "label": r.label, "tail": _mention(post, r.tail)}
            for r in relations
        ]
    return json.dumps(answer, ensure_ascii=False)


def conclusion_schema(scheme: Scheme, pairs: bool) -> dict[str, Any]:
    """The JSON schema of an answer, labels and sureness as enums. pairs: the post's pairs are
    given, so that relations alone are asked for."""
    sure = {"type": "string", "enum": list(SURENESS)}
    fields: dict[str, Any] = {"reasoning": _TEXT}
    if not pairs:
        label = {"type": "string", "enum": list(scheme.entities)}
        fields["entities"] = _array(mention=_TEXT, label=label, sure=sure)
    if scheme.relations:
        labels = [*scheme.relations, *([NO_RELATION] if pairs else [])]
        label = {"type": "string", "enum": labels}
        fields["relations"] = _array(head=_TEXT, label=label, tail=_TEXT, sure=sure)
    return _strict(fields)


def _strict(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def _array(**fields: Any) -> dict[str, Any]:
    return {"type": "array", "items": _strict(fields)}


def read_conclusion(
    value: Any, post: Post, scheme: Scheme | None, dropped: list[str]
) -> Conclusion:
    """An answer as a Conclusion with each mention located in the post's text.

    What has a label outside the scheme, a mention that is not in the text, or a head or tail that
    was not listed is left out and described in `dropped`. scheme: None where any label counts.
    Raises AnswerRejected where the answer has another form, or where none of several items is left.
    """
    if not isinstance(value, dict):
        raise AnswerRejected("a list, expected an object with entities or relations")
    try:
        # Fields beyond the asked ones are remarks of the model's.
        answer = Conclusion.model_validate(
            {name: value[name] for name in Conclusion.model_fields if name in value}
        )
    except ValidationError as error:
        problem, expected = explain(error)
        raise AnswerRejected(f"{problem}, expected {expected}") from None
    pairs = asked_pairs(post)
    entities = relations = None
    if answer.entities is not None:
        entities = _located_entities(answer.entities, post.text, scheme, dropped)
    if answer.relations is not None:
        ends = _ends(post, entities, given=pairs is not None)
        relations = _located_relations(answer.relations, ends, scheme, pairs is not None, dropped)
    if entities is None and relations is None:
        raise AnswerRejected("an object without entities and relations")
    n_items = len(answer.entities or ()) + len(answer.relations or ())
    if n_items > 1 and not entities and not relations:
        raise AnswerRejected(f"none of {n_items} items can be used: {dropped[-1]}")
    return answer.model_copy(update={"entities": entities, "relations": relations})


def locate_conclusion(answers: Answers, post: Post) -> Answers:
    """The answers with each mention of the conclusion located in the post's text, as
    `read_conclusion` does, with any label; without the conclusion where none is in the text."""
    if answers.conclusion is None:
        return answers
    try:
        stated = answers.conclusion.model_dump(exclude_none=True)
        found = read_conclusion(stated, post, None, [])
    except AnswerRejected:
        found = None
    return answers.model_copy(update={"conclusion": found})


def _located_entities(
    entities: Sequence[ConcludedEntity], text: str, scheme: Scheme | None, dropped: list[str]
) -> list[ConcludedEntity]:
    found: list[ConcludedEntity] = []
    taken: list[tuple[int, int]] = []
    after = 0
    for entity in entities:
        if scheme is not None and entity.label not in scheme.entities:
            dropped.append(f"the entity label {entity.label!r} is not in the scheme")
            continue
        places = [p for p in _places(entity, text) if _free(p, taken)]
        if not places:
            dropped.append(f"the mention {entity.mention!r} is not in the text")
            continue
        # Mentions come in text order, so of several places the next one is meant.
        start, end = next((p for p in places if p[0] >= after), places[0])
        after = max(after, end)
        taken.append((start, end))
        found.append(entity.model_copy(update={"mention": text[start:end], "start": start}))
    return sorted(found, key=lambda entity: entity.start or 0)


def _free(place: tuple[int, int], taken: Iterable[tuple[int, int]]) -> bool:
    return all(place[1] <= start or end <= place[0] for start, end in taken)


def _places(entity: ConcludedEntity, text: str) -> list[tuple[int, int]]:
    if entity.start is not None and text.startswith(entity.mention, entity.start):
        return [(entity.start, entity.start + len(entity.mention))]
    return find_mention(entity.mention, text)


def find_mention(mention: str, text: str) -> list[tuple[int, int]]:
    """Where a mention stands in a text, (start, end) characters: as it is spelt, as words of their
    own; else inside words; else whatever the case, white space and leading # or @."""
    words = mention.strip()
    letters = "".join(words.split()).lstrip("#@")
    if not letters:
        return []
    before = r"(?<!\w)" if words[0].isalnum() else ""
    behind = r"(?!\w)" if words[-1].isalnum() else ""
    loose = r"\s*".join(map(re.escape, letters))
    for pattern, flags in (
        (before + re.escape(words) + behind, 0),
        (re.escape(words), 0),
        (rf"(?<!\w){loose}(?!\w)", re.IGNORECASE),
        (loose, re.IGNORECASE),
    ):
        if places := [match.span() for match in re.finditer(pattern, text, flags)]:
            return places
    return []


# Where each mention that a relation may join stands, (start, surface), by its letters.
_Ends = dict[str, list[tuple[int, str]]]


def _letters(mention: str) -> str:
    return "".join(mention.split()).lstrip("#@").lower()


def _ends(post: Post, entities: Sequence[ConcludedEntity] | None, given: bool) -> _Ends:
    if given or entities is None:
        places = {(e.start, post.text[e.start : e.end]) for e in post.entities or ()}
    else:
        places = {(e.start or 0, e.mention) for e in entities}
    ends: _Ends = {}
    for start, surface in sorted(places):
        ends.setdefault(_letters(surface), []).append((start, surface))
    return ends


def _located_relations(
    relations: Sequence[ConcludedRelation],
    ends: _Ends,
    scheme: Scheme | None,
    given: bool,
    dropped: list[str],
) -> list[ConcludedRelation]:
    found: dict[tuple[int, int], ConcludedRelation] = {}
    for relation in relations:
        none = relation.label == NO_RELATION
        if scheme is not None and not (none and given) and relation.label not in scheme.relations:
            dropped.append(f"the relation label {relation.label!r} is not in the scheme")
            continue
        pairs = [
            (head, tail)
            for head in ends.get(_letters(relation.head), ())
            for tail in ends.get(_letters(relation.tail), ())
            if head != tail
            and relation.head_start in (None, head[0])
            and relation.tail_start in (None, tail[0])
        ]
        if not pairs:
            dropped.append(
                f"the relation {relation.label} joins {relation.head!r} and {relation.tail!r}, "
                "which are not both listed"
            )
            continue
        # Of several places of one mention the nearest pair that has no relation yet is meant.
        pairs.sort(key=lambda p: ((p[0][0], p[1][0]) in found, abs(p[0][0] - p[1][0]), p))
        (head_start, head), (tail_start, tail) = pairs[0]
        if (head_start, tail_start) not in found and not (none and not given):
            found[head_start, tail_start] = relation.model_copy(
                update={
                    **{"head": head, "head_start": head_start},
                    **{"tail": tail, "tail_start": tail_start},
                }
            )
    return list(found.values())


def merge_conclusions(variants: Sequence[Conclusion]) -> Conclusion | None:
    """Several located answers to one question as one: an item that most of them give, with the
    share that agrees as its sureness. None without an answer; a single one stays as it is."""
    if len(variants) < 2:
        return variants[0] if variants else None
    entities = _voted_entities([v.entities for v in variants if v.entities is not None])
    relations = _voted_relations([v.relations for v in variants if v.relations is not None])
    return Conclusion(reasoning=variants[0].reasoning, entities=entities, relations=relations)


def _sureness(share: float) -> Sureness:
    return next(sure for least, sure in _AGREEMENT if share >= least)


def _voted_entities(each: Sequence[list[ConcludedEntity]]) -> list[ConcludedEntity] | None:
    if not each:
        return None
    votes = Counter((e.start or 0, e.mention, e.label) for entities in each for e in entities)
    kept: list[ConcludedEntity] = []
    taken: list[tuple[int, int]] = []
    for (start, mention, label), count in sorted(votes.items(), key=lambda v: (-v[1], v[0])):
        place = (start, start + len(mention))
        if _free(place, taken):
            taken.append(place)
            sure = _sureness(count / len(each))
            kept.append(ConcludedEntity(mention=mention, label=label, sure=sure, start=start))
    return sorted(kept, key=lambda entity: entity.start or 0)


def _voted_relations(each: Sequence[list[ConcludedRelation]]) -> list[ConcludedRelation] | None:
    if not each:
        return None
    votes = Counter((r.head_start, r.tail_start, r.label) for rels in each for r in rels)
    texts = {(r.head_start, r.tail_start): r for rels in each for r in rels}
    kept: dict[tuple[int | None, int | None], ConcludedRelation] = {}
    for (head, tail, label), count in sorted(votes.items(), key=lambda v: (-v[1], str(v[0]))):
        first = kept.get((head, tail))
        if first is None:
            update = {"label": label, "sure": _sureness(count / len(each)), "or_label": None}
            kept[head, tail] = texts[head, tail].model_copy(update=update)
        elif first.or_label is None:
            kept[head, tail] = first.model_copy(update={"or_label": label})
    return list(kept.values())

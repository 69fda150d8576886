"""Which texts are most worth a person's look: where student, LLM and gold labels disagree, where
they are unsure, and where names are new.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from ..corpus.extensions import get_image
from ..types import DEFAULT_CONFIDENCE, NO_RELATION, Entity, Post, PostRelation, Split
from .conclusions import collect_conclusions
from .evaluate import run_pipeline
from .predictions import Predicted, SpanRelation

Order = Literal["doubt", "random"]
# An entity's (start, end, label), or a relation's head, tail and label; in characters.
Key = tuple[Any, ...]
# Whether a mention or relation is right, from 0 to 1, by who says so.
Votes = dict[str, float]

STUDENT, LLM, GOLD = "student", "LLM", "gold"
_NEW = 1.25  # how much more a doubt counts about a name that no labelled text has
_MISSING = 0.5  # how much the student's doubt counts whether it has found all there is
_WORDS_TO_OPEN = 10  # what opening a text takes a person, in words read


@dataclass(frozen=True)
class Review:
    """A text to look at: a post with labels as they are now, or as student and LLM propose.

    by: who proposes each entity. doubts: how doubtful the text's labels are, 1 for a mention that
    one finds and the other does not; "" stands for missing mentions.
    """

    post: Post
    doc: Doc
    by: list[str]
    doubts: Mapping[str, float]


def choose_reviews(
    nlp: Language,
    examples: Sequence[Example],
    splits: Sequence[Split],
    limit: int,
    *,
    skip: Collection[str] = (),
    order: Order = "doubt",
    seed: int = 0,
) -> list[Review]:
    """At most `limit` texts, the most doubtful for the time that they take to read first, and
    spread over the labels that are doubtful; or at random.

    examples: as `spacy_mmcot.Corpus.v1` reads them. splits: one for each. skip: ids of posts that
    are left out, as empty texts are.
    """
    _, found = run_pipeline(nlp, list(examples))
    docs = [example.reference for example in examples]
    concluded = collect_conclusions(docs)
    known = {doc.text[e.start : e.end].casefold() for doc in found for e in doc.gold or ()}
    reviews = []
    for doc, split, one, llm in zip(docs, splits, found, concluded, strict=True):
        if one.id in skip or not doc.text.strip():
            continue
        votes: dict[Key, Votes] = defaultdict(dict)
        voters = {STUDENT}
        _vote(votes, STUDENT, {(e.start, e.end, e.label): e.score for e in one.entities})
        _vote(votes, STUDENT, {_key_of(r): r.score for r in one.relations or ()})
        if llm is not None:
            voters.add(LLM)
            _vote(votes, LLM, {k: DEFAULT_CONFIDENCE[sure] for k, sure in llm.entities.items()})
            _vote(votes, LLM, {_key_of(r): None for r in llm.record.relations or ()})
        if one.gold is not None:
            voters.add(GOLD)
            _vote(votes, GOLD, {(e.start, e.end, e.label): None for e in one.gold})
            _vote(votes, GOLD, {_key_of(r): None for r in one.gold_relations or ()})
        doubts: dict[str, float] = defaultdict(float)
        for key, said in votes.items():
            if len(key) == 5 and one.relations is None:
                continue  # the student says nothing of relations
            belief = sum(said.values()) / len(voters)
            new = len(key) == 3 and doc.text[key[0] : key[1]].casefold() not in known
            doubts[key[-1]] += 4 * belief * (1 - belief) * (_NEW if new else 1)
        # Of all of a long text it is never certain that nothing is missing.
        if one.weakest is not None and one.gold is None:
            doubts[""] = _MISSING * (1 - one.weakest)
        reviews.append(_make_review(doc, one, split, votes, doubts))
    if order == "random":
        return random.Random(seed).sample(reviews, min(limit, len(reviews)))
    return spread_reviews(reviews, limit)


def spread_reviews(reviews: Sequence[Review], limit: int) -> list[Review]:
    """The most doubtful texts first, where doubt about a label counts the less, the more of it has
    been chosen."""
    labels = sorted({label for review in reviews for label in review.doubts})
    doubts = numpy.zeros((len(reviews), len(labels)))
    for row, review in zip(doubts, reviews, strict=True):
        row[:] = [review.doubts.get(label, 0.0) for label in labels]
    cost = numpy.array([_WORDS_TO_OPEN + len(review.doc) for review in reviews], dtype="float64")
    chosen: list[int] = []
    taken = numpy.zeros(len(labels))
    for _ in range(min(limit, len(reviews))):
        gain = doubts @ (1 / numpy.sqrt(1 + taken)) / cost
        gain[chosen] = -1.0
        best = int(gain.argmax())
        chosen.append(best)
        taken += doubts[best]
    return [reviews[i] for i in chosen]


def _vote(votes: dict[Key, Votes], who: str, said: Mapping[Key, float | None]) -> None:
    for key, score in said.items():
        votes[key][who] = 1.0 if score is None else score


def _key_of(relation: SpanRelation) -> Key:
    return *relation.head, *relation.tail, relation.label


def _make_review(
    doc: Doc,
    one: Predicted,
    split: Split,
    votes: Mapping[Key, Votes],
    doubts: Mapping[str, float],
) -> Review:
    """The text with its gold labels, or else with the student's and those of the LLM's that none of
    them overlaps."""
    order = (STUDENT, LLM) if one.gold is None else (GOLD,)
    kept: dict[tuple[int, int], Key] = {}
    for who in order:
        for key in (k for k, said in votes.items() if len(k) == 3 and who in said):
            if all(key[1] <= start or end <= key[0] for start, end in kept):
                kept[key[0], key[1]] = key
    places = sorted(kept)
    index = {place: i for i, place in enumerate(places)}
    relations: dict[tuple[int, int], str] = {}
    for who in order:
        for arc in (k for k, said in votes.items() if len(k) == 5 and who in said):
            head, tail = index.get(arc[:2]), index.get(arc[2:4])
            if head is not None and tail is not None and arc[-1] != NO_RELATION:
                relations.setdefault((head, tail), arc[-1])
    image = get_image(doc)
    post = Post(
        id=one.id,
        text=doc.text,
        image=image if isinstance(image, str) else None,
        # Labels of unlabelled posts are never read.
        split="train" if split == "unlabelled" else split,
        entities=[Entity(start=s, end=e, label=kept[s, e][2]) for s, e in places],
        relations=None
        if one.relations is None and one.gold_relations is None
        else [PostRelation(head=h, tail=t, label=x) for (h, t), x in sorted(relations.items())],
    )
    return Review(post, doc, [" ".join(sorted(votes[kept[p]])) for p in places], dict(doubts))

"""Predictions made by hand and at random, for what reads predictions files."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from spacy_mmcot.evaluation.predictions import FoundEntity, Predicted, SpanRelation
from spacy_mmcot.types import Entity

Mention = tuple[int, int, str]
# Twelve words of four letters: word i stands at the characters 5 * i to 5 * i + 4.
TEXT = " ".join(f"w{i:03}" for i in range(12))
LABELS = ("LOC", "ORG", "PER")


def word(first: int, last: int | None = None, label: str = "PER") -> Mention:
    """The mention from one word of TEXT to another, that one included."""
    return 5 * first, 5 * (first if last is None else last) + 4, label


def predicted(
    doc_id: str,
    gold: Iterable[Mention] | None,
    found: Iterable[tuple[Any, ...]],
    *,
    text: str = TEXT,
    **more: Any,
) -> Predicted:
    """found: (start, end, label) or (start, end, label, score)."""
    return Predicted(
        id=doc_id,
        text=text,
        words=len(text.split()),
        gold=None if gold is None else [_entity(mention) for mention in gold],
        entities=[
            FoundEntity(start=s, end=e, label=label, score=score[0] if score else None)
            for s, e, label, *score in found
        ],
        **more,
    )


def _entity(mention: Mention) -> Entity:
    start, end, label = mention
    return Entity(start=start, end=end, label=label)


def related(head: Mention, tail: Mention, label: str = "at", score: Any = None) -> SpanRelation:
    return SpanRelation(head=head[:2], tail=tail[:2], label=label, score=score)


def at_random(n: int, seed: int, right: float = 0.7, gold_seed: int = 0) -> list[Predicted]:
    """Docs whose gold mentions depend on `gold_seed` alone, each found with the probability
    `right`, taken for another or overlooked, with a doubt that lowers the Doc's confidence."""
    gold_dice, dice = random.Random(gold_seed), random.Random(seed)
    docs = []
    for number in range(n):
        gold, found, confidence = [], [], 1.0
        for first in range(0, 12, 3):
            if gold_dice.random() < 0.5:
                gold.append(word(first, label=gold_dice.choice(LABELS)))
                sure = dice.random()
                confidence *= 0.5 + 0.5 * sure
                if dice.random() < right * (0.5 + 0.5 * sure):
                    found.append(gold[-1])
                elif dice.random() < 0.5:
                    found.append(word(first, first + dice.randint(0, 1), dice.choice(LABELS)))
        docs.append(predicted(f"post-{number}", gold, found, confidence=confidence))
    return docs

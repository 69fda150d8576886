"""Entities that are almost right: their boundaries alone, their label on other boundaries, and
which label is taken for which. Docs that nobody has labelled do not count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy

from ..types import NO_RELATION, Entity
from .predictions import Predicted
from .scores import prf


def boundary_scores(docs: Iterable[Predicted]) -> dict[str, float]:
    """`ents_boundary_p`, `_r`, `_f`: a mention is right where its offsets are, whatever its
    label."""
    total = numpy.zeros(3, dtype="int64")
    for doc in docs:
        if doc.gold is not None:
            found, gold = ({(e.start, e.end) for e in side} for side in (doc.entities, doc.gold))
            total += (len(found & gold), len(found), len(gold))
    return prf("ents_boundary", total)


def partial_scores(docs: Iterable[Predicted]) -> dict[str, float]:
    """`ents_partial_p`, `_r`, `_f`: a mention is right where one on the other side has its label
    and shares a character with it. Each counts once: right is the greatest number of such pairs
    that can be made with every mention in one pair at most."""
    total = numpy.zeros(3, dtype="int64")
    for doc in docs:
        if doc.gold is not None:
            labels = {e.label for e in doc.gold}
            right = sum(_most_pairs(doc.entities, doc.gold, label) for label in labels)
            total += (right, len(doc.entities), len(doc.gold))
    return prf("ents_partial", total)


def entity_confusion(docs: Iterable[Predicted]) -> dict[str, dict[str, int]]:
    """Gold label -> predicted label -> number of mentions. A gold and a predicted mention make a
    pair where they share a character; of several the longest overlap goes first, then the same
    label, then the order of the text. A mention left alone was missed, or is spurious: it stands
    against "None"."""
    table: dict[str, dict[str, int]] = {}
    for doc in docs:
        if doc.gold is not None:
            for gold, found in _paired_labels(doc.gold, doc.entities):
                row = table.setdefault(gold, {})
                row[found] = row.get(found, 0) + 1
    return {gold: dict(sorted(row.items())) for gold, row in sorted(table.items())}


def _most_pairs(found: Sequence[Entity], gold: Sequence[Entity], label: str) -> int:
    """Mentions of a side do not overlap, so taking the first pair in the text is never worse than
    leaving it."""
    left, right = (
        sorted((e.start, e.end) for e in side if e.label == label) for side in (found, gold)
    )
    pairs = i = j = 0
    while i < len(left) and j < len(right):
        if left[i][0] < right[j][1] and right[j][0] < left[i][1]:
            pairs, i, j = pairs + 1, i + 1, j + 1
        elif left[i][1] <= right[j][0]:
            i += 1
        else:
            j += 1
    return pairs


def _paired_labels(gold: Sequence[Entity], found: Sequence[Entity]) -> list[tuple[str, str]]:
    overlaps = [
        (-shared, g.label != f.label, g.start, f.start, i, j)
        for i, g in enumerate(gold)
        for j, f in enumerate(found)
        if (shared := min(g.end, f.end) - max(g.start, f.start)) > 0
    ]
    left, right = dict(enumerate(gold)), dict(enumerate(found))
    pairs = []
    for *_, i, j in sorted(overlaps):
        if i in left and j in right:
            pairs.append((left.pop(i).label, right.pop(j).label))
    pairs += [(entity.label, NO_RELATION) for entity in left.values()]
    pairs += [(NO_RELATION, entity.label) for entity in right.values()]
    return pairs

"""Counts of findings against gold, and the scores computed from them.

Counts are arrays whose last axis is (right, found, gold): right items are both found and gold. Docs
without gold labels do not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from ..types import NO_RELATION, Entity
from .predictions import Predicted, SpanRelation

Counts = NDArray[numpy.int64]
Mention = tuple[int, int, str]
Span = tuple[int, int]
TypedRelation = tuple[Span, str | None, Span, str | None, str]
# What was found in a Doc, and what is gold. The label is the last element of an item.
Sides = tuple[set[Any], set[Any]]


def get_mentions(entities: Iterable[Entity] | None) -> set[Mention]:
    """(start, end, label) of each, the empty set for None."""
    return {(e.start, e.end, e.label) for e in entities or ()}


def get_typed_relations(
    relations: Iterable[SpanRelation], entities: Iterable[Entity]
) -> set[TypedRelation]:
    """(head, its label, tail, its label, label) of each; a span that is none of the entities has
    the label None."""
    labels = {(e.start, e.end): e.label for e in entities}
    return {(r.head, labels.get(r.head), r.tail, labels.get(r.tail), r.label) for r in relations}


def pair_entities(docs: Iterable[Predicted]) -> Iterator[Sides]:
    """The mentions of each Doc: one is right where its offsets and its label are. Two empty sets
    for a Doc without gold labels."""
    for doc in docs:
        labelled = doc.gold is not None
        yield (get_mentions(doc.entities), get_mentions(doc.gold)) if labelled else (set(), set())


def pair_relations(docs: Iterable[Predicted]) -> Iterator[Sides]:
    """As `pair_entities`, end to end: a relation is right where its label and the offsets and
    labels of both its mentions are."""
    for doc in docs:
        if doc.gold_relations is None:
            yield set(), set()
        else:
            yield (
                get_typed_relations(doc.relations or (), doc.entities),
                get_typed_relations(doc.gold_relations, doc.gold or ()),
            )


def count_entities(docs: Iterable[Predicted]) -> Counts:
    """(docs, 3), of `pair_entities`."""
    return _count(pair_entities(docs))


def count_relations(docs: Iterable[Predicted]) -> Counts:
    """(docs, 3), of `pair_relations`."""
    return _count(pair_relations(docs))


def count_labels(pairs: Iterable[Sides]) -> dict[str, Counts]:
    """(3,) for each label, over all pairs."""
    totals: dict[str, Counts] = defaultdict(lambda: numpy.zeros(3, dtype="int64"))
    for found, gold in pairs:
        for item in found | gold:
            totals[item[-1]] += (item in found & gold, item in found, item in gold)
    return totals


def _count(pairs: Iterable[Sides]) -> Counts:
    """(pairs, 3)"""
    rows = [(len(found & gold), len(found), len(gold)) for found, gold in pairs]
    return numpy.array(rows, dtype="int64").reshape(-1, 3)


def compute_f(counts: NDArray[Any]) -> NDArray[numpy.float64]:
    """Micro F1 of counts of any shape (..., 3); 0.0 where nothing is found and nothing gold."""
    right, both = 2.0 * counts[..., 0], counts[..., 1] + counts[..., 2]
    return numpy.divide(right, both, out=numpy.zeros_like(right), where=both > 0)


def compute_prf(prefix: str, counts: NDArray[Any]) -> dict[str, float]:
    """Precision, recall and F1 of one row of counts, (3,), as `PREFIX_p`, `_r` and `_f`; 0.0 where
    nothing is found, or nothing gold."""
    right, found, gold = counts.tolist()
    return {
        f"{prefix}_p": right / found if found else 0.0,
        f"{prefix}_r": right / gold if gold else 0.0,
        f"{prefix}_f": float(compute_f(counts)),
    }


def score_items(prefix: str, pairs: Iterable[Sides]) -> dict[str, Any]:
    """`PREFIX_p`, `_r`, `_f`, and `PREFIX_per_type`: label -> `p`, `r`, `f`."""
    pairs = list(pairs)
    per_type = {
        label: {key[1:]: score for key, score in compute_prf("", counts).items()}
        for label, counts in count_labels(pairs).items()
    }
    return {**compute_prf(prefix, _count(pairs).sum(axis=0)), f"{prefix}_per_type": per_type}


def count_confusions(docs: Iterable[Predicted]) -> dict[str, dict[str, int]]:
    """Gold label -> predicted label -> number of mentions, paired by `pair_overlapping`. "None"
    stands for the partner of a mention that was missed or is spurious."""
    table: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for doc in docs:
        for pair in pair_overlapping(doc.gold, doc.entities) if doc.gold is not None else ():
            gold, found = (NO_RELATION if e is None else e.label for e in pair)
            table[gold][found] += 1
    return {gold: dict(sorted(row.items())) for gold, row in sorted(table.items())}


def pair_overlapping(
    gold: Sequence[Entity], found: Sequence[Entity]
) -> list[tuple[Entity | None, Entity | None]]:
    """Gold and found mentions that share a character: the longest overlap first, then the same
    label, then text order. A mention without a partner is paired with None."""
    overlaps = [
        (-shared, g.label != f.label, g.start, f.start, i, j)
        for i, g in enumerate(gold)
        for j, f in enumerate(found)
        if (shared := min(g.end, f.end) - max(g.start, f.start)) > 0
    ]
    left, right = dict(enumerate(gold)), dict(enumerate(found))
    pairs: list[tuple[Entity | None, Entity | None]] = []
    for *_, i, j in sorted(overlaps):
        if i in left and j in right:
            pairs.append((left.pop(i), right.pop(j)))
    pairs += [(entity, None) for entity in left.values()]
    return pairs + [(None, entity) for entity in right.values()]

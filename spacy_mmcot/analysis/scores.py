"""Counts of right, found and gold items, and the scores that they make.

Counts are arrays whose last axis is (right, found, gold): right ones are both found and gold.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy
from numpy.typing import NDArray

from ..types import Entity
from .predictions import Predicted, SpanRelation

Counts = NDArray[numpy.int64]
Mention = tuple[int, int, str]
Span = tuple[int, int]
TypedRelation = tuple[Span, str | None, Span, str | None, str]


def mentions(entities: Iterable[Entity] | None) -> set[Mention]:
    """(start, end, label) of each, the empty set for None."""
    return {(e.start, e.end, e.label) for e in entities or ()}


def entity_counts(docs: Iterable[Predicted]) -> Counts:
    """(docs, 3): a mention is right where its offsets and its label are. What is found in a Doc
    that nobody has labelled does not count."""
    return _counts(
        (mentions(doc.entities), mentions(doc.gold)) if doc.gold is not None else (set(), set())
        for doc in docs
    )


def relation_counts(docs: Iterable[Predicted]) -> Counts:
    """(docs, 3), end to end: a relation is right where its label and the offsets and labels of
    both its mentions are. What is found in a Doc that nobody has labelled does not count."""
    return _counts(
        (
            typed_relations(doc.relations or (), doc.entities),
            typed_relations(doc.gold_relations, doc.gold or ()),
        )
        if doc.gold_relations is not None
        else (set(), set())
        for doc in docs
    )


def f_scores(counts: NDArray[Any]) -> NDArray[numpy.float64]:
    """Micro F1 of counts of any shape (..., 3); 0.0 where nothing is found and nothing gold."""
    right, both = 2.0 * counts[..., 0], counts[..., 1] + counts[..., 2]
    return numpy.divide(right, both, out=numpy.zeros_like(right), where=both > 0)


def prf(prefix: str, counts: NDArray[Any]) -> dict[str, float]:
    """Precision, recall and F1 of one row of counts, (3,), as `PREFIX_p`, `_r` and `_f`; 0.0 where
    nothing is found, or nothing gold."""
    right, found, gold = counts.tolist()
    return {
        f"{prefix}_p": right / found if found else 0.0,
        f"{prefix}_r": right / gold if gold else 0.0,
        f"{prefix}_f": float(f_scores(counts)),
    }


def _counts(pairs: Iterable[tuple[set[Any], set[Any]]]) -> Counts:
    rows = [(len(found & gold), len(found), len(gold)) for found, gold in pairs]
    return numpy.array(rows, dtype="int64").reshape(-1, 3)


def typed_relations(
    relations: Iterable[SpanRelation], entities: Iterable[Entity]
) -> set[TypedRelation]:
    """(head, its label, tail, its label, label) of each; a mention that is none of the entities
    has the label None."""
    labels = {(e.start, e.end): e.label for e in entities}
    return {(r.head, labels.get(r.head), r.tail, labels.get(r.tail), r.label) for r in relations}

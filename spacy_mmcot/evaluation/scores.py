"""Counts of right, found and gold items, and the scores that they make.

Counts are arrays whose last axis is (right, found, gold): right ones are both found and gold.

Entities that are almost right: their boundaries alone, their label on other boundaries, and
which label is taken for which. Docs that nobody has labelled do not count.

Names that labelled data knows, and names that it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from ..types import NO_RELATION, Entity
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


Name = tuple[str, str]  # case-folded surface, label


def seen_scores(docs: Iterable[Predicted], known: set[Name]) -> dict[str, Any]:
    """Strict scores apart for names that `known` holds and names that it does not.

    `seen`: the mention's surface was labelled with the mention's own label; `unseen`: all others.
    `surface_seen`: its surface was labelled, with whatever label; `surface_unseen`: all others.
    Gold and predicted mentions go to their group alike, each by its own surface and label, so a
    right one is in the same group on both sides. `PREFIX_p`, `_r`, `_f` are None where gold has no
    such mention, `PREFIX_n` says how many it has. Docs that nobody has labelled do not count.

    known: the case-folded surfaces and labels of labelled mentions.
    """
    docs = list(docs)
    surfaces = {surface for surface, _ in known}
    groups: dict[str, Callable[[Name], bool]] = {
        "seen": lambda name: name in known,
        "unseen": lambda name: name not in known,
        "surface_seen": lambda name: name[0] in surfaces,
        "surface_unseen": lambda name: name[0] not in surfaces,
    }
    scores: dict[str, Any] = {}
    for prefix, belongs in groups.items():
        total = numpy.zeros(3, dtype="int64")
        for doc in docs:
            if doc.gold is not None:
                found, gold = (
                    mentions(e for e in side if belongs(_name(doc, e)))
                    for side in (doc.entities, doc.gold)
                )
                total += (len(found & gold), len(found), len(gold))
        n = int(total[2])
        row = prf(prefix, total)
        scores.update(row if n else dict.fromkeys(row))
        scores[f"{prefix}_n"] = n
    return scores


def _name(doc: Predicted, entity: Entity) -> Name:
    return doc.text[entity.start : entity.end].casefold(), entity.label

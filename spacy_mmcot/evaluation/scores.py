"""Counts of predictions against gold, and the scores computed from them.

Counts are arrays whose last axis is (right, found, gold): right items are both found and gold. Docs
without gold labels do not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from ..types import NO_RELATION, Entity
from .predictions import Predicted, SpanRelation

Counts = NDArray[numpy.int64]
Mention = tuple[int, int, str]
Span = tuple[int, int]
TypedRelation = tuple[Span, str | None, Span, str | None, str]
Name = tuple[str, str]  # case-folded surface, label


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


def pair_entities(docs: Iterable[Predicted]) -> Iterator[tuple[set[Mention], set[Mention]]]:
    """What was found in each Doc and what is gold: a mention is right where its offsets and its
    label are. Two empty sets for a Doc without gold labels."""
    for doc in docs:
        labelled = doc.gold is not None
        yield (get_mentions(doc.entities), get_mentions(doc.gold)) if labelled else (set(), set())


def pair_relations(
    docs: Iterable[Predicted],
) -> Iterator[tuple[set[TypedRelation], set[TypedRelation]]]:
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


def count_labels(pairs: Iterable[tuple[set[Any], set[Any]]]) -> dict[str, Counts]:
    """(3,) for each label, which is the last element of an item, over all pairs of `pair_entities`
    or `pair_relations`."""
    totals: dict[str, Counts] = defaultdict(lambda: numpy.zeros(3, dtype="int64"))
    for found, gold in pairs:
        for item in found | gold:
            totals[item[-1]] += (item in found & gold, item in found, item in gold)
    return totals


def _count(pairs: Iterable[tuple[set[Any], set[Any]]]) -> Counts:
    """(pairs, 3) of pairs of what was found and what is gold."""
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


def score_boundaries(docs: Iterable[Predicted]) -> dict[str, float]:
    """`ents_boundary_p`, `_r`, `_f`: a mention is right where its offsets are, whatever its
    label."""
    counts = _count(
        ({(e.start, e.end) for e in doc.entities}, {(e.start, e.end) for e in doc.gold})
        for doc in docs
        if doc.gold is not None
    )
    return compute_prf("ents_boundary", counts.sum(axis=0))


def score_overlaps(docs: Iterable[Predicted]) -> dict[str, float]:
    """`ents_partial_p`, `_r`, `_f`: a mention is right where one on the other side has its label
    and shares a character with it. Each mention is in one such pair at most, and the number of
    pairs is the greatest possible."""
    total = numpy.zeros(3, dtype="int64")
    for doc in docs:
        if doc.gold is not None:
            labels = {e.label for e in doc.gold}
            right = sum(_count_overlaps(doc.entities, doc.gold, label) for label in labels)
            total += (right, len(doc.entities), len(doc.gold))
    return compute_prf("ents_partial", total)


def _count_overlaps(found: Sequence[Entity], gold: Sequence[Entity], label: str) -> int:
    """The greatest number of pairs. Mentions of one side do not overlap, so that taking the first
    pair in the text is optimal."""
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


def count_confusions(docs: Iterable[Predicted]) -> dict[str, dict[str, int]]:
    """Gold label -> predicted label -> number of mentions, paired by `pair_overlapping`. "None"
    stands for the partner of a mention that was missed or is spurious."""
    table: dict[str, dict[str, int]] = {}
    for doc in docs:
        if doc.gold is not None:
            for pair in pair_overlapping(doc.gold, doc.entities):
                gold, found = (NO_RELATION if e is None else e.label for e in pair)
                row = table.setdefault(gold, {})
                row[found] = row.get(found, 0) + 1
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
    pairs += [(None, entity) for entity in right.values()]
    return pairs


def score_seen_names(docs: Iterable[Predicted], known: set[Name]) -> dict[str, Any]:
    """Strict scores, as in `score_names`, of names that occur in labelled data and of new ones.

    `seen`: the mention's surface was labelled with the mention's own label; `unseen`: all others.
    `surface_seen`: its surface was labelled, with any label; `surface_unseen`: all others.

    known: the case-folded surfaces and labels of the labelled data.
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
        scores.update(score_names(docs, prefix, belongs))
    return scores


def score_names(
    docs: Iterable[Predicted], prefix: str, belongs: Callable[[Name], bool]
) -> dict[str, Any]:
    """Strict scores over the gold and predicted mentions whose names belong to a group:
    `PREFIX_p`, `_r`, `_f`, None where gold has no such mention, and `PREFIX_n`, how many it has."""

    def select(doc: Predicted, side: Iterable[Entity]) -> set[Mention]:
        return get_mentions(
            e for e in side if belongs((doc.text[e.start : e.end].casefold(), e.label))
        )

    counts = _count(
        (select(doc, doc.entities), select(doc, doc.gold)) for doc in docs if doc.gold is not None
    ).sum(axis=0)
    row: dict[str, Any] = compute_prf(prefix, counts)
    return {**(row if counts[2] else dict.fromkeys(row)), f"{prefix}_n": int(counts[2])}

"""Which pairs of mentions `mmcot_rel` looks at, and which labels they may have."""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc
from spacy.training import Example

from ..corpus.extensions import get_pairs, get_relations
from ..model.doc_pairs import DocPairs

# Mention types -> relation labels, by head type and then tail type.
Legal = Mapping[str, Mapping[str, Sequence[str]]]

# Nearly all Docs have no more mentions, each near every other: their pairs are kept, in at most
# 16 kB for each number of mentions.
FEW = 32


def candidates(doc: Doc, max_distance: int, max_pairs: int) -> tuple[DocPairs, int]:
    """The ordered pairs of the Doc's entities with at most `max_distance` tokens between them, or
    those of them that `get_pairs` names; of more than `max_pairs` the nearest. Also returns how
    many were left out for being too many."""
    mentions = [(ent.start, ent.end, ent.label_) for ent in doc.ents]
    asked = get_pairs(doc)
    if asked is None:
        pairs, n_pairs = _near_pairs(mentions, max_distance, max_pairs)
    else:
        place = {(start, end): i for i, (start, end, _) in enumerate(mentions)}
        found = [(place.get((h.start, h.end)), place.get((t.start, t.end))) for h, t in asked]
        known = dict.fromkeys(p for p in found if None not in p and p[0] != p[1])
        pairs = numpy.array(list(known), dtype="int64").reshape(-1, 2)
        pairs = pairs[_gaps(mentions, pairs) <= max_distance]
        n_pairs = len(pairs)
    if len(pairs) > max_pairs:
        nearest = numpy.argsort(_gaps(mentions, pairs), kind="stable")[:max_pairs]
        pairs = pairs[numpy.sort(nearest)]
    return DocPairs(doc, mentions, pairs), n_pairs - len(pairs)


def _near_pairs(
    mentions: Sequence[tuple[int, int, str]], max_distance: int, max_pairs: int
) -> tuple[NDArray, int]:
    """Both directions of every pair that is near enough, and how many these are; entities come
    sorted and disjoint. Of more than `max_pairs` only the nearer are made, and at least as many
    as that."""
    n = len(mentions)
    if n < 2 or (
        n <= FEW and n * (n - 1) <= max_pairs and mentions[-1][0] - mentions[0][1] <= max_distance
    ):
        return _all_pairs(n), n * (n - 1)
    starts = numpy.array([start for start, _, _ in mentions], dtype="int64")
    ends = numpy.array([end for _, end, _ in mentions], dtype="int64")

    def counts(distance: int) -> NDArray:
        """How many mentions come after each within the distance."""
        last = numpy.searchsorted(starts, ends + distance, side="right")
        return numpy.maximum(last - numpy.arange(n) - 1, 0)

    distance = min(max_distance, int(ends.max(initial=0)))
    after = counts(distance)
    n_near = 2 * int(after.sum())
    if n_near > max_pairs:
        nearer = bisect_right(range(distance), max_pairs, key=lambda d: 2 * int(counts(d).sum()))
        after = counts(nearer)
    left = numpy.repeat(numpy.arange(n), after)
    right = left + 1 + numpy.arange(len(left)) - numpy.repeat(numpy.cumsum(after) - after, after)
    return _both_ways(left, right), n_near


@functools.cache
def _all_pairs(n_mentions: int) -> NDArray[numpy.int64]:
    """Every ordered pair of so many mentions, in the order of `_near_pairs`. All Docs share it."""
    pairs = _both_ways(*numpy.triu_indices(n_mentions, k=1))
    pairs.flags.writeable = False
    return pairs


def _both_ways(left: NDArray, right: NDArray) -> NDArray[numpy.int64]:
    """Each pair, and behind it the same with head and tail exchanged."""
    return numpy.stack([left, right, right, left], axis=1).reshape(-1, 2).astype("int64")


def _gaps(mentions: Sequence[tuple[int, int, str]], pairs: NDArray) -> NDArray:
    """The number of tokens between the two mentions of each pair."""
    bounds = numpy.array([mention[:2] for mention in mentions], dtype="int64").reshape(-1, 2)
    heads, tails = bounds[pairs[:, 0]], bounds[pairs[:, 1]]
    gap = numpy.maximum(heads[:, 0], tails[:, 0]) - numpy.minimum(heads[:, 1], tails[:, 1])
    return numpy.maximum(gap, 0)


def gold_kinds(examples: Iterable[Example]) -> Counter[tuple[str, str, str]]:
    """How often a head type, a tail type and a label make a gold relation."""
    return Counter(
        (head.label_, tail.label_, label)
        for example in examples
        for head, tail, label, _ in get_relations(example.reference)
    )


def learn_legal(kinds: Iterable[tuple[str, str, str]]) -> dict[str, dict[str, list[str]]]:
    """The labels that gold relations have by the types of their mentions."""
    seen: dict[str, dict[str, list[str]]] = {}
    for head, tail, label in sorted(set(kinds)):
        seen.setdefault(head, {}).setdefault(tail, []).append(label)
    return seen


def legal_labels(
    entry: DocPairs, legal: Legal | None, labels: Sequence[str]
) -> NDArray[numpy.bool_]:
    """(pairs, 1 + labels): which labels each pair may have; the first, no relation, always."""
    allowed = numpy.ones((len(entry.pairs), 1 + len(labels)), dtype=bool)
    if legal is None:
        return allowed
    rows: dict[tuple[str, str], list[bool]] = {}
    for i, (head, tail) in enumerate(entry.pairs.tolist()):
        types = entry.mentions[head][2], entry.mentions[tail][2]
        if types not in rows:
            known = legal.get(types[0], {}).get(types[1], ())
            rows[types] = [label in known for label in labels]
        allowed[i, 1:] = rows[types]
    return allowed

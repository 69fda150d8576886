"""Which pairs of mentions `mmcot_rel` looks at, and which labels they may have.

What a Doc's mention pairs are to learn, from gold relations and from a teacher.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc
from spacy.training import Example

from ..corpus.extensions import get_pairs, get_relations
from ..distillation.soft_labels import SoftRelations
from ..errors import Errors, MMCoTError
from ..model.pair_classifier import DocPairs
from ..types import RELATIONS_KEY

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


class Target(NamedTuple):
    """What the pairs of a Doc are to learn. allowed: boolean (pairs, 1 + labels); gold: (pairs,),
    the label's index, 0 for no relation, -1 where nobody judged; soft: (pairs, 1 + labels), a
    teacher's distributions; taught: boolean (pairs,), where there are any."""

    entry: DocPairs
    allowed: NDArray[numpy.bool_]
    gold: NDArray[numpy.int64]
    soft: NDArray[numpy.float32]
    taught: NDArray[numpy.bool_]

    def only(self, kept: NDArray[numpy.bool_]) -> Target:
        """The target of these pairs alone."""
        entry = self.entry._replace(pairs=self.entry.pairs[kept])
        _, allowed, gold, soft, taught = self
        return Target(entry, allowed[kept], gold[kept], soft[kept], taught[kept])


def soft_rows(
    entry: DocPairs, taught: SoftRelations | None, n_labels: int
) -> tuple[NDArray[numpy.float32], NDArray[numpy.bool_]]:
    """The teacher's distributions of the entry's pairs, (pairs, 1 + labels), and where there are
    any, (pairs,)."""
    soft = numpy.zeros((len(entry.pairs), 1 + n_labels), dtype="float32")
    is_taught = numpy.zeros(len(entry.pairs), dtype=bool)
    if taught is not None:
        rows, mentions = taught.rows(), places(entry)
        for i, (head, tail) in enumerate(entry.pairs.tolist()):
            row = rows.get((*mentions[head], *mentions[tail]))
            if row is not None:
                soft[i] = taught.probabilities[row]
                is_taught[i] = True
    return soft, is_taught


def gold_labels(
    entry: DocPairs, reference: Doc, labels: Sequence[str], component: str
) -> NDArray[numpy.int64]:
    """What the relations of a reference say of the entry's pairs, (pairs,): the label's index,
    counted from 1, 0 for no relation, -1 where nobody judged the pair. Both Docs have one text,
    on whose characters mentions are compared.

    Raises MMCoTError for a relation whose label is not among `labels`.
    """
    gold = numpy.full(len(entry.pairs), -1, dtype="int64")
    if RELATIONS_KEY not in reference.user_data:
        return gold
    index = {label: i + 1 for i, label in enumerate(labels)}
    wanted: dict[tuple[int, ...], int] = {}
    for head, tail, label, _ in get_relations(reference):
        if label not in index:
            raise MMCoTError(
                Errors.E603.format(component=component, label=label, labels=list(labels))
            )
        place = (head.start_char, head.end_char, tail.start_char, tail.end_char)
        wanted[place] = index[label]
    pairs = get_pairs(reference)
    judged = {(h.start_char, h.end_char, t.start_char, t.end_char) for h, t in pairs or ()}
    real = {(ent.start_char, ent.end_char) for ent in reference.ents}
    mentions = places(entry)
    for i, (h, t) in enumerate(entry.pairs.tolist()):
        place = (*mentions[h], *mentions[t])
        unjudged = pairs is not None and place not in judged
        # A mention that is none has no relation, whatever was judged.
        if not (unjudged and mentions[h] in real and mentions[t] in real):
            gold[i] = wanted.get(place, 0)
    return gold


def without_surplus_negatives(batch: Sequence[Target], ratio: float | None) -> list[Target]:
    """The targets without the pairs that teach nothing, and with at most `ratio` times as many
    pairs without a relation, drawn at random, as with one; all of them for None."""
    gold = numpy.concatenate([target.gold for target in batch])
    negative = numpy.flatnonzero(gold == 0)
    n_kept = len(negative) if ratio is None else round(ratio * max(1, int((gold > 0).sum())))
    if len(negative) > n_kept:
        gold[numpy.random.permutation(negative)[n_kept:]] = -1
    ends = numpy.cumsum([len(target.gold) for target in batch])
    parts = numpy.split(gold, ends[:-1])
    return [
        target._replace(gold=part).only((part >= 0) | target.taught)
        for target, part in zip(batch, parts, strict=True)
    ]


def places(entry: DocPairs) -> list[tuple[int, int]]:
    """The character offsets of each mention."""
    return [characters(entry.doc, start, end) for start, end, _ in entry.mentions]


def characters(doc: Doc, start: int, end: int) -> tuple[int, int]:
    """The character offsets of a span of tokens, end exclusive."""
    last = doc[end - 1]
    return doc[start].idx, last.idx + len(last)


def moved(entry: DocPairs, doc: Doc) -> DocPairs:
    """The same mentions and pairs on the tokens of another Doc of the same text."""
    if entry.doc is doc:
        return entry
    mentions = [
        _on_tokens(doc, *place, label)
        for place, (_, _, label) in zip(places(entry), entry.mentions, strict=True)
    ]
    return entry._replace(doc=doc, mentions=mentions)


def taught_pairs(doc: Doc, taught: SoftRelations) -> DocPairs:
    """The mentions and pairs that a teacher labelled, gold or found by itself."""
    mentions = [_on_tokens(doc, *mention) for mention in taught.mentions]
    return DocPairs(doc, mentions, taught.pairs)


def _on_tokens(doc: Doc, start: int, end: int, label: str) -> tuple[int, int, str]:
    """The mention at these characters, in tokens."""
    span = doc.char_span(start, end, alignment_mode="expand")
    if span is None:
        raise MMCoTError(Errors.E612.format(start=start, end=end, text=doc.text[:60]))
    return span.start, span.end, label

"""Pairs of mentions: which of them `mmcot_rel` scores, and where they are in another Doc of the
same text. Docs of one text may differ in their tokens, so mentions are matched by characters."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..corpus.extensions import get_pairs
from ..distillation.soft_labels import SoftRelations
from ..errors import Errors, MMCoTError
from ..model.pair_classifier import DocPairs

# (start token, end token, label), end exclusive
MentionSpan = tuple[int, int, str]


def find_candidates(doc: Doc, max_distance: int, max_pairs: int) -> tuple[DocPairs, int]:
    """The ordered pairs of the Doc's entities with at most `max_distance` tokens between them, of
    which only those that `get_pairs` names, if it does; of more than `max_pairs` the nearest. Also
    returns how many pairs were left out because of `max_pairs`."""
    mentions = [(ent.start, ent.end, ent.label_) for ent in doc.ents]
    asked = get_pairs(doc)
    if asked is None:
        pairs, n_pairs = _find_near_pairs(mentions, max_distance, max_pairs)
    else:
        index = {(start, end): i for i, (start, end, _) in enumerate(mentions)}
        found = [(index.get((h.start, h.end)), index.get((t.start, t.end))) for h, t in asked]
        known = dict.fromkeys(pair for pair in found if None not in pair and pair[0] != pair[1])
        pairs = numpy.array(list(known), dtype="int64").reshape(-1, 2)
        pairs = pairs[_measure_gaps(mentions, pairs) <= max_distance]
        n_pairs = len(pairs)
    if len(pairs) > max_pairs:
        nearest = numpy.argsort(_measure_gaps(mentions, pairs), kind="stable")[:max_pairs]
        pairs = pairs[numpy.sort(nearest)]
    return DocPairs(doc, mentions, pairs), n_pairs - len(pairs)


def _find_near_pairs(
    mentions: Sequence[MentionSpan], max_distance: int, max_pairs: int
) -> tuple[NDArray[numpy.int64], int]:
    """Both directions of every pair that is near enough, (pairs, 2), and how many there are.
    Mentions are sorted and disjoint. Of more than `max_pairs` only the nearer are made, but at
    least `max_pairs`."""
    n = len(mentions)
    if n < 2:
        return numpy.zeros((0, 2), dtype="int64"), 0
    starts, ends = numpy.array([mention[:2] for mention in mentions], dtype="int64").T

    def count_after(distance: int) -> NDArray[numpy.int64]:
        """(mentions,): how many mentions follow each one within the distance."""
        last = numpy.searchsorted(starts, ends + distance, side="right")
        return numpy.maximum(last - numpy.arange(n) - 1, 0)

    distance = min(max_distance, int(ends[-1]))
    after = count_after(distance)
    n_near = 2 * int(after.sum())
    if n_near > max_pairs:
        # The least distance at which there are enough pairs.
        distances = range(distance)
        nearer = bisect_right(distances, max_pairs, key=lambda d: 2 * int(count_after(d).sum()))
        after = count_after(nearer)
    left = numpy.repeat(numpy.arange(n), after)
    right = left + 1 + numpy.arange(len(left)) - numpy.repeat(numpy.cumsum(after) - after, after)
    # Each pair, followed by the same with head and tail exchanged.
    return numpy.stack([left, right, right, left], axis=1).reshape(-1, 2), n_near


def _measure_gaps(mentions: Sequence[MentionSpan], pairs: NDArray) -> NDArray[numpy.int64]:
    """(pairs,): the number of tokens between the two mentions of each pair. pairs: (pairs, 2)."""
    bounds = numpy.array([mention[:2] for mention in mentions], dtype="int64").reshape(-1, 2)
    heads, tails = bounds[pairs[:, 0]], bounds[pairs[:, 1]]
    gap = numpy.maximum(heads[:, 0], tails[:, 0]) - numpy.minimum(heads[:, 1], tails[:, 1])
    return numpy.maximum(gap, 0)


def to_characters(doc: Doc, start: int, end: int) -> tuple[int, int]:
    """The character offsets of a span of tokens, ends exclusive."""
    last = doc[end - 1]
    return doc[start].idx, last.idx + len(last)


def get_mention_offsets(entry: DocPairs) -> list[tuple[int, int]]:
    """The character offsets of each mention, ends exclusive."""
    return [to_characters(entry.doc, start, end) for start, end, _ in entry.mentions]


def get_pair_offsets(entry: DocPairs) -> list[tuple[int, int, int, int]]:
    """The character offsets of each pair's head and tail, ends exclusive."""
    offsets = get_mention_offsets(entry)
    return [(*offsets[head], *offsets[tail]) for head, tail in entry.pairs.tolist()]


def move_pairs(entry: DocPairs, doc: Doc) -> DocPairs:
    """The same mentions and pairs on the tokens of another Doc of the same text."""
    if entry.doc is doc:
        return entry
    labelled = zip(get_mention_offsets(entry), entry.mentions, strict=True)
    mentions = [_to_tokens(doc, *place, mention[2]) for place, mention in labelled]
    return entry._replace(doc=doc, mentions=mentions)


def get_soft_pairs(doc: Doc, soft: SoftRelations) -> DocPairs:
    """The mentions and pairs of soft relations, on the Doc's tokens."""
    return DocPairs(doc, [_to_tokens(doc, *mention) for mention in soft.mentions], soft.pairs)


def _to_tokens(doc: Doc, start: int, end: int, label: str) -> MentionSpan:
    """The mention at these characters, in tokens. Raises MMCoTError where the Doc ends before."""
    span = doc.char_span(start, end, alignment_mode="expand")
    if span is None:
        raise MMCoTError(Errors.E612.format(start=start, end=end, text=doc.text[:60]))
    return span.start, span.end, label

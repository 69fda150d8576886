"""Pairs of mentions: what `mmcot_rel` learns about them from gold and from soft relations.

Docs of one text may differ in their tokens, so mentions are matched by characters.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..corpus.extensions import get_pairs, get_relations, list_missing, list_relations
from ..distillation.soft_labels import SoftRelations
from ..errors import Errors, MMCoTError, Warnings
from ..standalone.decoding import Legal, MentionSpan
from ..types import DocPairs


def warn_of_illegal(docs: Iterable[Doc], legal: Legal, component: str) -> None:
    """Warn where the map rules out relations that are gold."""
    gold = [(h.label_, t.label_, label) for doc in docs for h, t, label, _ in get_relations(doc)]
    illegal = [kind for kind in gold if kind[2] not in legal.get(kind[0], {}).get(kind[1], ())]
    if illegal:
        kinds = [f"{label} from {head} to {tail}" for head, tail, label in sorted(set(illegal))]
        places = ", ".join(kinds[:5]) + (", ..." if len(kinds) > 5 else "")
        numbers = {"count": len(illegal), "total": len(gold)}
        message = Warnings.W600.format(component=component, places=places, **numbers)
        warnings.warn(message, stacklevel=2)


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
    mentions = [to_tokens(doc, *place, mention[2]) for place, mention in labelled]
    return entry._replace(doc=doc, mentions=mentions)


def to_tokens(doc: Doc, start: int, end: int, label: str) -> MentionSpan:
    """The mention at these characters of the Doc's text, in tokens."""
    span = doc.char_span(start, end, alignment_mode="expand")
    assert span is not None
    return span.start, span.end, label


UNJUDGED = -1


class Target(NamedTuple):
    """What the pairs of a Doc are to learn.

    allowed: bool (pairs, 1 + labels), the labels that a pair may have.
    gold: int (pairs,), the label's index, 0 for no relation, UNJUDGED where nobody judged the pair.
    soft: (pairs, 1 + labels), soft labels; has_soft: bool (pairs,), where there are any.
    """

    entry: DocPairs
    allowed: NDArray[numpy.bool_]
    gold: NDArray[numpy.int64]
    soft: NDArray[numpy.float32]
    has_soft: NDArray[numpy.bool_]

    def select(self, chosen: NDArray[numpy.bool_]) -> Target:
        """The target of some of the pairs; chosen: bool (pairs,)."""
        entry = self.entry._replace(pairs=self.entry.pairs[chosen])
        _, allowed, gold, soft, has_soft = self
        return Target(entry, allowed[chosen], gold[chosen], soft[chosen], has_soft[chosen])


def match_gold(
    entry: DocPairs, reference: Doc, labels: Sequence[str], component: str
) -> NDArray[numpy.int64]:
    """The gold labels of the entry's pairs, int (pairs,), as `Target.gold`. Both Docs have the same
    text; mentions are matched by their characters.

    A pair was judged as `get_judged_pairs` says. A predicted mention that is not in gold has no
    gold relation, so its pairs count as judged, unless nobody judged some of its tokens.

    Raises MMCoTError for a relation whose label is not among `labels`.
    """
    gold = numpy.full(len(entry.pairs), UNJUDGED, dtype="int64")
    if list_relations(reference) is None:
        return gold
    index = {label: i + 1 for i, label in enumerate(labels)}
    related: dict[tuple[int, ...], int] = {}
    for head, tail, label, _ in get_relations(reference):
        if label not in index:
            raise MMCoTError(
                Errors.E603.format(component=component, label=label, labels=list(labels))
            )
        related[head.start_char, head.end_char, tail.start_char, tail.end_char] = index[label]
    pairs = get_pairs(reference)
    judged = {(h.start_char, h.end_char, t.start_char, t.end_char) for h, t in pairs or ()}
    gold_mentions = {(ent.start_char, ent.end_char) for ent in reference.ents}
    missing = list_missing(reference)
    unknown = {
        (start, end)
        for start, end in get_mention_offsets(entry)
        if any(start < right and left < end for left, right in missing)
    }
    for i, pair in enumerate(get_pair_offsets(entry)):
        ends = {pair[:2], pair[2:]}
        if ends & unknown:
            continue
        if pairs is None or pair in judged or not ends <= gold_mentions:
            gold[i] = related.get(pair, 0)
    return gold


def match_soft(
    entry: DocPairs, soft: SoftRelations | None, n_labels: int
) -> tuple[NDArray[numpy.float32], NDArray[numpy.bool_]]:
    """The soft labels of the entry's pairs, (pairs, 1 + labels), and where there are any, bool
    (pairs,)."""
    probabilities = numpy.zeros((len(entry.pairs), 1 + n_labels), dtype="float32")
    has_soft = numpy.zeros(len(entry.pairs), dtype=bool)
    if soft is not None:
        rows = soft.index_rows()
        for i, pair in enumerate(get_pair_offsets(entry)):
            if pair in rows:
                probabilities[i] = soft.probabilities[rows[pair]]
                has_soft[i] = True
    return probabilities, has_soft


def sample_negatives(batch: Sequence[Target], ratio: float | None) -> list[Target]:
    """The targets without pairs that teach nothing, and with at most `ratio` times as many pairs
    without a relation, drawn at random, as with one (at least one counts); None keeps them all."""
    gold = numpy.concatenate([target.gold for target in batch])
    negative = numpy.flatnonzero(gold == 0)
    n_kept = len(negative) if ratio is None else round(ratio * max(1, int((gold > 0).sum())))
    if len(negative) > n_kept:
        gold[numpy.random.permutation(negative)[n_kept:]] = UNJUDGED
    ends = numpy.cumsum([len(target.gold) for target in batch])
    parts = numpy.split(gold, ends[:-1])
    return [
        target._replace(gold=part).select((part != UNJUDGED) | target.has_soft)
        for target, part in zip(batch, parts, strict=True)
    ]

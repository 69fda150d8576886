"""Pairs of mentions: which of them `mmcot_rel` scores, which labels their types allow, and what
they learn from gold and from soft relations. Standalone wheels carry it.

Docs of one text may differ in their tokens, so mentions are matched by characters.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..corpus.extensions import get_pairs, get_relations, list_missing, list_relations
from ..errors import Errors, MMCoTError, Warnings
from ..types import DocPairs, Relation

if TYPE_CHECKING:
    from ..distillation.soft_labels import SoftRelations

Array = NDArray[Any]
# Head type -> tail type -> relation labels.
Legal = Mapping[str, Mapping[str, Sequence[str]]]
# (start token, end token, label), end exclusive
MentionSpan = tuple[int, int, str]


class PairPrediction(NamedTuple):
    """A pair of mentions of one Doc with its likeliest label and that label's probability. head and
    tail are (start, end) token offsets, end exclusive."""

    head: tuple[int, int]
    tail: tuple[int, int]
    label: str
    score: float


def find_candidates(doc: Doc, max_distance: int) -> DocPairs:
    """The ordered pairs of the Doc's entities with at most `max_distance` tokens between them, of
    which only those that `get_pairs` names, if it does."""
    mentions = [(ent.start, ent.end, ent.label_) for ent in doc.ents]
    asked = get_pairs(doc)
    if asked is None:
        return DocPairs(doc, mentions, _find_near_pairs(mentions, max_distance))
    index = {(start, end): i for i, (start, end, _) in enumerate(mentions)}
    found = [(index.get((h.start, h.end)), index.get((t.start, t.end))) for h, t in asked]
    known = dict.fromkeys((h, t) for h, t in found if h is not None and t is not None and h != t)
    near = [(h, t) for h, t in known if _measure_gap(mentions[h], mentions[t]) <= max_distance]
    return DocPairs(doc, mentions, numpy.array(near, dtype="int64").reshape(-1, 2))


def _find_near_pairs(mentions: Sequence[MentionSpan], max_distance: int) -> NDArray[numpy.int64]:
    """Both directions of every pair that is near enough, (pairs, 2). Mentions are sorted and
    disjoint."""
    n = len(mentions)
    if n < 2:
        return numpy.zeros((0, 2), dtype="int64")
    starts, ends = numpy.array([mention[:2] for mention in mentions], dtype="int64").T
    distance = min(max_distance, int(ends[-1]))
    # (mentions,): how many mentions follow each one within the distance.
    after = numpy.searchsorted(starts, ends + distance, side="right") - numpy.arange(n) - 1
    after = numpy.maximum(after, 0)
    left = numpy.repeat(numpy.arange(n), after)
    right = left + 1 + numpy.arange(len(left)) - numpy.repeat(numpy.cumsum(after) - after, after)
    # Each pair, followed by the same with head and tail exchanged.
    return numpy.stack([left, right, right, left], axis=1).reshape(-1, 2)


def _measure_gap(left: MentionSpan, right: MentionSpan) -> int:
    """The number of tokens between two disjoint mentions, in either order."""
    return max(left[0] - right[1], right[0] - left[1])


def mask_legal(entry: DocPairs, legal: Legal | None, labels: Sequence[str]) -> NDArray[numpy.bool_]:
    """bool (pairs, 1 + labels): which labels each pair may have. The first, no relation, is always
    allowed; without a map all are."""
    allowed = numpy.ones((len(entry.pairs), 1 + len(labels)), dtype=bool)
    if legal is not None:
        types = [mention[2] for mention in entry.mentions]
        rows = {
            (head, tail): [label in legal.get(head, {}).get(tail, ()) for label in labels]
            for head in set(types)
            for tail in set(types)
        }
        for i, (head, tail) in enumerate(entry.pairs.tolist()):
            allowed[i, 1:] = rows[types[head], types[tail]]
    return allowed


def pick_relations(
    entries: Sequence[DocPairs], probabilities: Array, labels: Sequence[str], threshold: float
) -> list[list[PairPrediction]]:
    """The pairs of each entry that have a relation, in the order of their heads.

    probabilities: (pairs, 1 + labels) of all entries, the first column no relation.
    threshold: a pair gets its likeliest label where the probability of any relation reaches this.
    """
    result: list[list[PairPrediction]] = [[] for _ in entries]
    if not len(probabilities):
        return result
    # The sum rather than 1 - P(no relation), which loses precision near 0.
    chances = probabilities[:, 1:].sum(axis=1)
    # A pair whose labels are all illegal has 0, which does not reach a threshold of 0 either.
    related = numpy.flatnonzero((chances >= threshold) & (chances > 0))
    best = probabilities[related, 1:].argmax(axis=1)
    scores = probabilities[related, 1 + best]
    counts = [len(entry.pairs) for entry in entries]
    owners = numpy.repeat(numpy.arange(len(entries)), counts)[related]
    pairs = numpy.concatenate([entry.pairs for entry in entries])[related]
    for pair, label, score, i in zip(pairs, best, scores, owners, strict=True):
        head, tail = (entries[i].mentions[m] for m in pair)
        result[i].append(PairPrediction(head[:2], tail[:2], labels[label], float(score)))
    return [sorted(found, key=lambda p: (p.head, p.tail)) for found in result]


def set_predictions(doc: Doc, predictions: Sequence[PairPrediction], overwrite: bool) -> None:
    """Write `doc._.mmcot_rel`. overwrite: replace relations that are already set; otherwise they
    stay."""
    kept = [] if overwrite else list(get_relations(doc))
    taken = {(r.head.start, r.head.end, r.tail.start, r.tail.end) for r in kept}
    spans = {(ent.start, ent.end): ent for ent in doc.ents}
    new = [
        Relation(spans[p.head], spans[p.tail], p.label, p.score)
        for p in predictions
        if (*p.head, *p.tail) not in taken
    ]
    doc._.mmcot_rel = [*kept, *new]


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

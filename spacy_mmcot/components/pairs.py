"""Pairs of mentions: which of them `mmcot_rel` scores, which labels their types allow, and what
they learn from gold and from soft relations. Standalone wheels carry it.

Docs of one text may differ in their tokens, so mentions are matched by characters.
"""

from __future__ import annotations

import itertools
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


def find_candidates(doc: Doc, max_distance: int) -> DocPairs:
    """The ordered pairs of the Doc's entities with at most `max_distance` tokens between them, of
    which only those that `get_pairs` names, if it does."""
    mentions, asked = doc.ents, get_pairs(doc)
    pairs: dict[tuple[int, int], None] = {}
    if asked is None:
        starts = [ent.start for ent in mentions]
        for left, end in enumerate(ent.end for ent in mentions):
            for right in range(left + 1, len(mentions)):
                if starts[right] - end > max_distance:
                    break
                pairs[left, right] = pairs[right, left] = None
    else:
        index = {(ent.start, ent.end): i for i, ent in enumerate(mentions)}
        for h, t in asked:
            head, tail = index.get((h.start, h.end)), index.get((t.start, t.end))
            gap = max(h.start - t.end, t.start - h.end)
            if head is not None and tail is not None and head != tail and gap <= max_distance:
                pairs[head, tail] = None
    return DocPairs(doc, mentions, numpy.array(list(pairs), dtype="int64").reshape(-1, 2))


def mask_legal(entry: DocPairs, legal: Legal | None, labels: Sequence[str]) -> NDArray[numpy.bool_]:
    """bool (pairs, 1 + labels): which labels each pair may have. The first, no relation, is always
    allowed; without a map all are."""
    allowed = numpy.ones((len(entry.pairs), 1 + len(labels)), dtype=bool)
    if legal is not None:
        types = [mention.label_ for mention in entry.mentions]
        rows = {
            (head, tail): [label in legal.get(head, {}).get(tail, ()) for label in labels]
            for head, tail in itertools.product(set(types), repeat=2)
        }
        for row, (head, tail) in zip(allowed, entry.pairs.tolist(), strict=True):
            row[1:] = rows[types[head], types[tail]]
    return allowed


def pick_relations(
    entries: Sequence[DocPairs], probabilities: Array, labels: Sequence[str], threshold: float
) -> list[list[Relation]]:
    """The relations of each entry, in the order of their heads.

    probabilities: (pairs, 1 + labels) of all entries, the first column no relation.
    threshold: a pair gets its likeliest label where the probability of any relation reaches this.
    """
    result: list[list[Relation]] = [[] for _ in entries]
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
        head, tail = (entries[i].mentions[mention] for mention in pair)
        result[i].append(Relation(head, tail, labels[label], float(score)))
    return [sorted(found) for found in result]


def set_predictions(doc: Doc, predictions: Sequence[Relation], overwrite: bool) -> None:
    """Write `doc._.mmcot_rel`. overwrite: replace relations that are already set."""
    kept = [] if overwrite else list(get_relations(doc))
    taken = {relation[:2] for relation in kept}
    doc._.mmcot_rel = [*kept, *(p for p in predictions if p[:2] not in taken)]


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


def list_mentions(entry: DocPairs) -> list[tuple[int, int, str]]:
    """Start and end character, end exclusive, and label of the entry's mentions."""
    return [(m.start_char, m.end_char, m.label_) for m in entry.mentions]


def list_pairs(entry: DocPairs) -> list[tuple[int, int, int, int]]:
    """The characters of each pair's head and tail, ends exclusive."""
    places = [place[:2] for place in list_mentions(entry)]
    return [(*places[head], *places[tail]) for head, tail in entry.pairs.tolist()]


def place_pairs(
    doc: Doc, mentions: Iterable[tuple[int, int, str]], pairs: NDArray[numpy.int64]
) -> DocPairs:
    """Mentions, by characters as of `list_mentions`, and their pairs on the tokens of a Doc."""
    spans: list[Any] = [doc.char_span(*mention, alignment_mode="expand") for mention in mentions]
    return DocPairs(doc, spans, pairs)


def move_pairs(entry: DocPairs, doc: Doc) -> DocPairs:
    """The same mentions and pairs on the tokens of another Doc of the same text."""
    return entry if entry.doc is doc else place_pairs(doc, list_mentions(entry), entry.pairs)


UNJUDGED = -1


class Target(NamedTuple):
    """What the pairs of a Doc are to learn."""

    entry: DocPairs
    allowed: Array  # bool (pairs, 1 + labels): the labels that a pair may have
    gold: Array  # int (pairs,): the label's index, 0 for no relation, UNJUDGED if nobody judged it
    soft: Array  # (pairs, 1 + labels): soft labels, 0 for a pair without

    def select(self, chosen: Array) -> Target:
        """The target of some of the pairs; chosen: bool (pairs,)."""
        entry, *arrays = self
        entry = entry._replace(pairs=entry.pairs[chosen])
        return Target(entry, *(array[chosen] for array in arrays))


def match_gold(entry: DocPairs, reference: Doc, labels: Sequence[str], component: str) -> Array:
    """The gold labels of the entry's pairs, int (pairs,), as `Target.gold`.

    A pair was judged as `get_judged_pairs` says. A predicted mention that is not in gold has no
    gold relation, so its pairs count as judged, unless nobody judged some of its tokens.

    Raises MMCoTError for a relation whose label is not among `labels`.
    """
    gold = numpy.full(len(entry.pairs), UNJUDGED, dtype="int64")
    if list_relations(reference) is None:
        return gold
    related: dict[tuple[int, ...], int] = {}
    for head, tail, label, _ in get_relations(reference):
        if label not in labels:
            known = list(labels)
            raise MMCoTError(Errors.E603.format(component=component, label=label, labels=known))
        place = head.start_char, head.end_char, tail.start_char, tail.end_char
        related[place] = 1 + labels.index(label)
    pairs = get_pairs(reference)
    judged = {(h.start_char, h.end_char, t.start_char, t.end_char) for h, t in pairs or ()}
    gold_mentions = {(ent.start_char, ent.end_char) for ent in reference.ents}
    missing = list_missing(reference)
    unknown = {
        (start, end)
        for start, end, _ in list_mentions(entry)
        if any(start < right and left < end for left, right in missing)
    }
    for i, pair in enumerate(list_pairs(entry)):
        ends = {pair[:2], pair[2:]}
        is_judged = pairs is None or pair in judged or not ends <= gold_mentions
        if is_judged and not ends & unknown:
            gold[i] = related.get(pair, 0)
    return gold


def match_soft(
    entry: DocPairs, soft: SoftRelations | None, n_labels: int
) -> NDArray[numpy.float32]:
    """The soft labels of the entry's pairs, (pairs, 1 + labels), 0 for a pair without."""
    found = numpy.zeros((len(entry.pairs), 1 + n_labels), dtype="float32")
    if soft is not None:
        rows = soft.index_rows()
        for i, pair in enumerate(list_pairs(entry)):
            if pair in rows:
                found[i] = soft.probabilities[rows[pair]]
    return found


def sample_negatives(batch: Sequence[Target], ratio: float | None) -> list[Target]:
    """The targets without pairs that teach nothing, and with at most `ratio` times as many pairs
    without a relation, drawn at random, as with one (at least one counts); None keeps them all."""
    gold = numpy.concatenate([target.gold for target in batch])
    negative = numpy.flatnonzero(gold == 0)
    n_kept = len(negative) if ratio is None else round(ratio * max(1, int((gold > 0).sum())))
    if len(negative) > n_kept:
        gold[numpy.random.permutation(negative)[n_kept:]] = UNJUDGED
    ends = numpy.cumsum([len(target.gold) for target in batch])
    return [
        target._replace(gold=part).select((part != UNJUDGED) | target.soft.any(axis=1))
        for target, part in zip(batch, numpy.split(gold, ends[:-1]), strict=True)
    ]

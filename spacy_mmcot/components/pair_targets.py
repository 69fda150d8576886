"""What a Doc's mention pairs are to learn, from gold relations and from a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..corpus.extensions import get_pairs, get_relations
from ..distillation.soft_relations import SoftRelations
from ..errors import Errors, MMCoTError
from ..model.doc_pairs import DocPairs
from ..types import RELATIONS_KEY


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

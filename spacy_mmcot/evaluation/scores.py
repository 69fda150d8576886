"""Scores of findings against gold: counts and what is computed from them, and the scorers of spaCy
Examples, for entities and for relations end to end and on gold mentions (given the gold entities,
as in the MNRE protocol).

Counts are arrays whose last axis is (right, found, gold): right items are both found and gold. Docs
without gold labels do not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from statistics import mean
from typing import Any

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc
from spacy.training import Example

from ..corpus.extensions import list_relations
from ..types import NO_RELATION, Entity
from .predictions import (
    Predicted,
    SpanRelation,
    get_place,
    list_judged_mentions,
    list_judged_pairs,
    predict_example,
)

Counts = NDArray[numpy.int64]
Mention = tuple[int, int, str]
Span = tuple[int, int]
TypedRelation = tuple[Span, str | None, Span, str | None, str]
# What was found in a Doc, and what is gold. The label is the last element of an item.
Sides = tuple[set[Any], set[Any]]


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


def pair_entities(docs: Iterable[Predicted]) -> Iterator[Sides]:
    """The mentions of each Doc: one is right where its offsets and its label are. Two empty sets
    for a Doc without gold labels."""
    for doc in docs:
        labelled = doc.gold is not None
        yield (get_mentions(doc.entities), get_mentions(doc.gold)) if labelled else (set(), set())


def pair_relations(docs: Iterable[Predicted]) -> Iterator[Sides]:
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


def count_labels(pairs: Iterable[Sides]) -> dict[str, Counts]:
    """(3,) for each label, over all pairs."""
    totals: dict[str, Counts] = defaultdict(lambda: numpy.zeros(3, dtype="int64"))
    for found, gold in pairs:
        for item in found | gold:
            totals[item[-1]] += (item in found & gold, item in found, item in gold)
    return totals


def _count(pairs: Iterable[Sides]) -> Counts:
    """(pairs, 3)"""
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


def score_items(prefix: str, pairs: Iterable[Sides]) -> dict[str, Any]:
    """`PREFIX_p`, `_r`, `_f`, and `PREFIX_per_type`: label -> `p`, `r`, `f`."""
    pairs = list(pairs)
    per_type = {
        label: {key[1:]: score for key, score in compute_prf("", counts).items()}
        for label, counts in count_labels(pairs).items()
    }
    return {**compute_prf(prefix, _count(pairs).sum(axis=0)), f"{prefix}_per_type": per_type}


def count_confusions(docs: Iterable[Predicted]) -> dict[str, dict[str, int]]:
    """Gold label -> predicted label -> number of mentions, paired by `pair_overlapping`. "None"
    stands for the partner of a mention that was missed or is spurious."""
    table: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for doc in docs:
        for pair in pair_overlapping(doc.gold, doc.entities) if doc.gold is not None else ():
            gold, found = (NO_RELATION if e is None else e.label for e in pair)
            table[gold][found] += 1
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
    return pairs + [(None, entity) for entity in right.values()]


# A relation predicted for a pair of gold mentions: the pair's offsets, the label, its score.
Proposal = tuple[int, int, int, int, str, float]


def make_ner_scorer() -> Callable[..., dict[str, Any]]:
    """`spacy_mmcot.ner_scorer.v1`: strict span scores by characters (`ents_p`, `ents_r`, `ents_f`,
    `ents_per_type`)."""
    return score_entities


def score_entities(examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
    """The scores of `make_ner_scorer` over the Docs whose reference is labelled; None where these
    have no mention, gold or found, as in spaCy's scorer. The predicted Doc may have other tokens
    than the reference."""
    sides = _pair_mentions(examples)
    scores = score_items("ents", sides)
    return scores if any(found or gold for found, gold in sides) else dict.fromkeys(scores)


def _pair_mentions(examples: Iterable[Example]) -> list[Sides]:
    """The mentions of each Doc whose reference is labelled."""
    labelled = [eg for eg in examples if eg.reference.has_annotation("ENT_IOB")]
    return [
        (set(map(get_place, list_judged_mentions(eg))), set(map(get_place, eg.reference.ents)))
        for eg in labelled
    ]


def score_seqeval(examples: Iterable[Example]) -> dict[str, float]:
    """What seqeval, the scorer of most papers, counts by its strict scheme IOB2: `seqeval_p`,
    `seqeval_r`, `seqeval_f`, micro averages. Docs without entity annotation do not count, as in
    spaCy's scorer. The tests compare with seqeval itself, which brings scikit-learn along."""
    return compute_prf("seqeval", _count(_pair_mentions(examples)).sum(axis=0))


def make_rel_scorer() -> Callable[..., dict[str, Any]]:
    """`spacy_mmcot.rel_scorer.v1`: `rel_e2e_p`, `rel_e2e_r`, `rel_e2e_f`, `rel_e2e_per_type` and,
    where predictions on gold mentions are given, `rel_p`, `rel_r`, `rel_f`, `rel_per_type`,
    `rel_macro_f`, `rel_confusion`, `rel_false_positives`."""
    return score_relations


def score_relations(
    examples: Iterable[Example],
    *,
    on_gold_mentions: Sequence[Iterable[Proposal]] | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Micro scores over the Docs whose reference has relation annotation; every gold relation
    counts, predicted or not. All scores are None where no Doc has any, as in spaCy's scorer.

    End to end, a relation is right where its label and the offsets and entity labels of both
    mentions are. One between two gold mentions that were not judged as a pair does not count.

    on_gold_mentions: for each example, what was predicted for the reference's own mentions. It is
        compared on the judged pairs. `rel_macro_f` is the mean F1 of the labels that occur in gold,
        `rel_confusion` maps each gold label to the predicted labels and their numbers of pairs,
        `rel_false_positives` is the number of labels on a hundred pairs without a gold relation.
    """
    examples = list(examples)
    proposals = on_gold_mentions if on_gold_mentions is not None else [()] * len(examples)
    rows = [
        (example, proposed)
        for example, proposed in zip(examples, proposals, strict=True)
        if list_relations(example.reference) is not None
    ]
    found = [predict_example(eg, i, True, scored=False) for i, (eg, _) in enumerate(rows)]
    scores = score_items("rel_e2e", pair_relations(found))
    if on_gold_mentions is not None:
        scores |= _score_gold_mentions([(eg.reference, proposed) for eg, proposed in rows])
    return scores if rows else dict.fromkeys(scores)


def _score_gold_mentions(rows: list[tuple[Doc, Iterable[Proposal]]]) -> dict[str, Any]:
    sides: list[Sides] = []
    confusion: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for reference, proposals in rows:
        gold, predicted = defaultdict(set), defaultdict(set)
        for h0, h1, t0, t1, label, _ in list_relations(reference) or ():
            gold[h0, h1, t0, t1].add(label)
        for h0, h1, t0, t1, label, _ in proposals:
            predicted[h0, h1, t0, t1].add(label)
        for pair in list_judged_pairs(reference):
            true, found = gold[pair], predicted[pair]
            sides.append(({(label,) for label in found}, {(label,) for label in true}))
            for label in true & found:
                confusion[label][label] += 1
            # Labels left on both sides are confusions; where one side has run out, misses.
            errors = zip_longest(sorted(true - found), sorted(found - true), fillvalue=NO_RELATION)
            for label, other in errors if true or found else [(NO_RELATION, NO_RELATION)]:
                confusion[label][other] += 1
    scores = score_items("rel", sides)
    gold_labels = confusion.keys() - {NO_RELATION}
    f_scores = [scores["rel_per_type"][label]["f"] for label in gold_labels]
    scores["rel_macro_f"] = mean(f_scores) if f_scores else 0.0
    scores["rel_confusion"] = {label: dict(found) for label, found in confusion.items()}
    unrelated = confusion[NO_RELATION]
    n_pairs = sum(unrelated.values())
    n_wrong = n_pairs - unrelated.get(NO_RELATION, 0)
    scores["rel_false_positives"] = 100 * n_wrong / n_pairs if n_pairs else None
    return scores

"""Scores of predicted entities.

Scores of predicted relations: end to end, and on gold mentions (the MNRE protocol).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import permutations, zip_longest
from statistics import mean
from typing import Any

from spacy.scorer import PRFScore, get_ner_prf
from spacy.tokens import Doc
from spacy.training import Example

from ..corpus.extensions import get_judged_pairs
from ..types import NO_RELATION, RELATIONS_KEY


def make_ner_scorer() -> Callable[..., dict[str, Any]]:
    """`spacy_mmcot.ner_scorer.v1`: strict span scores by spaCy's own scorer (`ents_p`, `ents_r`,
    `ents_f`, `ents_per_type`)."""
    return score_entities


def score_entities(examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
    return get_ner_prf(examples)


def seqeval_scores(examples: Iterable[Example]) -> dict[str, float]:
    """Strict micro scores by seqeval, the scorer of most papers: `seqeval_p`, `seqeval_r`,
    `seqeval_f`. Docs without entity annotation do not count, as in spaCy's scorer."""
    from seqeval.metrics.v1 import precision_recall_fscore_support
    from seqeval.scheme import IOB2

    gold, predicted = [], []
    for example in examples:
        if example.reference.has_annotation("ENT_IOB"):
            gold.append(_bio(example.reference))
            predicted.append(_bio(example.predicted))
    if not gold:  # which seqeval takes for a wrong type
        return {"seqeval_p": 0.0, "seqeval_r": 0.0, "seqeval_f": 0.0}
    precision, recall, f_score, _ = precision_recall_fscore_support(
        gold, predicted, average="micro", scheme=IOB2, zero_division=0
    )
    return {
        "seqeval_p": float(precision),
        "seqeval_r": float(recall),
        "seqeval_f": float(f_score),
    }


def _bio(doc: Any) -> list[str]:
    return [
        f"{token.ent_iob_}-{token.ent_type_}" if token.ent_iob_ in ("B", "I") else "O"
        for token in doc
    ]


# Character offsets of head and tail, ends exclusive: h0, h1, t0, t1.
Pair = tuple[int, int, int, int]
# A relation proposed for a pair of gold mentions: the pair's offsets, the label, its score.
Proposal = tuple[int, int, int, int, str, float]


def make_rel_scorer() -> Callable[..., dict[str, Any]]:
    """`spacy_mmcot.rel_scorer.v1`: `rel_e2e_p`, `rel_e2e_r`, `rel_e2e_f`, `rel_e2e_per_type` and,
    where proposals for gold mentions are at hand, `rel_p`, `rel_r`, `rel_f`, `rel_per_type`,
    `rel_macro_f`, `rel_confusion`."""
    return score_relations


def score_relations(
    examples: Iterable[Example],
    *,
    on_gold_mentions: Sequence[Iterable[Proposal]] | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Micro scores over the Docs whose reference has relation annotation; every gold relation
    counts, proposed or not. All are None where no Doc has any, as in spaCy's scorer.

    End to end, a relation is right where its label and the offsets and entity labels of both
    mentions are. One that joins two gold mentions which nobody judged as a pair is neither right
    nor wrong.

    on_gold_mentions: for each example, what was proposed for the reference's own mentions. Held
        against the judged pairs, see `get_judged_pairs`. `rel_macro_f` is the mean F1 of the labels
        that occur in gold, `rel_confusion` maps each gold label to the predicted labels and their
        numbers of pairs.
    """
    examples = list(examples)
    proposals = on_gold_mentions if on_gold_mentions is not None else [()] * len(examples)
    rows = [
        (example, proposed)
        for example, proposed in zip(examples, proposals, strict=True)
        if RELATIONS_KEY in example.reference.user_data
    ]
    scores = _end_to_end([example for example, _ in rows])
    if on_gold_mentions is not None:
        scores.update(_between_gold_mentions([(eg.reference, found) for eg, found in rows]))
    return scores


def _end_to_end(examples: list[Example]) -> dict[str, Any]:
    counts = _Counts()
    for example in examples:
        reference = example.reference
        gold_mentions, found_mentions = _mentions(reference), _mentions(example.predicted)
        gold = {_typed(pair, label, gold_mentions) for pair, label in _relations(reference)}
        judged = _judged(reference)
        predicted = set()
        for pair, label in _relations(example.predicted):
            relation = _typed(pair, label, found_mentions)
            between_gold = None not in relation and relation == _typed(pair, label, gold_mentions)
            if pair in judged or not between_gold:
                predicted.add(relation)
        counts.add(gold, predicted)
    return counts.scores("rel_e2e", known=bool(examples))


def _between_gold_mentions(rows: list[tuple[Doc, Iterable[Proposal]]]) -> dict[str, Any]:
    counts = _Counts()
    confusion: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for reference, proposals in rows:
        gold, predicted = defaultdict(set), defaultdict(set)
        for pair, label in _relations(reference):
            gold[pair].add(label)
        for *offsets, label, _ in proposals:
            predicted[tuple(offsets)].add(label)
        for pair in _judged(reference):
            true, found = gold[pair], predicted[pair]
            counts.add({(label,) for label in true}, {(label,) for label in found})
            for label in true & found:
                confusion[label][label] += 1
            # What is left on both sides was taken for one another; a side may have run out.
            errors = zip_longest(sorted(true - found), sorted(found - true), fillvalue=NO_RELATION)
            for label, other in errors if true or found else [(NO_RELATION, NO_RELATION)]:
                confusion[label][other] += 1
    scores = counts.scores("rel", known=bool(rows))
    f_scores = [counts.per_label[label].fscore for label in confusion if label != NO_RELATION]
    scores["rel_macro_f"] = (mean(f_scores) if f_scores else 0.0) if rows else None
    scores["rel_confusion"] = {label: dict(found) for label, found in confusion.items()}
    return scores


class _Counts:
    """Hits, false alarms and misses, in all and a label. What is counted ends in its label."""

    def __init__(self) -> None:
        self.all = PRFScore()
        self.per_label: defaultdict[str, PRFScore] = defaultdict(PRFScore)

    def add(self, gold: set[tuple[Any, ...]], predicted: set[tuple[Any, ...]]) -> None:
        self.all.score_set(predicted, gold)
        for label in {item[-1] for item in gold | predicted}:
            self.per_label[label].score_set(
                {item for item in predicted if item[-1] == label},
                {item for item in gold if item[-1] == label},
            )

    def scores(self, prefix: str, *, known: bool) -> dict[str, Any]:
        values: dict[str, Any] = self.all.to_dict()
        values["per_type"] = {label: prf.to_dict() for label, prf in self.per_label.items()}
        return {f"{prefix}_{key}": value if known else None for key, value in values.items()}


def _relations(doc: Doc) -> list[tuple[Pair, str]]:
    return [
        ((h0, h1, t0, t1), label)
        for h0, h1, t0, t1, label, _ in doc.user_data.get(RELATIONS_KEY, ())
    ]


def _mentions(doc: Doc) -> dict[tuple[int, int], str]:
    return {(ent.start_char, ent.end_char): ent.label_ for ent in doc.ents}


def _typed(pair: Pair, label: str, mentions: dict[tuple[int, int], str]) -> tuple[Any, ...]:
    """The relation with the entity labels of its mentions, None where one is no entity."""
    return pair, mentions.get(pair[:2]), mentions.get(pair[2:]), label


def _judged(reference: Doc) -> set[Pair]:
    """The judged pairs, listed in full. A gold relation's own pair is always among them."""
    pairs = get_judged_pairs(reference)
    if pairs is not None:
        return set(pairs)
    every = ((*head, *tail) for head, tail in permutations(_mentions(reference), 2))
    return {*every, *(pair for pair, _ in _relations(reference))}

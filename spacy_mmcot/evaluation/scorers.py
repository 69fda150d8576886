"""Scorers of spaCy Examples: entities, and relations end to end and on gold mentions.

On gold mentions means that the pipeline is given the gold entities, as in the MNRE protocol.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import permutations, zip_longest
from statistics import mean
from typing import Any

from spacy.scorer import PRFScore, get_ner_prf
from spacy.tokens import Doc
from spacy.training import Example

from ..corpus.extensions import get_judged_pairs
from ..types import NO_RELATION, RELATIONS_KEY

# Character offsets of head and tail, ends exclusive: h0, h1, t0, t1.
Pair = tuple[int, int, int, int]
# A relation predicted for a pair of gold mentions: the pair's offsets, the label, its score.
Proposal = tuple[int, int, int, int, str, float]
# Entity labels by character offsets.
Labels = Mapping[tuple[int, int], str]


def make_ner_scorer() -> Callable[..., dict[str, Any]]:
    """`spacy_mmcot.ner_scorer.v1`: strict span scores by spaCy's own scorer (`ents_p`, `ents_r`,
    `ents_f`, `ents_per_type`)."""
    return score_entities


def score_entities(examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
    return get_ner_prf(examples)


def score_seqeval(examples: Iterable[Example]) -> dict[str, float]:
    """Strict micro scores by seqeval, the scorer of most papers: `seqeval_p`, `seqeval_r`,
    `seqeval_f`. Docs without entity annotation do not count, as in spaCy's scorer."""
    from seqeval.metrics.v1 import precision_recall_fscore_support
    from seqeval.scheme import IOB2

    gold, predicted = [], []
    for example in examples:
        if example.reference.has_annotation("ENT_IOB"):
            gold.append(_get_iob_tags(example.reference))
            predicted.append(_get_iob_tags(example.predicted))
    scores = [0.0, 0.0, 0.0]
    if gold:  # seqeval rejects empty lists
        scores = precision_recall_fscore_support(
            gold, predicted, average="micro", scheme=IOB2, zero_division=0
        )[:3]
    return {f"seqeval_{key}": float(score) for key, score in zip("prf", scores, strict=True)}


def _get_iob_tags(doc: Doc) -> list[str]:
    return [
        f"{token.ent_iob_}-{token.ent_type_}" if token.ent_iob_ in ("B", "I") else "O"
        for token in doc
    ]


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
        if RELATIONS_KEY in example.reference.user_data
    ]
    scores = _score_end_to_end([example for example, _ in rows])
    if on_gold_mentions is not None:
        scores.update(_score_gold_mentions([(eg.reference, found) for eg, found in rows]))
    return scores


def list_judged_pairs(reference: Doc) -> set[Pair]:
    """The judged pairs of `get_judged_pairs`; where it names none in particular, every ordered pair
    of two entities and the pairs of the gold relations."""
    pairs = get_judged_pairs(reference)
    if pairs is not None:
        return set(pairs)
    every = ((*head, *tail) for head, tail in permutations(_get_labels(reference), 2))
    return {*every, *(pair for pair, _ in _get_relations(reference))}


def is_scored(pair: Pair, judged: Container[Pair], gold: Labels, predicted: Labels) -> bool:
    """Whether a predicted relation of this pair counts end to end: not where it joins two gold
    mentions, predicted with their gold labels, that were not judged as a pair."""
    between_gold = all(
        span in gold and gold[span] == predicted.get(span) for span in (pair[:2], pair[2:])
    )
    return pair in judged or not between_gold


def _score_end_to_end(examples: list[Example]) -> dict[str, Any]:
    counts = _Counts()
    for example in examples:
        reference, predicted = example.reference, example.predicted
        gold_labels, labels = _get_labels(reference), _get_labels(predicted)
        judged = list_judged_pairs(reference)
        counts.add(
            {_add_types(pair, label, gold_labels) for pair, label in _get_relations(reference)},
            {
                _add_types(pair, label, labels)
                for pair, label in _get_relations(predicted)
                if is_scored(pair, judged, gold_labels, labels)
            },
        )
    return counts.get_scores("rel_e2e", known=bool(examples))


def _score_gold_mentions(rows: list[tuple[Doc, Iterable[Proposal]]]) -> dict[str, Any]:
    counts = _Counts()
    confusion: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for reference, proposals in rows:
        gold, predicted = defaultdict(set), defaultdict(set)
        for pair, label in _get_relations(reference):
            gold[pair].add(label)
        for *offsets, label, _ in proposals:
            predicted[tuple(offsets)].add(label)
        for pair in list_judged_pairs(reference):
            true, found = gold[pair], predicted[pair]
            counts.add({(label,) for label in true}, {(label,) for label in found})
            for label in true & found:
                confusion[label][label] += 1
            # Labels left on both sides are confusions; where one side has run out, misses.
            errors = zip_longest(sorted(true - found), sorted(found - true), fillvalue=NO_RELATION)
            for label, other in errors if true or found else [(NO_RELATION, NO_RELATION)]:
                confusion[label][other] += 1
    scores = counts.get_scores("rel", known=bool(rows))
    f_scores = [counts.per_label[label].fscore for label in confusion if label != NO_RELATION]
    scores["rel_macro_f"] = (mean(f_scores) if f_scores else 0.0) if rows else None
    scores["rel_confusion"] = {label: dict(found) for label, found in confusion.items()}
    unrelated = confusion[NO_RELATION]
    n_pairs = sum(unrelated.values())
    n_wrong = n_pairs - unrelated.get(NO_RELATION, 0)
    scores["rel_false_positives"] = 100 * n_wrong / n_pairs if n_pairs else None
    return scores


class _Counts:
    """True and false positives and misses, in total and per label. The label is the last element
    of each counted item."""

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

    def get_scores(self, prefix: str, *, known: bool) -> dict[str, Any]:
        values: dict[str, Any] = self.all.to_dict()
        values["per_type"] = {label: prf.to_dict() for label, prf in self.per_label.items()}
        return {f"{prefix}_{key}": value if known else None for key, value in values.items()}


def _get_relations(doc: Doc) -> list[tuple[Pair, str]]:
    data: dict[Any, Any] = doc.user_data
    return [((h0, h1, t0, t1), label) for h0, h1, t0, t1, label, _ in data.get(RELATIONS_KEY, ())]


def _get_labels(doc: Doc) -> dict[tuple[int, int], str]:
    return {(ent.start_char, ent.end_char): ent.label_ for ent in doc.ents}


def _add_types(pair: Pair, label: str, labels: Labels) -> tuple[Any, ...]:
    """The relation with the entity labels of its mentions, None for a span that is no entity."""
    return pair, labels.get(pair[:2]), labels.get(pair[2:]), label

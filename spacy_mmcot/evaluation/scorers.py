"""Scorers of spaCy Examples: entities, and relations end to end and on gold mentions.

On gold mentions means that the pipeline is given the gold entities, as in the MNRE protocol.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from statistics import mean
from typing import Any

from spacy.scorer import get_ner_prf
from spacy.tokens import Doc
from spacy.training import Example

from ..types import NO_RELATION, RELATIONS_KEY
from .predictions import list_judged_pairs, predict_example
from .scores import Sides, pair_relations, score_items

# A relation predicted for a pair of gold mentions: the pair's offsets, the label, its score.
Proposal = tuple[int, int, int, int, str, float]


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

    labelled = [eg for eg in examples if eg.reference.has_annotation("ENT_IOB")]
    scores = [0.0, 0.0, 0.0]
    if labelled:  # seqeval rejects empty lists
        gold = [_get_iob_tags(eg.reference) for eg in labelled]
        predicted = [_get_iob_tags(eg.predicted) for eg in labelled]
        scores = precision_recall_fscore_support(
            gold, predicted, average="micro", scheme=IOB2, zero_division=0
        )[:3]
    return {f"seqeval_{key}": float(score) for key, score in zip("prf", scores, strict=True)}


def _get_iob_tags(doc: Doc) -> list[str]:
    return [f"{t.ent_iob_}-{t.ent_type_}" if t.ent_iob_ in ("B", "I") else "O" for t in doc]


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
        for *pair, label, _ in reference.user_data[RELATIONS_KEY]:
            gold[tuple(pair)].add(label)
        for *pair, label, _ in proposals:
            predicted[tuple(pair)].add(label)
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

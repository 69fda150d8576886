"""Scores of predicted entities."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from spacy.scorer import get_ner_prf
from spacy.training import Example


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

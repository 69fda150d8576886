"""How far probabilities can be trusted: what a score says against the share that is right."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy
from numpy.typing import NDArray

from .predictions import Predicted
from .scores import entity_counts, mentions

Scores = NDArray[numpy.float64]
Flags = NDArray[numpy.bool_]


def scored_mentions(docs: Iterable[Predicted]) -> tuple[Scores, Flags]:
    """The scores of all predicted mentions that have one, and whether each is a gold entity
    (offsets and label). Docs that nobody has labelled do not count."""
    scores, right = [], []
    for doc in docs:
        if doc.gold is not None:
            gold = mentions(doc.gold)
            for entity in doc.entities:
                if entity.score is not None:
                    scores.append(entity.score)
                    right.append((entity.start, entity.end, entity.label) in gold)
    return numpy.array(scores, dtype="float64"), numpy.array(right, dtype=bool)


def confidences(docs: Iterable[Predicted]) -> tuple[Scores, Flags]:
    """The confidence of all labelled Docs that have one, and whether all mentions found in each
    are right and none is missing."""
    kept = [doc for doc in docs if doc.gold is not None and doc.confidence is not None]
    right, found, gold = entity_counts(kept).T
    return numpy.array([doc.confidence for doc in kept], dtype="float64"), (right == found) & (
        right == gold
    )


def reliability(scores: Scores, right: Flags, n_bins: int = 10) -> list[dict[str, Any]]:
    """The reliability curve over `n_bins` bins of equal width; the last one holds 1.0. A bin has
    `low` and `high`, its number `n`, and the mean `score` and the share `right` of what is in it,
    both None in an empty bin."""
    bins = numpy.minimum((scores * n_bins).astype(int), n_bins - 1)
    curve = []
    for b in range(n_bins):
        inside = bins == b
        n = int(inside.sum())
        curve.append(
            {
                "low": b / n_bins,
                "high": (b + 1) / n_bins,
                "n": n,
                "score": float(scores[inside].mean()) if n else None,
                "right": float(right[inside].mean()) if n else None,
            }
        )
    return curve


def expected_calibration_error(scores: Scores, right: Flags, n_bins: int = 10) -> float:
    """Mean gap between score and share of right ones over the bins of the reliability curve,
    weighed by their numbers (Guo et al., ICML 2017). 0.0 where there are no scores."""
    if not len(scores):
        return 0.0
    filled = [row for row in reliability(scores, right, n_bins) if row["n"]]
    return sum(row["n"] * abs(row["score"] - row["right"]) for row in filled) / len(scores)

"""Calibration: how well scores match accuracy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy
from numpy.typing import NDArray

from .predictions import Predicted
from .scores import get_mentions

Scores = NDArray[numpy.float64]
Flags = NDArray[numpy.bool_]


def collect_mention_scores(docs: Iterable[Predicted]) -> tuple[Scores, Flags]:
    """The scores of all predicted mentions that have one, and whether each is a gold entity
    (offsets and label), both (mentions,). Docs without gold labels do not count."""
    labelled = [(doc.entities, get_mentions(doc.gold)) for doc in docs if doc.gold is not None]
    found = [
        (e.score, (e.start, e.end, e.label) in gold)
        for entities, gold in labelled
        for e in entities
        if e.score is not None
    ]
    scores, right = zip(*found, strict=True) if found else ((), ())
    return numpy.array(scores, dtype="float64"), numpy.array(right, dtype=bool)


def compute_reliability(scores: Scores, right: Flags, n_bins: int = 10) -> list[dict[str, Any]]:
    """The reliability curve over `n_bins` bins of equal width; the last one includes 1.0. Each bin
    that is not empty has `low`, `high`, its number `n`, and the mean `score` and the share `right`
    of its items.

    scores, right: (items,).
    """
    bins = numpy.minimum((scores * n_bins).astype(int), n_bins - 1)
    curve = []
    for b in numpy.unique(bins).tolist():
        inside = bins == b
        row: dict[str, Any] = {"low": b / n_bins, "high": (b + 1) / n_bins, "n": int(inside.sum())}
        means = {"score": float(scores[inside].mean()), "right": float(right[inside].mean())}
        curve.append(row | means)
    return curve


def compute_calibration_error(scores: Scores, right: Flags, n_bins: int = 10) -> float:
    """The expected calibration error (Guo et al., ICML 2017): the mean gap between score and share
    right over the bins of the reliability curve, weighted by their numbers. 0.0 without scores.

    scores, right: (items,).
    """
    curve = compute_reliability(scores, right, n_bins)
    return sum(b["n"] * abs(b["score"] - b["right"]) for b in curve) / max(len(scores), 1)

"""How far probabilities can be trusted: what a score says against the share that is right.

The temperature under which a pipeline's scores mean what they say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from spacy.training import Example
from thinc.api import xp2torch

from ..components.ner import MMCoTNER
from ..errors import Errors, MMCoTError
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


def fit_temperature(component: MMCoTNER, examples: Sequence[Example]) -> float:
    """Set and return the temperature under which the gold tag sequences of `examples` are
    likeliest. The best path, and so F1, does not change; span scores do.

    examples: predicted Docs must have gone through the components before this one. Docs without
        entity annotation do not count.

    Raises MMCoTError if no Doc has entity annotation, or the component is not initialised.
    """
    if not component.is_initialized:
        raise MMCoTError(Errors.E602.format(component=component.name))
    labelled = [
        eg for eg in examples if len(eg.predicted) and eg.reference.has_annotation("ENT_IOB")
    ]
    if not labelled:
        raise MMCoTError(Errors.E604.format(component=component.name))
    scores = component.model.predict([eg.predicted for eg in labelled])
    emissions = [xp2torch(array) for array in scores.emissions]
    transitions = xp2torch(scores.transitions)
    log_temperature = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=30, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        scale = torch.exp(-log_temperature)
        loss = component.compute_losses(
            labelled, [array * scale for array in emissions], transitions * scale
        ).gold
        loss.backward()
        return loss

    optimizer.step(closure)
    component.cfg["temperature"] = float(log_temperature.detach().exp().clamp(0.05, 20.0))
    return component.cfg["temperature"]

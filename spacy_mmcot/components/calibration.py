"""How far a pipeline's span scores can be trusted, and the temperature that mends them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy
import torch
from numpy.typing import NDArray
from spacy.training import Example
from thinc.api import xp2torch

from ..errors import Errors, MMCoTError
from .ner import MMCoTNER


def scored_mentions(
    examples: Iterable[Example],
) -> tuple[NDArray[numpy.float64], NDArray[numpy.bool_]]:
    """The scores of all predicted mentions, and whether each is a gold entity (span and label).
    Docs without entity annotation do not count."""
    scores, correct = [], []
    for example in examples:
        if not example.reference.has_annotation("ENT_IOB"):
            continue
        gold = {(ent.start_char, ent.end_char, ent.label_) for ent in example.reference.ents}
        for ent in example.predicted.ents:
            if ent._.mmcot_score is not None:
                scores.append(ent._.mmcot_score)
                correct.append((ent.start_char, ent.end_char, ent.label_) in gold)
    return numpy.array(scores, dtype="float64"), numpy.array(correct, dtype=bool)


def expected_calibration_error(
    scores: NDArray[numpy.float64], correct: NDArray[numpy.bool_], n_bins: int = 10
) -> float:
    """Mean gap between score and share of correct mentions over `n_bins` equal-width bins,
    weighed by their mentions (Guo et al., ICML 2017). 0.0 where there are no mentions."""
    if not len(scores):
        return 0.0
    bins = numpy.minimum((scores * n_bins).astype(int), n_bins - 1)
    gaps = (
        abs(scores[bins == b].mean() - correct[bins == b].mean()) * (bins == b).mean()
        for b in numpy.unique(bins)
    )
    return float(sum(gaps))


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
        loss = component.batch_losses(
            labelled, [array * scale for array in emissions], transitions * scale
        ).gold
        loss.backward()
        return loss

    optimizer.step(closure)
    component.cfg["temperature"] = float(log_temperature.detach().exp().clamp(0.05, 20.0))
    return component.cfg["temperature"]

"""Temperature scaling (Guo et al., ICML 2017) of the span scores of `mmcot_ner`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from spacy.language import Language
from spacy.training import Example
from thinc.api import xp2torch

from ..components.ner import MMCoTNER
from ..errors import Errors, MMCoTError


def calibrate_pipeline(nlp: Language, name: str, examples: Sequence[Example]) -> float:
    """Run the components before `name`, an mmcot_ner, on the predicted Docs of the examples, then
    fit its temperature as `fit_temperature` does. Returns the temperature."""
    later = nlp.pipe_names[nlp.pipe_names.index(name) :]
    docs = nlp.pipe([example.predicted for example in examples], disable=later)
    for example, doc in zip(examples, docs, strict=True):
        example.predicted = doc
    component: Any = nlp.get_pipe(name)
    return fit_temperature(component, examples)


def fit_temperature(component: MMCoTNER, examples: Sequence[Example]) -> float:
    """Set and return the temperature that maximises the likelihood of the gold tag sequences. The
    best path, and so F1, does not change; span scores do.

    examples: predicted Docs must have gone through the components before this one. Docs without
        entity annotation, and those with a label that the component does not have, do not count.

    Raises MMCoTError if no Doc is left, or the component is not initialised.
    """
    if not component.is_initialized:
        raise MMCoTError(Errors.E602.format(component=component.name))
    known = set(component.labels)
    labelled = [
        eg
        for eg in examples
        if len(eg.predicted)
        and eg.reference.has_annotation("ENT_IOB")
        and known.issuperset(ent.label_ for ent in eg.reference.ents)
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

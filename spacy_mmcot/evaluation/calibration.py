"""Calibration: how well scores match accuracy, and temperature scaling (Guo et al., ICML 2017) of
the scores of `mmcot_ner`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy
from numpy.typing import NDArray
from spacy.language import Language
from spacy.training import Example

from ..components.decoding import decode_mentions
from ..errors import Errors, MMCoTError
from .predictions import Predicted
from .scores import get_mentions

if TYPE_CHECKING:
    from ..components.ner import MMCoTNER

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


def calibrate_pipeline(nlp: Language, name: str, examples: Sequence[Example]) -> float:
    """Run the components before `name`, an mmcot_ner, on the predicted Docs of the examples, then
    fit its temperature as `fit_temperature` does. Returns the temperature."""
    later = nlp.pipe_names[nlp.pipe_names.index(name) :]
    docs = nlp.pipe([example.predicted for example in examples], disable=later)
    for example, doc in zip(examples, docs, strict=True):
        example.predicted = doc
    component: Any = nlp.get_pipe(name)
    return fit_temperature(component, examples)


def make_calibration(
    corpus: Callable[[Language], Iterable[Example]], limit: int = 1000
) -> Callable[[Language], Language]:
    """`spacy_mmcot.Calibration.v1`, for `[training.before_to_disk]`: fit the temperature of the
    pipeline's `mmcot_ner` on the first `limit` Docs of the corpus at each checkpoint, as
    `fit_temperature` does. Without labelled Docs the temperature stays 1.0."""

    def calibrate(nlp: Language) -> Language:
        if name := find_ner(nlp):
            component = nlp.get_pipe(name)
            examples = [eg for eg in islice(corpus(nlp), limit) if is_labelled(component, eg)]
            if examples:
                calibrate_pipeline(nlp, name, examples)
        return nlp

    return calibrate


def find_ner(nlp: Language) -> str | None:
    """The name of the pipeline's `mmcot_ner`, None without one."""
    names = (name for name in nlp.pipe_names if nlp.get_pipe_meta(name).factory == "mmcot_ner")
    return next(names, None)


def is_labelled(component: Any, example: Example) -> bool:
    """Whether the Doc has entities or says that it has none, all with labels of the component."""
    gold = example.reference
    known = {ent.label_ for ent in gold.ents} <= set(component.labels)
    return len(example.predicted) > 0 and gold.has_annotation("ENT_IOB") and known


def fit_temperature(component: MMCoTNER, examples: Sequence[Example]) -> float:
    """Set and return the temperature, from 0.05 to 20, at which the scores of mentions and the
    confidences of Docs have the lowest log loss, as probabilities that they are right. The best tag
    sequence does not change; scores do, and with them which mentions the component's `threshold`
    leaves out.

    The likelihood of the gold tag sequences is no measure here: where a component misses much, as
    one without labels does, all of its scores would become too low.

    examples: predicted Docs must have gone through the components before this one. Docs without
        entity annotation, and those with a label that the component does not have, do not count,
        nor do mentions and Docs with tokens that are not annotated.

    Raises MMCoTError if no Doc is left, or the component is not initialised.
    """
    component.check_initialized()
    labelled = [eg for eg in examples if is_labelled(component, eg)]
    if not labelled:
        raise MMCoTError(Errors.E604.format(component=component.name))
    docs = [eg.predicted for eg in labelled]
    aligned = [eg.get_aligned_ents_and_ner() for eg in labelled]
    gold = [{(ent.start, ent.end, ent.label_) for ent in ents} for ents, _ in aligned]
    unknown = [{i for i, tag in enumerate(tags) if tag is None} for _, tags in aligned]
    component.cfg["temperature"] = 1.0
    emissions, transitions = component.score_tags(docs)

    def measure_loss(power: float) -> tuple[float, float]:
        """The log loss at a temperature of 2 ** power; of equal ones, the power nearest to 0."""
        factor = 2.0**-power
        scaled = {i: array * factor for i, array in emissions.items()}
        found = decode_mentions(docs, scaled, transitions * factor, component.labels, 0.0)
        chances: list[float] = []
        for mentions, entities, tokens in zip(found, gold, unknown, strict=True):
            chances += [
                mention.score if mention[:3] in entities else 1.0 - mention.score
                for mention in mentions
                if tokens.isdisjoint(range(mention.start, mention.end))
            ]
            if not tokens:
                is_right = {mention[:3] for mention in mentions} == entities
                chances.append(mentions.probability if is_right else 1.0 - mentions.probability)
        return -float(numpy.log(numpy.maximum(chances, 1e-12)).sum()), abs(power)

    best = 0.0
    for reach in (4.0, 0.25):
        best = min((best + numpy.linspace(-reach, reach, 17)).tolist(), key=measure_loss)
    component.cfg["temperature"] = 2.0**best
    return component.cfg["temperature"]

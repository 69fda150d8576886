"""Selective prediction: the risk-coverage curve of a pipeline, and the cascade in which an LLM
answers for the Docs whose confidence is below a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy
from numpy.typing import NDArray

from ..errors import Errors, MMCoTError
from .compare import match_predictions
from .predictions import read_predictions
from .scores import Counts, compute_f, count_entities

By = Literal["confidence", "weakest"]
Confidences = NDArray[numpy.float64]

_STEPS = 10


@dataclass(frozen=True)
class Point:
    """The effect of one threshold.

    threshold: Docs with a lower confidence are sent to the LLM; None: all Docs are.
    coverage, sent: the shares of Docs that the pipeline keeps and that are sent.
    f, error_rate: over the kept Docs, micro F1 (None where none has a mention, gold or found), and
        the share in which a mention is wrong, missing or spurious (None where none is kept).
    cascade_f: micro F1 over all Docs with the LLM's own predictions for those sent, None where
        these are not known.
    """

    threshold: float | None
    coverage: float
    sent: float
    f: float | None
    error_rate: float | None
    cascade_f: float | None = None

    @property
    def quality(self) -> float | None:
        """F1 of the whole cascade where the LLM's predictions are known, otherwise of the pipeline
        on what it keeps."""
        return self.f if self.cascade_f is None else self.cascade_f


@dataclass(frozen=True)
class CascadeSettings:
    """How to choose the threshold; at most one of the first three is set, and without any the
    target is the LLM's own F1, where it is known.

    target_f: the fewest Docs sent that give this F1. budget_share: as many Docs as this share
        allows. threshold: this one.
    llm_f: the LLM's F1 on such Docs as measured elsewhere. cost_per_doc: of the LLM, USD.
    by: what is compared with the threshold: the confidence of the whole Doc, or of its weakest
        sentence, which suits Docs of many sentences.
    """

    target_f: float | None = None
    budget_share: float | None = None
    threshold: float | None = None
    llm_f: float | None = None
    cost_per_doc: float | None = None
    by: By = "confidence"


def plan_cascade(
    predictions: Path, settings: CascadeSettings, llm_predictions: Path | None = None
) -> dict[str, Any]:
    """The risk-coverage curve of a predictions file and the point that the settings choose.

    llm_predictions: the LLM's predictions on the same Docs, in the same format; its gold labels
        may be missing.

    Returns `docs`, `by`, `f`, `error_rate`, `aurc`, `llm_f`, `llm_measured`, `cost_per_doc`,
    `chosen` (a Point with `cost_per_1000`, or None), `steps` (such points near
    0%, 10%, ... 100% sent) and `curve` (all points).

    Raises MMCoTError for files without labels or confidences or on different Docs, and where no
    threshold gives the F1 `target_f`.
    """
    every = read_predictions(predictions)
    docs = [doc for doc in every if doc.gold is not None]
    if not docs:
        raise MMCoTError(Errors.E805.format(path=predictions))
    for doc in docs:
        if getattr(doc, settings.by) is None:
            raise MMCoTError(Errors.E806.format(path=predictions, id=doc.id))
    confidence = numpy.array([getattr(doc, settings.by) for doc in docs], dtype="float64")
    counts, llm_counts, llm_f = count_entities(docs), None, settings.llm_f
    if llm_predictions is not None:
        paths = (predictions, llm_predictions)
        matched = match_predictions(every, read_predictions(llm_predictions), paths=paths)
        llm_counts = count_entities(
            answer.model_copy(update={"gold": doc.gold})
            for doc, answer in zip(every, matched, strict=True)
            if doc.gold is not None
        )
        llm_f = float(compute_f(llm_counts.sum(axis=0)))
    points = trace_risk_coverage(confidence, counts, llm_counts)
    chosen = choose_point(points, confidence, replace(settings, llm_f=llm_f))
    if chosen is None and settings.target_f is not None:
        best = max(point.quality or 0.0 for point in points)
        raise MMCoTError(Errors.E807.format(target=settings.target_f, best=best))
    steps = dict.fromkeys(_find_within_budget(points, i / _STEPS) for i in range(_STEPS + 1))
    cost = settings.cost_per_doc
    return {
        "docs": len(docs),
        "by": settings.by,
        "f": points[0].f,
        "error_rate": points[0].error_rate,
        "aurc": compute_aurc(confidence, counts),
        "llm_f": llm_f,
        "cost_per_doc": cost,
        "chosen": None if chosen is None else _add_cost(chosen, cost),
        "steps": [_add_cost(point, cost) for point in steps],
        "curve": [asdict(point) for point in points],
        "llm_measured": llm_counts is not None,
    }


def choose_point(
    points: Sequence[Point], confidence: Confidences, settings: CascadeSettings
) -> Point | None:
    """The point that the settings ask for; None where no point has the target F1, or there is no
    target. confidence: (docs,), as the points were made from it."""
    if settings.threshold is not None:
        kept = int((confidence >= settings.threshold).sum())
        same = next(p for p in points if round(p.coverage * len(confidence)) == kept)
        return replace(same, threshold=settings.threshold)
    if settings.budget_share is not None:
        return _find_within_budget(points, settings.budget_share)
    target = settings.llm_f if settings.target_f is None else settings.target_f
    if target is None:
        return None
    good = [p for p in points if p.quality is not None and p.quality >= target]
    return min(good, key=lambda p: p.sent, default=None)


def _find_within_budget(points: Sequence[Point], share: float) -> Point:
    """The point that sends the most Docs, but at most this share of them."""
    return max((p for p in points if p.sent <= share), key=lambda p: p.sent)


def _add_cost(point: Point, cost: float | None) -> dict[str, Any]:
    """The point's fields, and the LLM's cost for 1,000 Docs, USD."""
    return {**asdict(point), "cost_per_1000": None if cost is None else 1000 * cost * point.sent}


def trace_risk_coverage(
    confidence: Confidences, counts: Counts, llm: Counts | None = None
) -> list[Point]:
    """One point for every set of Docs that a threshold can send, from none to all. Docs of equal
    confidence stay together.

    confidence: (docs,), at least one; counts, llm: (docs, 3), the pipeline's and the LLM's.
    """
    order, n = numpy.argsort(-confidence, kind="stable"), len(confidence)
    ordered, kept = confidence[order], _accumulate(counts[order])
    wrong = _accumulate(_is_wrong(counts[order]).astype("int64"))
    sent = None if llm is None else llm.sum(axis=0) - _accumulate(llm[order])
    last_of_group = numpy.flatnonzero(ordered[1:] < ordered[:-1]) + 1
    points = []
    for k in (n, *last_of_group[::-1].tolist(), 0):
        lowest = float(ordered[k - 1]) if k else None
        points.append(
            Point(
                threshold=0.0 if k == n else lowest,
                coverage=k / n,
                sent=(n - k) / n,
                f=float(compute_f(kept[k])) if kept[k, 1:].any() else None,
                error_rate=float(wrong[k] / k) if k else None,
                cascade_f=None if sent is None else float(compute_f(kept[k] + sent[k])),
            )
        )
    return points


def compute_aurc(confidence: Confidences, counts: Counts) -> float:
    """The area under the risk-coverage curve (Geifman and El-Yaniv, NeurIPS 2017): the mean over
    all coverages 1/n, 2/n, ... 1 of the error rate among the most confident Docs. Over Docs of
    equal confidence the mean of all their orders is taken. Lower is better.

    confidence: (docs,); counts: (docs, 3).
    """
    wrong = _is_wrong(counts).astype("float64")
    _, group = numpy.unique(-confidence, return_inverse=True)
    share = numpy.bincount(group, wrong) / numpy.bincount(group)
    expected = share[numpy.sort(group)]
    return float((numpy.cumsum(expected) / numpy.arange(1, len(wrong) + 1)).mean())


def _is_wrong(counts: Counts) -> NDArray[numpy.bool_]:
    """(docs, 3) -> (docs,)"""
    return (counts[:, 0] < counts[:, 1]) | (counts[:, 0] < counts[:, 2])


def _accumulate(rows: NDArray[numpy.int64]) -> NDArray[numpy.int64]:
    """Sums over the first 0, 1, ... all rows: (rows, ...) -> (1 + rows, ...)."""
    return numpy.concatenate([numpy.zeros_like(rows[:1]), numpy.cumsum(rows, axis=0)])

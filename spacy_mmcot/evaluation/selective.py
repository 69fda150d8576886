"""Answering only where the pipeline is sure: the risk-coverage curve, and the cascade in which an
LLM answers below a threshold of the Doc's confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy
from numpy.typing import NDArray

from .scores import Counts, f_scores

Confidences = NDArray[numpy.float64]


@dataclass(frozen=True)
class Point:
    """What becomes of the Docs under one threshold.

    threshold: Docs with a lower confidence are sent to the LLM; None: all Docs are.
    coverage, sent: the shares of Docs that the pipeline keeps and that are sent.
    f: micro F1 over the kept Docs, None where none has a mention, gold or found.
    error_rate: the share of the kept Docs in which a mention is wrong, missing or spurious; None
        where none is kept.
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
        """F1 of what answers: the whole cascade where the LLM's predictions are known, otherwise
        the pipeline on what it keeps."""
        return self.f if self.cascade_f is None else self.cascade_f


def risk_coverage(
    confidence: Confidences, counts: Counts, llm: Counts | None = None
) -> list[Point]:
    """All that a threshold can do, from sending no Doc to sending all. Docs of equal confidence
    stay together.

    confidence: (docs,), at least one; counts, llm: (docs, 3), the pipeline's and the LLM's.
    """
    order = numpy.argsort(-confidence, kind="stable")
    ordered, n = confidence[order], len(confidence)
    kept = _from_none(counts[order])
    wrong = _from_none(_is_wrong(counts[order]).astype("int64"))
    sent = None if llm is None else llm.sum(axis=0) - _from_none(llm[order])
    last_of_group = numpy.flatnonzero(ordered[1:] < ordered[:-1]) + 1
    points = []
    for k in (n, *last_of_group[::-1].tolist(), 0):
        if k == n:
            threshold: float | None = 0.0
        else:
            threshold = _shortest_between(ordered[k], ordered[k - 1]) if k else None
        points.append(
            Point(
                threshold=threshold,
                coverage=k / n,
                sent=(n - k) / n,
                f=float(f_scores(kept[k])) if kept[k, 1:].any() else None,
                error_rate=float(wrong[k] / k) if k else None,
                cascade_f=None if sent is None else float(f_scores(kept[k] + sent[k])),
            )
        )
    return points


def aurc(confidence: Confidences, counts: Counts) -> float:
    """The area under the risk-coverage curve (Geifman and El-Yaniv, NeurIPS 2017): the mean over
    all coverages 1/n, 2/n, ... 1 of the error rate among the surest Docs. Docs of equal confidence
    stand in random order: the mean over all their orders counts. Lower is better."""
    wrong = _is_wrong(counts).astype("float64")
    _, group = numpy.unique(-confidence, return_inverse=True)
    share = numpy.bincount(group, wrong) / numpy.bincount(group)
    expected = share[numpy.sort(group)]
    return float((numpy.cumsum(expected) / numpy.arange(1, len(wrong) + 1)).mean())


def best_aurc(counts: Counts) -> float:
    """The least area that any order of these Docs could have: all wrong ones last."""
    return aurc(-_is_wrong(counts).astype("float64"), counts)


def at_threshold(points: Sequence[Point], confidence: Confidences, threshold: float) -> Point:
    """The point of this threshold. confidence: (docs,), as the points were made from it."""
    kept = int((confidence >= threshold).sum())
    same = next(p for p in points if round(p.coverage * len(confidence)) == kept)
    return replace(same, threshold=threshold)


def within_budget(points: Sequence[Point], share: float) -> Point:
    """The point that sends the most Docs, and at most this share of them."""
    return max((p for p in points if p.sent <= share), key=lambda p: p.sent)


def reaching(points: Sequence[Point], target: float) -> Point | None:
    """The point that sends the fewest Docs and has this F1 or a better one; None without one."""
    good = [p for p in points if p.quality is not None and p.quality >= target]
    return min(good, key=lambda p: p.sent, default=None)


def best(points: Sequence[Point]) -> Point:
    """The point of the best F1, of several the one that sends the fewest Docs."""
    return max(points, key=lambda p: (-1.0 if p.quality is None else p.quality, -p.sent))


def _is_wrong(counts: Counts) -> NDArray[numpy.bool_]:
    return (counts[:, 0] < counts[:, 1]) | (counts[:, 0] < counts[:, 2])


def _from_none(rows: NDArray[numpy.int64]) -> NDArray[numpy.int64]:
    """Sums over the first 0, 1, ... all rows."""
    return numpy.concatenate([numpy.zeros_like(rows[:1]), numpy.cumsum(rows, axis=0)])


def _shortest_between(low: float, high: float) -> float:
    """The number of the fewest decimals that is above `low` and at most `high`: short enough to
    be copied into a program, and with the same Docs below it."""
    for digits in range(1, 17):
        shortest = numpy.floor(high * 10**digits) / 10**digits
        if low < shortest <= high:
            return float(shortest)
    return float(high)

"""The risk-coverage curve and the cascade, against counting by hand and brute force."""

from __future__ import annotations

import itertools

import found
import numpy
import pytest

from spacy_mmcot.evaluation.cascade import (
    CascadeSettings,
    Confidences,
    choose_point,
    compute_aurc,
    trace_risk_coverage,
)
from spacy_mmcot.evaluation.scores import compute_f, count_entities

RIGHT, WRONG, EMPTY = (1, 1, 1), (0, 1, 1), (0, 0, 0)
# Sure and right, sure and right without a mention, then less sure ones.
CONFIDENCE = numpy.array([0.25, 0.875, 0.5, 0.5])
COUNTS = numpy.array([WRONG, EMPTY, RIGHT, WRONG])
LLM = numpy.array([RIGHT, EMPTY, WRONG, RIGHT])


def test_by_hand() -> None:
    none, one, three, every = trace_risk_coverage(CONFIDENCE, COUNTS, LLM)
    assert (none.threshold, none.sent, none.coverage) == (0.0, 0, 1)
    assert (none.f, none.error_rate, none.cascade_f) == pytest.approx((1 / 3, 1 / 2, 1 / 3))
    assert (one.sent, one.coverage) == (0.25, 0.75)
    assert (one.f, one.error_rate, one.cascade_f) == pytest.approx((1 / 2, 1 / 3, 2 / 3))
    # Docs of equal confidence go together; what is kept has no mention, and no error.
    assert (three.sent, three.f, three.error_rate) == (0.75, None, 0)
    assert three.cascade_f == pytest.approx(2 / 3)
    assert (every.threshold, every.sent, every.f, every.error_rate) == (None, 1, None, None)
    assert every.cascade_f == pytest.approx(2 / 3)


def test_without_an_llm_its_quality_is_not_made_up() -> None:
    points = trace_risk_coverage(CONFIDENCE, COUNTS)
    assert {point.cascade_f for point in points} == {None}
    assert [point.quality for point in points] == [point.f for point in points]


def random_case() -> tuple[Confidences, numpy.ndarray, numpy.ndarray]:
    docs, llm = found.at_random(300, seed=1), found.at_random(300, seed=2, right=0.95)
    # Rounded, so that some are equal.
    confidence = numpy.array([round(doc.confidence or 0, 2) for doc in docs])
    return confidence, count_entities(docs), count_entities(llm)


def test_every_point_is_what_its_threshold_does() -> None:
    confidence, counts, llm = random_case()
    points = trace_risk_coverage(confidence, counts, llm)
    assert len(points) == len(set(confidence)) + 1
    assert [p.sent for p in points] == sorted(p.sent for p in points)
    for point in points:
        kept = confidence >= (2 if point.threshold is None else point.threshold)
        both = numpy.where(kept[:, None], counts, llm)
        assert point.coverage == pytest.approx(kept.mean())
        assert point.sent == pytest.approx(1 - point.coverage)
        assert point.cascade_f == pytest.approx(float(compute_f(both.sum(axis=0))))
        if kept.any():
            bad = (counts[kept, 0] < counts[kept, 1:].max(axis=1)).mean()
            assert point.error_rate == pytest.approx(bad)
        if counts[kept].any():
            assert point.f == pytest.approx(float(compute_f(counts[kept].sum(axis=0))))
        else:
            assert point.f is None


@pytest.mark.parametrize("low", [0.0, 5e-324, 0.1, 1 - 2**-53])
def test_neighbouring_numbers_have_a_threshold_between_them(low: float) -> None:
    high = float(numpy.nextafter(low, 2))
    points = trace_risk_coverage(numpy.array([low, high]), COUNTS[:2])
    threshold = points[1].threshold
    assert threshold is not None and low < threshold <= high


def by_all_orders(confidence: list[float], wrong: list[bool]) -> float:
    areas = []
    for order in itertools.permutations(range(len(wrong))):
        ordered = [confidence[i] for i in order]
        if ordered == sorted(ordered, reverse=True):
            risks = [sum(wrong[i] for i in order[:k]) / k for k in range(1, len(order) + 1)]
            areas.append(sum(risks) / len(risks))
    return sum(areas) / len(areas)


def test_area_against_all_orders_of_equal_confidence() -> None:
    generator = numpy.random.default_rng(0)
    for _ in range(30):
        confidence = generator.integers(3, size=6) / 2
        wrong = generator.random(6) < 0.5
        counts = numpy.array([WRONG if bad else RIGHT for bad in wrong])
        expected = by_all_orders(confidence.tolist(), wrong.tolist())
        assert compute_aurc(confidence, counts) == pytest.approx(expected)
        assert compute_aurc(-wrong.astype(float), counts) <= expected + 1e-9


def test_area_of_a_confidence_that_says_something() -> None:
    confidence, counts, _ = random_case()
    error_rate = trace_risk_coverage(confidence, counts)[0].error_rate
    assert error_rate is not None
    assert compute_aurc(confidence, counts) < error_rate
    assert compute_aurc(numpy.full(300, 0.5), counts) == pytest.approx(error_rate)
    assert compute_aurc(-confidence, counts) > error_rate


def test_choosing() -> None:
    confidence, counts, llm = random_case()
    points = trace_risk_coverage(confidence, counts, llm)
    for share in (0.0, 0.333, 0.5, 1.0):
        chosen = choose_point(points, confidence, CascadeSettings(budget_share=share))
        assert chosen is not None and chosen.sent <= share
        assert not [p for p in points if chosen.sent < p.sent <= share]
    target = ((points[0].cascade_f or 0) + (points[-1].cascade_f or 0)) / 2
    chosen_or_none = choose_point(points, confidence, CascadeSettings(target_f=target))
    assert chosen_or_none is not None and 0 < chosen_or_none.sent < 1
    assert (chosen_or_none.cascade_f or 0) >= target
    assert all((p.cascade_f or 0) < target for p in points if p.sent < chosen_or_none.sent)
    assert choose_point(points, confidence, CascadeSettings(llm_f=target)) == chosen_or_none
    assert choose_point(points, confidence, CascadeSettings(target_f=1.1)) is None
    assert choose_point(points, confidence, CascadeSettings()) is None


def test_any_threshold() -> None:
    confidence, counts, llm = random_case()
    points = trace_risk_coverage(confidence, counts, llm)
    for threshold in (0.0, 0.3, 0.3333, 0.77, 1.0):
        point = choose_point(points, confidence, CascadeSettings(threshold=threshold))
        assert point is not None and point.threshold == threshold
        assert point.sent == pytest.approx((confidence < threshold).mean())
        same = next(p for p in points if p.sent == point.sent)
        assert (point.f, point.cascade_f) == (same.f, same.cascade_f)

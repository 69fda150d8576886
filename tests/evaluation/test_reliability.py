"""How far scores can be trusted, by numbers made by hand and at random."""

from __future__ import annotations

import found
import numpy
import pytest
from found import word

from spacy_mmcot.evaluation.calibration import (
    collect_mention_scores,
    compute_calibration_error,
    compute_reliability,
)


def ece(scores: list[float], right: list[int], **bins: int) -> float:
    return compute_calibration_error(numpy.array(scores), numpy.array(right, dtype=bool), **bins)


@pytest.mark.parametrize(
    ("scores", "right", "expected"),
    [
        ([], [], 0.0),
        ([1.0, 1.0], [1, 1], 0.0),
        ([1.0, 1.0], [1, 0], 0.5),
        ([0.8] * 5, [1, 1, 1, 1, 0], 0.0),
        ([0.8] * 5, [0] * 5, 0.8),
        # Bins [0.5, 0.6) and [0.9, 1.0]: 3/4 of |0.55 - 2/3| and 1/4 of |0.95 - 0|.
        ([0.55, 0.55, 0.55, 0.95], [1, 1, 0, 0], 0.75 * (2 / 3 - 0.55) + 0.25 * 0.95),
        # In one bin the gaps of single mentions cancel, across bins they do not.
        ([0.51, 0.59], [1, 0], 0.05),
        ([0.45, 0.55], [1, 0], 0.55),
        ([0.0], [1], 1.0),
    ],
)
def test_calibration_error_by_hand(scores: list[float], right: list[int], expected: float) -> None:
    assert ece(scores, right) == pytest.approx(expected)


def test_calibration_error_of_one_bin_is_the_gap_of_the_means() -> None:
    assert ece([0.2, 0.9, 0.7], [0, 1, 0], n_bins=1) == pytest.approx(0.6 - 1 / 3)


def test_many_true_probabilities_lie_on_the_diagonal() -> None:
    generator = numpy.random.default_rng(0)
    scores = generator.random(50_000)
    right = generator.random(50_000) < scores
    assert compute_calibration_error(scores, right) < 0.01
    for row in compute_reliability(scores, right):
        assert row["low"] <= row["score"] < row["high"]
        assert row["right"] == pytest.approx(row["score"], abs=0.03)
    assert compute_calibration_error(numpy.sqrt(scores), right) > 0.1


def test_the_curve_by_hand() -> None:
    curve = compute_reliability(
        numpy.array([0.0, 0.3, 0.25, 1.0]), numpy.array([0, 1, 0, 1], bool), 4
    )
    assert [(row["low"], row["high"], row["n"]) for row in curve] == [
        *((0.0, 0.25, 1), (0.25, 0.5, 2), (0.75, 1.0, 1))
    ]
    assert [row["score"] for row in curve] == [0.0, pytest.approx(0.275), 1.0]
    assert [row["right"] for row in curve] == [0.0, 0.5, 1.0]


def test_the_curve_of_nothing_is_empty() -> None:
    assert compute_reliability(*collect_mention_scores([])) == []


def test_mentions_count_with_offsets_and_label() -> None:
    doc = found.predicted(
        "1",
        [word(0), word(1, 2), word(4, label="LOC")],
        [
            (*word(0), 0.9),
            (*word(1), 0.8),  # too short
            (*word(4), 0.7),  # wrong label
            word(5, label="LOC"),  # without a score
        ],
    )
    bare = found.predicted("2", None, [(*word(0), 0.6)])
    scores, right = collect_mention_scores([doc, bare])
    assert scores.tolist() == [0.9, 0.8, 0.7]
    assert right.tolist() == [True, False, False]

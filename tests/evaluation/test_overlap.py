"""Scores of entities that are almost right."""

from __future__ import annotations

import found
import pytest
from found import word

from spacy_mmcot.evaluation.predictions import Predicted
from spacy_mmcot.evaluation.scores import (
    compute_f,
    compute_prf,
    count_confusions,
    count_entities,
    score_boundaries,
    score_overlaps,
)

DOC = found.predicted(
    "1",
    [word(0), word(2, 4, "LOC"), word(6, label="ORG"), word(8, 9, "ORG")],
    [word(0), word(2, 3, "LOC"), word(6, label="PER"), word(11, label="LOC")],
)
BARE = found.predicted("2", None, [word(0)])


def values(scores: dict[str, float]) -> list[float]:
    return list(scores.values())


def test_by_hand() -> None:
    docs = [DOC, BARE]
    assert count_entities(docs).tolist() == [[1, 4, 4], [0, 0, 0]]
    assert score_boundaries(docs) == {
        key: pytest.approx(2 / 4)
        for key in ("ents_boundary_p", "ents_boundary_r", "ents_boundary_f")
    }
    assert values(score_overlaps(count_confusions(docs))) == pytest.approx([2 / 4] * 3)
    assert count_confusions(docs) == {
        "LOC": {"LOC": 1},
        "None": {"LOC": 1},
        "ORG": {"None": 1, "PER": 1},
        "PER": {"PER": 1},
    }


def test_nothing_at_all() -> None:
    for docs in ([], [BARE], [found.predicted("3", [], [])]):
        assert (
            values(score_boundaries(docs))
            == values(score_overlaps(count_confusions(docs)))
            == [0, 0, 0]
        )
        assert count_confusions(docs) == {}
        assert compute_prf("x", count_entities(docs).sum(axis=0)) == {"x_p": 0, "x_r": 0, "x_f": 0}


def test_a_mention_is_in_one_pair_at_most() -> None:
    """Two found within one gold mention: one is right, the other spurious."""
    doc = found.predicted("1", [word(0, 5)], [word(0, 1), word(3, 5)])
    assert values(score_overlaps(count_confusions([doc]))) == pytest.approx([1 / 2, 1, 2 / 3])
    assert count_confusions([doc]) == {"None": {"PER": 1}, "PER": {"PER": 1}}


def test_touching_is_no_overlap() -> None:
    doc = found.predicted("1", [(0, 4, "PER")], [(4, 9, "PER")])
    assert values(score_overlaps(count_confusions([doc]))) == [0, 0, 0]
    assert count_confusions([doc]) == {"None": {"PER": 1}, "PER": {"None": 1}}


def test_confusion_takes_the_longest_overlap_then_the_same_label() -> None:
    longest = found.predicted("1", [word(0, 5)], [word(0, 0), word(2, 5, "LOC")])
    assert count_confusions([longest]) == {"None": {"PER": 1}, "PER": {"LOC": 1}}
    same = found.predicted("1", [word(0, 1)], [word(0, 0, "LOC"), word(1, 2)])
    assert count_confusions([same]) == {"None": {"LOC": 1}, "PER": {"PER": 1}}
    first = found.predicted("1", [word(0, 1)], [word(0, 0, "LOC"), word(1, 2, "ORG")])
    assert count_confusions([first]) == {"None": {"ORG": 1}, "PER": {"LOC": 1}}


def test_each_kind_of_score_admits_more_than_the_strict_one() -> None:
    docs = found.at_random(200, seed=3)
    strict = float(compute_f(count_entities(docs).sum(axis=0)))
    assert 0 < strict < score_boundaries(docs)["ents_boundary_f"] < 1
    assert strict < score_overlaps(count_confusions(docs))["ents_partial_f"] < 1
    table = count_confusions(docs)
    gold = sum(n for row, cells in table.items() if row != "None" for n in cells.values())
    assert sum_of(docs, "gold") == gold
    assert sum_of(docs, "entities") == sum(
        n for cells in table.values() for label, n in cells.items() if label != "None"
    )


def sum_of(docs: list[Predicted], side: str) -> int:
    return sum(len(getattr(doc, side)) for doc in docs)

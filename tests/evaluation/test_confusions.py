"""Which labels are confused: mentions paired by overlap."""

from __future__ import annotations

import found
from found import word

from spacy_mmcot.evaluation.predictions import Predicted
from spacy_mmcot.evaluation.scores import (
    compute_prf,
    count_confusions,
    count_entities,
)

DOC = found.predicted(
    "1",
    [word(0), word(2, 4, "LOC"), word(6, label="ORG"), word(8, 9, "ORG")],
    [word(0), word(2, 3, "LOC"), word(6, label="PER"), word(11, label="LOC")],
)
BARE = found.predicted("2", None, [word(0)])


def test_by_hand() -> None:
    docs = [DOC, BARE]
    assert count_entities(docs).tolist() == [[1, 4, 4], [0, 0, 0]]
    assert count_confusions(docs) == {
        "LOC": {"LOC": 1},
        "None": {"LOC": 1},
        "ORG": {"None": 1, "PER": 1},
        "PER": {"PER": 1},
    }


def test_nothing_at_all() -> None:
    for docs in ([], [BARE], [found.predicted("3", [], [])]):
        assert count_confusions(docs) == {}
        assert compute_prf("x", count_entities(docs).sum(axis=0)) == {"x_p": 0, "x_r": 0, "x_f": 0}


def test_a_mention_is_in_one_pair_at_most() -> None:
    """Two found within one gold mention: one is right, the other spurious."""
    doc = found.predicted("1", [word(0, 5)], [word(0, 1), word(3, 5)])
    assert count_confusions([doc]) == {"None": {"PER": 1}, "PER": {"PER": 1}}


def test_touching_is_no_overlap() -> None:
    doc = found.predicted("1", [(0, 4, "PER")], [(4, 9, "PER")])
    assert count_confusions([doc]) == {"None": {"PER": 1}, "PER": {"None": 1}}


def test_confusion_takes_the_longest_overlap_then_the_same_label() -> None:
    longest = found.predicted("1", [word(0, 5)], [word(0, 0), word(2, 5, "LOC")])
    assert count_confusions([longest]) == {"None": {"PER": 1}, "PER": {"LOC": 1}}
    same = found.predicted("1", [word(0, 1)], [word(0, 0, "LOC"), word(1, 2)])
    assert count_confusions([same]) == {"None": {"LOC": 1}, "PER": {"PER": 1}}
    first = found.predicted("1", [word(0, 1)], [word(0, 0, "LOC"), word(1, 2, "ORG")])
    assert count_confusions([first]) == {"None": {"ORG": 1}, "PER": {"LOC": 1}}


def test_every_mention_is_in_the_table_once() -> None:
    docs = found.at_random(200, seed=3)
    table = count_confusions(docs)
    gold = sum(n for row, cells in table.items() if row != "None" for n in cells.values())
    assert sum_of(docs, "gold") == gold
    assert sum_of(docs, "entities") == sum(
        n for cells in table.values() for label, n in cells.items() if label != "None"
    )


def sum_of(docs: list[Predicted], side: str) -> int:
    return sum(len(getattr(doc, side)) for doc in docs)

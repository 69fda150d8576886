"""Names that were labelled before, and names that were not."""

from __future__ import annotations

import found
import pytest

from spacy_mmcot.evaluation.scores import compute_prf, count_entities, score_seen_names

TEXT = "Anna met ANNA and Oslo in Rome"
ANNA, SHOUTED, OSLO, ROME = (0, 4), (9, 13), (18, 22), (26, 30)
KNOWN = {("anna", "PER"), ("oslo", "ORG")}


def test_by_hand() -> None:
    doc = found.predicted(
        "1",
        [(*ANNA, "PER"), (*SHOUTED, "PER"), (*OSLO, "LOC"), (*ROME, "LOC")],
        [(*ANNA, "PER"), (*SHOUTED, "LOC"), (*OSLO, "LOC"), (*ROME, "LOC")],
        text=TEXT,
    )
    bare = found.predicted("2", None, [(*ANNA, "PER")], text=TEXT)
    scores = score_seen_names([doc, bare], KNOWN)
    # Gold Anna and ANNA, and Anna found; ANNA as a place is a name that nobody labelled so.
    assert [scores[f"seen_{key}"] for key in "prfn"] == pytest.approx([1, 1 / 2, 2 / 3, 2])
    # Gold Oslo and Rome, and both found, beside ANNA.
    assert [scores[f"unseen_{key}"] for key in "prfn"] == pytest.approx([2 / 3, 1, 4 / 5, 2])
    # All but Rome, on both sides.
    assert [scores[f"surface_seen_{key}"] for key in "prfn"] == pytest.approx([2 / 3] * 3 + [3])
    assert [scores[f"surface_unseen_{key}"] for key in "prfn"] == [1, 1, 1, 1]


def test_none_where_gold_has_no_such_mention() -> None:
    doc = found.predicted("1", [(*ANNA, "PER")], [(*OSLO, "LOC")], text=TEXT)
    scores = score_seen_names([doc], KNOWN)
    assert [scores[f"seen_{key}"] for key in "prfn"] == [0, 0, 0, 1]
    assert [scores[f"unseen_{key}"] for key in "prfn"] == [None, None, None, 0]


def test_both_groups_together_are_all_mentions() -> None:
    """Right ones are in the same group on both sides, so counts add up."""
    docs = found.at_random(100, seed=2)
    known = {(found.TEXT[s:e].casefold(), label) for s, e, label in map(found.word, (0, 3))}
    scores = score_seen_names(docs, known)
    right, _, gold = count_entities(docs).sum(axis=0).tolist()
    for one, other in (("seen", "unseen"), ("surface_seen", "surface_unseen")):
        parts = [(scores[f"{name}_n"], scores[f"{name}_r"]) for name in (one, other)]
        assert sum(n for n, _ in parts) == gold
        assert sum(n * r for n, r in parts) == pytest.approx(right)


def test_everything_known_is_the_strict_score() -> None:
    docs = found.at_random(50, seed=4)
    every = {(doc.text[e.start : e.end], e.label) for doc in docs for e in doc.entities}
    every |= {(doc.text[e.start : e.end], e.label) for doc in docs for e in doc.gold or ()}
    scores = score_seen_names(docs, every)
    strict = compute_prf("seen", count_entities(docs).sum(axis=0))
    assert {key: scores[key] for key in strict} == pytest.approx(strict)
    assert scores["unseen_n"] == 0

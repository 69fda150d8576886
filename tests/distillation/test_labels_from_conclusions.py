from __future__ import annotations

from typing import Any

import numpy
import pytest
import spacy
from spacy.tokens import Doc

from spacy_mmcot.corpus.docs import make_doc
from spacy_mmcot.distillation import conclusions
from spacy_mmcot.distillation.conclusions import (
    MIN_LABELLED,
    Confidence,
    measure_confidence,
    set_labels_from_conclusions,
)
from spacy_mmcot.distillation.soft_labels import get_soft_labels, get_soft_relations, get_soft_tags
from spacy_mmcot.types import (
    DEFAULT_CONFIDENCE,
    Answers,
    ConcludedEntity,
    ConcludedRelation,
    Conclusion,
    Entity,
    Post,
    PostRelation,
)

TEXT = "Ada Berg lives in Oslo"
TAGS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def doc(
    entities: list[tuple[str, str, Any]],
    concluded: list[tuple[str, str, str, Any]] | None = None,
    gold: list[tuple[str, str]] | None = None,
    **fields: Any,
) -> Doc:
    """A Doc of TEXT with a conclusion and, where `gold` is given, labels."""
    found = [
        ConcludedEntity(mention=m, label=x, sure=s, start=TEXT.index(m)) for m, x, s in entities
    ]
    related = concluded and [
        ConcludedRelation(
            **{"head": h, "head_start": TEXT.index(h), "label": label},
            **{"tail": t, "tail_start": TEXT.index(t), "sure": sure},
        )
        for h, label, t, sure in concluded
    ]
    labels = [
        Entity(start=TEXT.index(m), end=TEXT.index(m) + len(m), label=x) for m, x in gold or ()
    ]
    post = Post(id="1", text=TEXT, entities=None if gold is None else labels, **fields)
    answers = Answers(id="1", conclusion=Conclusion(entities=found, relations=related))
    return make_doc(spacy.blank("en"), post, answers)


def soft(one: Doc) -> numpy.ndarray:
    found = get_soft_labels(one, TAGS)
    assert found is not None
    return found


def test_sureness_decides_how_much_a_conclusion_says() -> None:
    one = doc([("Ada Berg", "PER", "high"), ("Oslo", "LOC", "low")])
    list(set_labels_from_conclusions([one], ["PER", "LOC"]))
    assert get_soft_tags(one) == TAGS
    expected = numpy.zeros((5, 5))
    expected[0, [0, 3]] = 0.05, 0.95
    expected[1, [0, 4]] = 0.05, 0.95
    expected[2:4, 0] = 1.0
    expected[4, [0, 1]] = 0.5, 0.5
    assert soft(one) == pytest.approx(expected, abs=1e-3)


def test_docs_without_a_conclusion_and_labels_beyond_the_scheme_teach_nothing() -> None:
    none = make_doc(spacy.blank("en"), Post(id="1", text=TEXT))
    other = doc([("Oslo", "CITY", "high")])
    list(set_labels_from_conclusions([none, other], ["PER", "LOC"]))
    assert get_soft_labels(none, TAGS) is None
    assert soft(other)[:, 0] == pytest.approx(1.0)


def test_confidence_is_measured_where_enough_docs_are_labelled() -> None:
    concluded = [("Ada Berg", "PER", "high"), ("Oslo", "LOC", "high")]
    right = doc(concluded, gold=[("Ada Berg", "PER"), ("Oslo", "LOC")])
    wrong = doc(concluded, gold=[("Ada Berg", "PER")])
    few = measure_confidence([right] * (MIN_LABELLED - 1))
    assert few.of("entity", "PER", "high") == DEFAULT_CONFIDENCE["high"]
    half = measure_confidence([right, wrong] * MIN_LABELLED)
    assert half.of("entity", "PER", "high") == pytest.approx(1.0, abs=0.02)
    assert half.of("entity", "LOC", "high") == pytest.approx(0.5, abs=0.02)
    assert half.of("entity", "PER", "low") == DEFAULT_CONFIDENCE["low"]
    assert half.of("relation", "PER", "high") == DEFAULT_CONFIDENCE["high"]


def test_relations_are_taught_on_the_concluded_mentions() -> None:
    one = doc(
        [("Ada Berg", "PER", "high"), ("Oslo", "LOC", "high")],
        [("Ada Berg", "lives_in", "Oslo", "high")],
    )
    list(set_labels_from_conclusions([one], ["PER", "LOC"], ["lives_in", "born_in"]))
    found = get_soft_relations(one, ["born_in", "lives_in"])
    assert found is not None
    assert [(TEXT[a:b], label) for a, b, label in found.mentions] == [
        ("Ada Berg", "PER"),
        ("Oslo", "LOC"),
    ]
    assert found.pairs.tolist() == [[0, 1], [1, 0]]
    assert found.probabilities == pytest.approx(
        numpy.array([[0.05, 0.0, 0.95], [1.0, 0.0, 0.0]]), abs=1e-3
    )


def test_relations_of_the_last_of_many_mentions_are_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conclusions, "_MOST_MENTIONS", 1)
    found = [("Ada Berg", "PER", "high"), ("Oslo", "LOC", "high")]
    one, none = doc(found, [("Ada Berg", "lives_in", "Oslo", "high")]), doc(found, [])
    list(set_labels_from_conclusions([one, none], ["PER", "LOC"], ["lives_in"]))
    soft = get_soft_relations(one)
    assert soft is not None and soft.pairs.tolist() == [[0, 1]]
    assert soft.probabilities[0] == pytest.approx([0.05, 0.95], abs=1e-3)
    assert get_soft_relations(none) is None


def test_relations_are_taught_on_given_mentions_and_the_pairs_asked_about() -> None:
    one = doc(
        [],
        [("Oslo", "None", "Ada Berg", "low")],
        gold=[("Ada Berg", "PER"), ("Oslo", "LOC")],
        pairs=[(1, 0)],
    )
    list(set_labels_from_conclusions([one], ["PER", "LOC"], ["lives_in"]))
    found = get_soft_relations(one)
    assert found is not None and found.pairs.tolist() == [[1, 0]]
    assert found.probabilities[0, 0] == pytest.approx(1.0)


def test_what_people_labelled_outvotes_the_conclusion() -> None:
    concluded = [("Ada Berg", "LOC", "high"), ("Oslo", "LOC", "high")]
    gold = [("Ada Berg", "PER"), ("Oslo", "LOC")]
    related = [("Ada Berg", "born_in", "Oslo", "high")]
    relations = [PostRelation(head=0, tail=1, label="lives_in")]
    one = doc(concluded, related, gold=gold, relations=relations)
    list(set_labels_from_conclusions([one], ["PER", "LOC"], ["lives_in", "born_in"]))
    assert soft(one)[[0, 1, 4], [3, 4, 1]] == pytest.approx(1.0)
    found = get_soft_relations(one, ["born_in", "lives_in"])
    assert found is not None and found.pairs.tolist() == [[0, 1], [1, 0]]
    assert found.probabilities.tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    # A text in which people found nothing teaches nothing else.
    none = doc(concluded, related, gold=[])
    list(set_labels_from_conclusions([none], ["PER", "LOC"], ["lives_in", "born_in"]))
    assert soft(none)[:, 0] == pytest.approx(1.0)


def test_the_second_choice_gets_the_rest() -> None:
    one = doc(
        [("Ada Berg", "PER", "high"), ("Oslo", "LOC", "high")], [("Ada Berg", "a", "Oslo", "low")]
    )
    one._.mmcot_knowledge["conclusion"]["relations"][0]["or_label"] = "b"
    list(set_labels_from_conclusions([one], ["PER", "LOC"], ["a", "b"]))
    found = get_soft_relations(one)
    assert found is not None
    assert found.probabilities[0] == pytest.approx([0.0, 0.5, 0.5])


def test_relation_confidence_is_measured_too() -> None:
    gold = [("Ada Berg", "PER"), ("Oslo", "LOC")]
    concluded = [("Ada Berg", "PER", "high"), ("Oslo", "LOC", "high")]
    related = [("Ada Berg", "lives_in", "Oslo", "high")]
    right = doc(
        concluded, related, gold, relations=[PostRelation(head=0, tail=1, label="lives_in")]
    )
    wrong = doc(concluded, related, gold, relations=[])
    found = measure_confidence([right, wrong, wrong, wrong] * MIN_LABELLED)
    assert found.of("relation", "lives_in", "high") == pytest.approx(0.25, abs=0.02)


def test_a_users_own_confidence_counts() -> None:
    one = doc([("Oslo", "LOC", "high")])
    mine = Confidence({"high": 0.8, "medium": 0.6, "low": 0.2})
    list(set_labels_from_conclusions([one], ["LOC"], confidence=mine))
    assert get_soft_labels(one, ["O", "B-LOC", "I-LOC"])[4] == pytest.approx(
        [0.2, 0.8, 0.0], abs=1e-3
    )  # type: ignore[index]

"""Which texts are given to a person, in which order, and with which labels."""

from __future__ import annotations

from typing import Any

import spacy
from spacy.language import Language
from spacy.tokens import Doc

from spacy_mmcot.corpus.docbin import make_examples
from spacy_mmcot.corpus.extensions import set_relations
from spacy_mmcot.evaluation.review import Review, choose_reviews
from spacy_mmcot.types import ID_KEY, KNOWLEDGE_KEY, PostRelation, Relation, Split

Names = dict[str, str]


def student(*names: str) -> Language:
    """A pipeline that finds these places, surely."""
    nlp = spacy.blank("en")
    ruler: Any = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "LOC", "pattern": name} for name in names])
    return nlp


def make_doc(
    nlp: Language,
    name: str,
    text: str,
    concluded: Names | None = None,
    gold: Names | None = None,
    sure: str = "high",
) -> Doc:
    """A Doc with labels by mention: those of a conclusion, and gold ones."""
    doc = nlp.make_doc(text)
    doc.user_data[ID_KEY] = name
    if concluded is not None:
        entities = [
            {"mention": mention, "label": label, "sure": sure, "start": text.index(mention)}
            for mention, label in concluded.items()
        ]
        doc.user_data[KNOWLEDGE_KEY] = {"conclusion": {"entities": entities}}
    if gold is not None:
        spans = [
            doc.char_span(text.index(m), text.index(m) + len(m), label=label)
            for m, label in gold.items()
        ]
        doc.set_ents(spans, default="outside")
    return doc


def choose(nlp: Language, docs: list[Doc], limit: int = 10, **settings: Any) -> list[Review]:
    splits: list[Split] = settings.pop("splits", ["train"] * len(docs))
    return choose_reviews(nlp, list(make_examples(nlp, docs)), splits, limit, **settings)


def test_disagreement_comes_before_doubt_and_agreement() -> None:
    nlp = student("Oslo", "Rome")
    agree = make_doc(nlp, "agree", "We saw Oslo then", {"Oslo": "LOC"})
    unsure = make_doc(nlp, "unsure", "We saw Rome then", {"Rome": "LOC"}, sure="low")
    differ = make_doc(nlp, "differ", "We saw Oslo then", {"Oslo": "ORG"})
    missed = make_doc(nlp, "missed", "We saw Lima then", {"Lima": "LOC"})
    names = [review.post.id for review in choose(nlp, [agree, unsure, missed, differ])]
    assert names == ["differ", "missed", "unsure", "agree"]


def test_gold_labels_that_both_contradict_are_doubtful() -> None:
    nlp = student("Oslo")
    wrong = make_doc(nlp, "wrong", "We saw Oslo then", {"Oslo": "LOC"}, {"Oslo": "PER"})
    right = make_doc(nlp, "right", "We saw Oslo then", {"Oslo": "LOC"}, {"Oslo": "LOC"})
    first, second = choose(nlp, [right, wrong])
    assert first.post.id == "wrong" and first.doubts["PER"] > 0.5
    assert sum(second.doubts.values()) < 0.1
    # Gold is what is shown, and changed if need be.
    assert [entity.label for entity in first.post.entities or ()] == ["PER"]


def test_new_names_come_first() -> None:
    nlp = student()
    gold = make_doc(nlp, "gold", "We saw Oslo then", {}, {"Oslo": "LOC"})
    known = make_doc(nlp, "known", "We saw Oslo then", {"Oslo": "LOC"})
    new = make_doc(nlp, "new", "We saw Lima then", {"Lima": "LOC"})
    names = [review.post.id for review in choose(nlp, [gold, known, new], skip={"gold"})]
    assert names == ["new", "known"]


def test_texts_are_spread_over_the_labels() -> None:
    nlp = student()
    common = [make_doc(nlp, f"c{i}", f"We saw Oslo {i}", {"Oslo": "LOC"}) for i in range(20)]
    rare = [
        make_doc(nlp, f"r{i}", f"A long way from it, Ada {i}", {"Ada": "PER"}) for i in range(4)
    ]
    chosen = [review.post.id[0] for review in choose(nlp, [*common, *rare], 6)]
    assert chosen.count("r") >= 2 and chosen.count("c") >= 2


def test_labels_are_those_of_both_and_each_names_who_proposes_it() -> None:
    nlp = student("Oslo", "New York")
    text = "Ada flew from New York City to Oslo and to Lima"
    concluded = {"Ada": "PER", "New York City": "LOC", "Oslo": "LOC"}
    (review,) = choose(nlp, [make_doc(nlp, "a", text, concluded)], splits=["unlabelled"])
    shown = {text[e.start : e.end]: e.label for e in review.post.entities or ()}
    # The student's New York stands, so the LLM's overlapping one does not.
    assert shown == {"Ada": "PER", "New York": "LOC", "Oslo": "LOC"}
    assert review.by == ["LLM", "student", "LLM student"]
    assert (review.post.split, review.post.relations) == ("train", None)


def test_random_texts_are_the_same_for_a_seed_and_not_the_most_doubtful() -> None:
    nlp = student()
    docs = [
        make_doc(nlp, str(i), f"We saw Oslo {i}", {"Oslo": "LOC"} if i < 5 else {})
        for i in range(50)
    ]
    first, second, other = (
        [review.post.id for review in choose(nlp, docs, 10, order="random", seed=seed)]
        for seed in (1, 1, 2)
    )
    assert first == second != other
    assert len({*first} & set("01234")) < 5
    assert choose(nlp, docs, 100) and len(choose(nlp, docs, 100)) == 50
    assert len(choose(nlp, [*docs, nlp(""), nlp(" ")], 100)) == 50


def test_gold_relations_stay_where_the_pipeline_finds_none() -> None:
    nlp = student("Oslo")
    doc = make_doc(nlp, "a", "Ada saw Oslo then", gold={"Ada": "PER", "Oslo": "LOC"})
    set_relations(doc, [Relation(doc.ents[0], doc.ents[1], "saw", 1.0)])
    (review,) = choose(nlp, [doc])
    assert review.post.relations == [PostRelation(head=0, tail=1, label="saw")]
    assert "saw" not in review.doubts

from __future__ import annotations

import json
from typing import Any

import pytest

from spacy_mmcot.elicitation.conclusion import (
    Examples,
    conclusion_schema,
    example_answer,
    find_mention,
    merge_conclusions,
    read_conclusion,
    text_key,
)
from spacy_mmcot.elicitation.replies import AnswerRejected
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.scheme import RelationLabel, Scheme
from spacy_mmcot.types import Conclusion, Entity, Post, PostRelation

ENTITIES = Scheme(entities={"PER": "people", "LOC": "places"}, examples=2)
BOTH = Scheme(
    entities={"PER": "people", "LOC": "places"},
    relations={"lives_in": RelationLabel(definition="lives there", head=["PER"], tail=["LOC"])},
    examples=2,
)


def labelled(text: str, *mentions: tuple[str, str], lives: bool = False, **fields: Any) -> Post:
    entities = [
        Entity(start=text.index(m), end=text.index(m) + len(m), label=label)
        for m, label in mentions
    ]
    relations = [PostRelation(head=0, tail=1, label="lives_in")] if lives else []
    return Post(id=text, text=text, entities=entities, relations=relations, **fields)


def read(text: str, scheme: Scheme = BOTH, **answer: Any) -> tuple[Conclusion, list[str]]:
    dropped: list[str] = []
    return read_conclusion(answer, Post(id="1", text=text), scheme, dropped), dropped


def entity(mention: str, label: str, sure: Any = "high") -> dict[str, Any]:
    return {"mention": mention, "label": label, "sure": sure}


def test_repeated_mentions_are_told_apart() -> None:
    text = "Paris flew to Paris, then Paris slept"
    found, dropped = read(
        text, entities=[entity("Paris", "PER"), entity("Paris", "LOC"), entity("Paris", "PER")]
    )
    assert not dropped
    assert [(e.start, e.label) for e in found.entities or ()] == [
        (0, "PER"),
        (14, "LOC"),
        (26, "PER"),
    ]


def test_mentions_stand_as_words_before_they_stand_inside_words() -> None:
    assert find_mention("Art", "Artists show Art") == [(13, 16)]
    assert find_mention("Art", "Artists show") == [(0, 3)]
    assert find_mention("#FilmWeek", "at # FilmWeek") == [(5, 13)]
    assert find_mention("new  york", "New York") == [(0, 8)]
    assert find_mention("Rome", "Paris") == []
    assert find_mention("#", "# one") == []


def test_labels_outside_the_scheme_are_dropped_and_counted() -> None:
    found, dropped = read("Ada in Rome", entities=[entity("Ada", "HUMAN"), entity("Rome", "LOC")])
    assert [e.mention for e in found.entities or ()] == ["Rome"]
    assert len(dropped) == 1 and "'HUMAN'" in dropped[0]


def test_what_the_text_does_not_hold_is_dropped_and_an_answer_of_such_alone_refused() -> None:
    found, dropped = read("Ada in Rome", entities=[entity("Bob", "PER"), entity("Rome", "LOC")])
    assert [e.mention for e in found.entities or ()] == ["Rome"] and "'Bob'" in dropped[0]
    with pytest.raises(AnswerRejected, match="none of 2"):
        read("Ada in Rome", entities=[entity("Bob", "PER"), entity("Wien", "LOC")])


def test_relations_join_listed_mentions_alone() -> None:
    both = [entity("Ada", "PER"), entity("Rome", "LOC")]
    relation = {"head": "Ada", "label": "lives_in", "tail": "Rome", "sure": "medium"}
    found, dropped = read("Ada lives in Rome", entities=both, relations=[relation])
    (kept,) = found.relations or ()
    assert (kept.head_start, kept.tail_start, kept.sure) == (0, 13, "medium") and not dropped
    found, dropped = read("Ada lives in Rome", entities=both[:1], relations=[relation])
    assert found.relations == [] and "'Rome'" in dropped[0]
    found, dropped = read(
        "Ada lives in Rome", entities=both, relations=[{**relation, "label": "owns"}]
    )
    assert found.relations == [] and "'owns'" in dropped[0]


def test_given_pairs_are_decided_each() -> None:
    post = labelled("Ada lives in Rome", ("Ada", "PER"), ("Rome", "LOC"), pairs=[(0, 1), (1, 0)])
    answer = {
        "relations": [
            {"head": "Ada", "label": "lives_in", "tail": "Rome", "sure": "high"},
            {"head": "Rome", "label": "None", "tail": "Ada", "sure": "low", "or": "lives_in"},
        ]
    }
    found = read_conclusion(answer, post, BOTH, [])
    assert found.entities is None
    assert [(r.head_start, r.label, r.or_label) for r in found.relations or ()] == [
        (0, "lives_in", None),
        (13, "None", "lives_in"),
    ]
    schema = conclusion_schema(BOTH, pairs=True)
    label = schema["properties"]["relations"]["items"]["properties"]["label"]
    assert label["enum"] == ["lives_in", "None"] and "entities" not in schema["properties"]


@pytest.mark.parametrize("sure, level", [(True, "high"), (False, "low"), ("medium", "medium")])
def test_sureness_has_three_levels(sure: Any, level: str) -> None:
    found, _ = read("Ada", entities=[entity("Ada", "PER", sure)])
    assert found.entities and found.entities[0].sure == level
    with pytest.raises(AnswerRejected, match="sure"):
        read("Ada", entities=[entity("Ada", "PER", "certain")])


@pytest.mark.parametrize("answer", [[], {}, {"reasoning": "none"}, {"entities": "none"}])
def test_answers_of_another_form_are_refused(answer: Any) -> None:
    with pytest.raises(AnswerRejected):
        read_conclusion(answer, Post(id="1", text="Ada"), BOTH, [])


def test_examples_cover_every_label_and_never_show_a_post_its_own() -> None:
    posts = [
        *(labelled(f"Ada {i}", ("Ada", "PER")) for i in range(6)),
        labelled("seen in Rome", ("Rome", "LOC")),
        labelled("Seen in Rome!", ("Rome", "LOC"), split="dev"),
    ]
    examples = Examples(ENTITIES, posts)
    usual = examples.shown_to(Post(id="new", text="Somebody else"))
    labels = {e.label for p in usual for e in p.entities or ()}
    assert labels == {"PER", "LOC"} and len(usual) == 2
    assert usual == examples.shown_to(Post(id="other", text="Another one"))
    for post in posts:
        shown = examples.shown_to(post)
        assert text_key(post) not in {text_key(p) for p in shown}
        assert len(shown) == 2 and all(p.split == "train" for p in shown)


def test_more_labels_than_examples_is_an_error() -> None:
    scheme = ENTITIES.model_copy(update={"examples": 1})
    posts = [labelled("Ada", ("Ada", "PER")), labelled("Rome", ("Rome", "LOC"))]
    with pytest.raises(MMCoTError, match="examples"):
        Examples(scheme, posts)
    assert Examples(scheme, posts[:1]).shown_to(Post(id="x", text="x")) == posts[:1]


def test_an_example_reads_back_as_its_own_labels() -> None:
    post = labelled("Ada lives in Rome", ("Ada", "PER"), ("Rome", "LOC"), lives=True)
    answer = json.loads(example_answer(post, BOTH, pairs=False))
    found = read_conclusion(answer, post, BOTH, [])
    assert [(e.start, e.label) for e in found.entities or ()] == [(0, "PER"), (13, "LOC")]
    assert [(r.head_start, r.label, r.tail_start) for r in found.relations or ()] == [
        (0, "lives_in", 13)
    ]


def test_several_answers_vote_and_agreement_is_the_sureness() -> None:
    answers = [
        read("Ada saw Rome", entities=[entity("Ada", "PER"), entity("Rome", "LOC")])[0],
        read("Ada saw Rome", entities=[entity("Ada", "PER"), entity("Rome", "PER", "low")])[0],
        read("Ada saw Rome", entities=[entity("Ada", "PER", "low"), entity("Rome", "LOC")])[0],
        read("Ada saw Rome", entities=[entity("Ada", "PER")])[0],
    ]
    merged = merge_conclusions(answers)
    assert merged is not None
    assert [(e.mention, e.label, e.sure) for e in merged.entities or ()] == [
        ("Ada", "PER", "high"),
        ("Rome", "LOC", "medium"),
    ]
    assert merge_conclusions(answers[:1]) == answers[0]
    assert merge_conclusions([]) is None

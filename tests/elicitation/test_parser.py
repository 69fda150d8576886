from __future__ import annotations

import json

import pytest

from spacy_mmcot.elicitation.parser import AnswerRejected, parse
from spacy_mmcot.types import Entity, EntityVariant, NounItem, Post

POST = Post(
    id="a",
    text="J. Cole plays Oslo  Spektrum on 16. August",
    entities=[Entity(start=0, end=7, label="PER"), Entity(start=14, end=28, label="LOC")],
)
THING = {"mention": "J. Cole", "kind": "person/rapper", "explanation": "the rapper"}
ITEM = NounItem(**THING)
VARIANT = {
    "text": "Adele plays Bergenhus on 16. August",
    "swaps": [["J. Cole", "Adele"], ["Oslo  Spektrum", "Bergenhus"]],
    "possible": False,
}


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps({"things": [THING]}),
        json.dumps([THING]),
        json.dumps(THING),
        json.dumps({"note": "one", "entities": [{**THING, "confidence": 0.9}]}),
        f"```json\n{json.dumps([THING])}\n```",
        f"Sure [as asked], see {{below}}:\n```\n{json.dumps([THING])}\n```\nAnything else?",
        f"The list is {json.dumps([THING])}, I think [1].",
        f"```json\n{json.dumps([THING])}",
    ],
)
def test_noun_lists_in_many_wrappings(raw: str) -> None:
    assert parse(raw, "noun", POST) == [ITEM]


def test_mentions_take_the_texts_spelling_and_strangers_are_dropped_and_counted() -> None:
    names = ["OSLO SPEKTRUM", "Bergen", "j. cole", " "]
    raw = json.dumps([{"mention": name, "kind": "k"} for name in names])
    dropped: list[str] = []
    items = parse(raw, "noun", POST, dropped)
    assert isinstance(items, list)
    assert [item.mention for item in items] == ["Oslo  Spektrum", "J. Cole"]
    assert dropped == ["Bergen", " "]


def test_a_mention_that_stands_in_the_text_keeps_its_own_spelling() -> None:
    post = Post(id="a", text="emma reads Emma")
    raw = json.dumps([{"mention": "emma", "kind": "person"}, {"mention": "Emma", "kind": "novel"}])
    assert [item.mention for item in parse(raw, "noun", post)] == ["emma", "Emma"]  # type: ignore[union-attr]


def test_a_post_may_name_nothing() -> None:
    assert parse('{"things": []}', "noun", POST) == []


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("I cannot help with that.", "no JSON"),
        ('{"things": [{"mention": "Oslo"}]}', "field kind is missing"),
        ('{"things": [{"mention": "Oslo", "kind": 3}]}', "field kind is 3"),
        ('{"things": ["Oslo"]}', "expected an object"),
        ('{"a": [], "b": []}', "2 lists"),
        ('{"things": [{"mention": "Oslo", "kind": "ci', "no JSON|empty|expected"),
        ('[{"mention": "Oslo \\ud83d", "kind": "city"}]', "mention"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_noun_rejections_say_why(raw: str, reason: str) -> None:
    with pytest.raises(AnswerRejected, match=reason) as caught:
        parse(raw, "noun", POST)
    assert caught.value.raw == raw


def test_entity_variants() -> None:
    value = parse(f"Here:\n{json.dumps({**VARIANT, 'why': 'x'})}", "entity", POST)
    assert value == EntityVariant.model_validate(VARIANT)
    assert not value.possible  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"swaps": [["j. cole", "Adele"]]}, "'j. cole', which is not in the post"),
        ({"swaps": [["J. Cole", "Sia"]]}, "'Sia', which is not in the new text"),
        ({"swaps": [["J. Cole"]]}, "swaps"),
        ({"swaps": "none"}, "swaps"),
        ({"text": ""}, "text"),
        ({"possible": "perhaps"}, "possible"),
    ],
)
def test_entity_rejections(change: dict[str, object], reason: str) -> None:
    with pytest.raises(AnswerRejected, match=reason):
        parse(json.dumps({**VARIANT, **change}), "entity", POST)


def test_style_keeps_every_mention_of_a_labelled_post() -> None:
    kept = "16. August: at Oslo  Spektrum, J. Cole!"
    assert parse(f'"{kept}"', "style", POST) == kept
    assert parse(f"```\n{kept}\n```", "style", POST) == kept
    with pytest.raises(AnswerRejected, match=r"the mentions 'J\. Cole'"):
        parse("See j. cole at Oslo  Spektrum", "style", POST)
    unlabelled = POST.model_copy(update={"split": "unlabelled"})
    assert parse("See him live", "style", unlabelled) == "See him live"


def test_texts_are_trimmed_but_inner_quotes_stay() -> None:
    assert parse('  "Yes" and "no" \n', "sentence", POST) == '"Yes" and "no"'
    assert parse("“a stage”", "image", POST) == "a stage"
    with pytest.raises(AnswerRejected, match="empty"):
        parse("```\n\n```", "multimodality", POST)
    with pytest.raises(AnswerRejected, match="surrogate"):
        parse("half \ud83d", "sentence", POST)

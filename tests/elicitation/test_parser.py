from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest

from spacy_mmcot.elicitation.parser import parse_answer
from spacy_mmcot.elicitation.replies import AnswerRejected
from spacy_mmcot.types import Dimension, Entity, EntityVariant, NounItem, Post

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
    assert parse_answer(raw, "noun", POST) == [ITEM]


def test_mentions_take_the_texts_spelling_and_strangers_are_dropped_and_counted() -> None:
    names = ["OSLO SPEKTRUM", "Bergen", "j. cole", " "]
    raw = json.dumps([{"mention": name, "kind": "k"} for name in names])
    dropped: list[str] = []
    items = parse_answer(raw, "noun", POST, dropped)
    assert isinstance(items, list)
    assert [item.mention for item in items] == ["Oslo  Spektrum", "J. Cole"]
    assert [repr(name) in what for name, what in zip(("Bergen", " "), dropped, strict=True)] == [
        True,
        True,
    ]


def test_a_mention_that_stands_in_the_text_keeps_its_own_spelling() -> None:
    post = Post(id="a", text="emma reads Emma")
    raw = json.dumps([{"mention": "emma", "kind": "person"}, {"mention": "Emma", "kind": "novel"}])
    assert [item.mention for item in parse_answer(raw, "noun", post)] == ["emma", "Emma"]  # type: ignore[union-attr]


def test_a_post_may_name_nothing() -> None:
    assert parse_answer('{"things": []}', "noun", POST) == []


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
        ('{"things": [{"mention": "Oslo", "kind": "ci', "breaks off"),
        ('[{"mention": "Oslo \\ud83d", "kind": "city"}]', "mention"),
        ("[" * 100_000, "breaks off"),
    ],
)
def test_noun_rejections_say_why(raw: str, reason: str) -> None:
    with pytest.raises(AnswerRejected, match=reason) as caught:
        parse_answer(raw, "noun", POST)
    assert caught.value.raw == raw


def test_entity_variants() -> None:
    value = parse_answer(f"Here:\n{json.dumps({**VARIANT, 'why': 'x'})}", "entity", POST)
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
        parse_answer(json.dumps({**VARIANT, **change}), "entity", POST)


def test_style_keeps_every_mention_of_a_labelled_post() -> None:
    kept = "16. August: at Oslo  Spektrum, J. Cole!"
    assert parse_answer(f'"{kept}"', "style", POST) == kept
    assert parse_answer(f"```\n{kept}\n```", "style", POST) == kept
    with pytest.raises(AnswerRejected, match=r"the mentions 'J\. Cole'"):
        parse_answer("See j. cole at Oslo  Spektrum", "style", POST)
    unlabelled = POST.model_copy(update={"split": "unlabelled"})
    assert parse_answer("See him live", "style", unlabelled) == "See him live"


def test_texts_are_trimmed_but_inner_quotes_stay() -> None:
    assert parse_answer('  "Yes" and "no" \n', "sentence", POST) == '"Yes" and "no"'
    assert parse_answer("“a stage”", "image", POST) == "a stage"
    with pytest.raises(AnswerRejected, match="empty"):
        parse_answer("```\n\n```", "multimodality", POST)
    with pytest.raises(AnswerRejected, match="surrogate"):
        parse_answer("half \ud83d", "sentence", POST)


THREE = [
    {"mention": "J. Cole", "kind": "person/rapper"},
    {"mention": "Oslo  Spektrum", "kind": "location/arena"},
    {"mention": "16. August", "kind": "date"},
]
WHOLE = json.dumps({"things": THREE})


@pytest.mark.parametrize(
    "raw",
    [
        WHOLE.replace("}]", "},]"),
        WHOLE.replace("}, {", "} {"),
        WHOLE.replace("{", "{ // a thing\n", 1),
        WHOLE.replace("}, {", "}, /* then */ {"),
        WHOLE.replace("person/rapper", "person/\nrapper").replace("\\n", "\n"),
        WHOLE.replace('"', "'"),
        WHOLE.replace('"mention"', "mention"),
        WHOLE.replace('"kind": "date"', '"kind": "date'),
        WHOLE.replace('"date"', '"a "fixed" date"'),
        "\n".join(map(json.dumps, THREE)),
        ",\n".join(map(json.dumps, THREE)),
        "\n".join(f"{i}. {json.dumps(thing)}" for i, thing in enumerate(THREE, start=1)),
        "```json\n" + "\n".join(map(json.dumps, THREE)) + "\n```",
        f"As in {json.dumps(THREE[0])}: {WHOLE}",
        f"{WHOLE} with {json.dumps(THREE[0])} first",
        f'The form {{"things": [{{"mention": "...", ...}}]}} gives {WHOLE}',
    ],
)
def test_a_damaged_list_is_whole(raw: str) -> None:
    items = parse_answer(raw, "noun", POST)
    assert [item.mention for item in items] == [thing["mention"] for thing in THREE]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (WHOLE[: WHOLE.index("August")], "breaks off"),
        (WHOLE.removesuffix("]}"), "breaks off"),
        (WHOLE.removesuffix("}"), "breaks off"),
        (json.dumps(THREE)[:-1], "breaks off"),
        ("\n".join(map(json.dumps, THREE))[:-9], "breaks off"),
        (f"{WHOLE}\nCorrected: {WHOLE[:60]}", "breaks off"),
        (WHOLE.replace("}]", "}, ...]"), "ellipsis"),
        (WHOLE.replace("}]", "}, // … and others\n]"), "ellipsis"),
        (WHOLE.replace('}, {"mention": "16', ', "mention": "16'), "twice"),
        (
            WHOLE.replace('}, {"mention": "16', ', "mention": "16').replace("}]", "},]"),
            "twice|beyond",
        ),
        (WHOLE.replace('"kind": "date"', '"kind"'), "kind is missing"),
        ("[" + '{"mention": "x" "kind": "y"}' * 2000 + "]", "too long"),
        ("{" * 5000 + '"a"' + "}" * 5000, "damaged|breaks off|expected"),
        ('{"mention": "x"}' * 300, "over 200"),
    ],
)
def test_a_list_that_cannot_be_made_whole_is_rejected(raw: str, reason: str) -> None:
    with pytest.raises(AnswerRejected, match=reason) as caught:
        parse_answer(raw, "noun", POST)
    assert caught.value.raw == raw


def test_a_damaged_variant_is_whole_or_rejected() -> None:
    raw = json.dumps(VARIANT)
    expected = EntityVariant.model_validate(VARIANT)
    for damaged in (raw.replace("]]", "],]"), raw.replace("false", "False"), raw[:-1] + ",}"):
        assert parse_answer(damaged, "entity", POST) == expected
    with pytest.raises(AnswerRejected, match="breaks off"):
        parse_answer(raw[:-1], "entity", POST)


DRAFT = json.dumps({"things": THREE[:1]})


@pytest.mark.parametrize(
    "raw",
    [
        f"<think>Perhaps {DRAFT}?</think>\n\n{WHOLE}",
        f"<think>\n{DRAFT}\n</think>{WHOLE}<|im_end|>",
        f"Perhaps {DRAFT}?\n</think>\n{WHOLE}",
        f"{DRAFT}\n</think>\n{WHOLE}",
        f"<THINKING>one <think>two {DRAFT}</think> three</THINKING> {WHOLE}",
        f"[THINK]{DRAFT}[/THINK]{WHOLE}",
        f"◁think▷{DRAFT}◁/think▷{WHOLE}",
        f"<think>I try {DRAFT[:30]}</think>{WHOLE}",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant"
        f"<|channel|>final<|message|>{WHOLE}<|return|>",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final "
        f"<|constrain|>json<|message|>{WHOLE}<|return|>",
        f"analysisPerhaps {DRAFT}?assistantfinal{WHOLE}",
        f"<|START_THINKING|>{DRAFT}<|END_THINKING|><|START_RESPONSE|>{WHOLE}<|END_RESPONSE|>",
        f"<|begin_of_thought|>{DRAFT}<|end_of_thought|><|begin_of_solution|>{WHOLE}"
        "<|end_of_solution|>",
        f"<unused94>thought\n{DRAFT}<unused95>{WHOLE}",
        f'<think time="3 s">{DRAFT}</think>\n<answer>\n{WHOLE}\n</answer><|im_end|>\n<|endoftext|>',
        f"<seed:think>{DRAFT}</seed:think>{WHOLE}",
        f"<inner_monologue>{DRAFT[:40]}</inner_monologue>{WHOLE}</s>",
        f"First {DRAFT}, then, with all of them, {WHOLE}",
        f"{WHOLE}\n<think>{DRAFT} would be too few</think>",
    ],
)
def test_reasoning_and_drafts_do_not_count(raw: str) -> None:
    items = parse_answer(raw, "noun", POST)
    assert len(items) == 3


@pytest.mark.parametrize("dimension", ["sentence", "multimodality", "image"])
def test_texts_are_without_reasoning(dimension: Dimension) -> None:
    for raw in (
        "<think>Hm.</think>\nA gig.",
        "Hm.</think> A gig.",
        "<reasoning>a</reasoning>A gig.",
        "<think>a</think>\n<answer>\nA gig.\n</answer>",
        "<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>A gig.<|END_RESPONSE|>",
        "<unused94>thought\na<unused95>A gig.<end_of_turn>",
        "analysisHm, a gig?assistantfinalA gig.",
        "<|channel|>final<|message|>A gig.<|return|>",
    ):
        assert parse_answer(raw, dimension, POST) == "A gig."
    thoughts = ("<think>Hm, I wonder", "<think>Hm.</think>", "<|channel|>analysis<|message|>Hm")
    for raw in (*thoughts, "<unused94>thought\nHm", "<|START_THINKING|>Hm"):
        with pytest.raises(AnswerRejected, match="nothing but reasoning"):
            parse_answer(raw, dimension, POST)


def test_tags_within_an_answer_stay() -> None:
    thing = {**THING, "explanation": "wrote <think> and </think> into the post"}
    raw = json.dumps([thing])
    assert parse_answer(raw, "noun", POST) == [NounItem(**thing)]
    assert parse_answer("says <think> twice", "sentence", POST) == "says <think> twice"


@pytest.mark.parametrize(
    "piece", ["<think>", "[think ", "<|end|>", "</think>", '["', "[}", '{"a":', "<"]
)
def test_hostile_answers_are_read_in_little_time(piece: str) -> None:
    raw = piece * (200_000 // len(piece)) + "x"
    started = time.process_time()
    for dimension in ("noun", "sentence"):
        with suppress(AnswerRejected):
            parse_answer(raw, dimension, POST)  # type: ignore[arg-type]
    assert time.process_time() - started < 5

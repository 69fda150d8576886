"""Properties of reading answers: whatever stands around a list, it is read whole; whatever is
broken in it, it is whole or rejected, never shorter."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spacy_mmcot.elicitation.mentions import find_mention
from spacy_mmcot.elicitation.parser import parse_answer
from spacy_mmcot.elicitation.replies import AnswerRejected
from spacy_mmcot.types import NounItem, Post

NAMES = ["Anna", "Oslo", "J. Cole", "#FilmWeek", "O'Neill", "Zürich", "[Band]", "{x}", "a,b"]
NAMES += ['the "Pub"']
POST = Post(id="a", text=" and ".join(NAMES))
# What a kind or an explanation may hold: signs of JSON, of fences and of tags too.
SIGNS = st.sampled_from(list('{}[]":,\\/`<>|\n\t…. '))
LETTERS = st.characters(codec="utf-8", exclude_characters="\0")
WORDS = st.text(st.one_of(SIGNS, LETTERS), max_size=30)
THINGS = st.lists(
    st.builds(
        lambda mention, kind, why: {"mention": mention, "kind": kind, "explanation": why},
        st.sampled_from(NAMES),
        WORDS.filter(bool),
        WORDS,
    ),
    max_size=5,
)
DRAFT = json.dumps({"things": [{"mention": "Anna", "kind": "draft", "explanation": ""}]})
PROSE = st.sampled_from(
    ["Sure!", "Here is the list [as asked]:", "I see {3} names.", "See (1), [2] and 'this'.", "\n",
     "Note: nothing else.", "I'm done. It's a \"list\".", "x < y and y > z", "Grüße 👋", 
     "1. a\n2. b"]
)  # fmt: skip
TAGS = st.sampled_from(
    [("<think>", "</think>"), ("<thinking>", "</thinking>"), ("[THINK]", "[/THINK]"),
     ("<Thought>", "</Thought>"), ("<reasoning>\n", "\n</reasoning>\n"), ("", "</think>"),
     ("<unused94>thought", "<unused95>"), ("<|START_THINKING|>", "<|END_THINKING|>"),
     ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
     ("◁think▷", "◁/think▷"), ("<think>\nOne <think>two</think> ", "</think>")]
)  # fmt: skip


SHAPES = ("things", "list", "entities", "lines")


def dump(things: list[dict[str, str]], shape: str, ascii_only: bool, indent: int | None) -> str:
    value: Any = things if shape == "list" else {shape: things}
    if shape == "lines":
        return "\n".join(json.dumps(thing, ensure_ascii=ascii_only) for thing in things)
    return json.dumps(value, ensure_ascii=ascii_only, indent=indent)


@st.composite
def answers(draw: st.DrawFn, shapes: Sequence[str] = SHAPES) -> tuple[list[dict[str, str]], str]:
    """A list, and an answer that holds it."""
    things = draw(THINGS)
    shape = draw(st.sampled_from(shapes))
    assume(things or shape != "lines")
    text = dump(things, shape, draw(st.booleans()), draw(st.sampled_from([None, 1, 4])))
    if draw(st.booleans()):
        fence = draw(st.sampled_from(["```json\n", "```\n", "```JSON\n"]))
        text = f"{fence}{text}\n```"
    if draw(st.booleans()):
        text = f"{draw(PROSE)}\n{text}\n{draw(PROSE)}"
    if draw(st.booleans()):
        start, end = draw(TAGS)
        thought = draw(st.sampled_from(["", "Hm.", DRAFT, f"```json\n{DRAFT}\n```", DRAFT[:20]]))
        text = f"{start}{draw(PROSE)} {thought}{end}{text}"
    if draw(st.booleans()):
        text += draw(st.sampled_from(["<|im_end|>", "</s>", "<|eot_id|>", "<|return|>", "\n"]))
    return things, text


def read(text: str) -> list[NounItem]:
    found = parse_answer(text, "noun", POST)
    assert isinstance(found, list)
    return found


def items(things: list[dict[str, str]]) -> list[NounItem]:
    return [NounItem.model_validate(thing) for thing in things]


@settings(deadline=None)
@given(answers())
def test_a_list_survives_any_wrapping(given_answer: tuple[list[dict[str, str]], str]) -> None:
    things, text = given_answer
    assert read(text) == items(things)


# Of things on lines, nobody can tell that the last line is missing.
@settings(deadline=None)
@given(answers(SHAPES[:3]), st.data())
def test_a_damaged_list_is_whole_or_rejected(
    given_answer: tuple[list[dict[str, str]], str], data: st.DataObject
) -> None:
    things, text = given_answer
    assume(things)
    place = data.draw(st.integers(0, len(text)), label="place")
    damaged = data.draw(
        st.one_of(
            st.just(text[:place]),
            st.just(text[:place] + text[place + 1 :]),
            st.sampled_from(list('{}[]",:\\')).map(lambda sign: text[:place] + sign + text[place:]),
            st.sampled_from(["// more\n", "/* x */", "...", "\n", "`"]).map(
                lambda sign: text[:place] + sign + text[place:]
            ),
        ),
        label="damaged",
    )
    try:
        found = read(damaged)
    except AnswerRejected as rejected:
        assert rejected.raw == damaged
        return
    # A mention that was hit may be another one or none in the text, and is dropped by name then.
    dropped: list[str] = []
    parse_answer(damaged, "noun", POST, dropped)
    assert len(found) + len(dropped) >= len(things), (text, damaged, found)


@settings(deadline=None)
@given(st.text(st.sampled_from(list("ab A#@.-'é\n")), max_size=40), st.data())
def test_a_mention_that_stands_in_a_text_is_found_there(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    mention = text[start : data.draw(st.integers(start, len(text)))]
    places = find_mention(mention, text)
    assume("".join(mention.split()).lstrip("#@"))
    assert places
    found = [text[a:b] for a, b in places]
    # As spelt, where it is: of whole words first, and then all of them alike.
    assert all(words == mention.strip() for words in found)
    assert places == sorted(places) and all(a[1] <= b[0] for a, b in itertools.pairwise(places))


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["New", "York", "#Film", "O'Neill", "ärzte"]), min_size=1, max_size=3),
    st.sampled_from([str.upper, str.lower, str.title, str.swapcase]),
    st.sampled_from([" ", "  ", "\n", "\u00a0", ""]),
)
def test_a_mention_is_found_whatever_its_case_and_white_space(
    words: list[str], change: Any, gap: str
) -> None:
    mention = " ".join(words)
    text = f"We saw {gap.join(change(word) for word in words)} there"
    places = find_mention(mention, text)
    assert len(places) == 1
    found = text[slice(*places[0])]
    letters = "".join(found.split()).lower().lstrip("#@")
    assert letters == "".join(mention.split()).lower().lstrip("#@")

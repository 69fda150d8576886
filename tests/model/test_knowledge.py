from __future__ import annotations

import json
from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model.knowledge import (
    KIND_WORDS,
    KINDS,
    N_TAGS,
    find_kind,
    get_full_text,
    get_segment_text,
    tag_tokens,
)
from spacy_mmcot.types import KNOWLEDGE_KEY

DEMO_ANSWERS = Path(__file__).parents[2] / "assets" / "demo" / "answers.jsonl"


@pytest.fixture(scope="module")
def nlp() -> Language:
    return spacy.blank("en")


def with_nouns(doc: Doc, **kind_of: str) -> Doc:
    """The Doc with a `noun` answer; underscores in the mentions stand for spaces."""
    nouns = [{"mention": m.replace("_", " "), "kind": k} for m, k in kind_of.items()]
    doc.user_data[KNOWLEDGE_KEY] = {"noun": nouns}
    return doc


def found(doc: Doc) -> list[tuple[str, str]]:
    """(text, kind) of the tagged runs: a run starts at an odd tag and goes on at the even one."""
    runs: list[tuple[list[str], int]] = []
    for token, tag in zip(doc, tag_tokens(doc).tolist(), strict=True):
        if tag and tag % 2:
            runs.append(([token.text], tag))
        elif tag:
            assert tag == runs[-1][1] + 1, "a run goes on without a start"
            runs[-1][0].append(token.text)
    return [(" ".join(words), KINDS[(tag - 1) // 2]) for words, tag in runs]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("person/footballer", "person"),
        ("person (singer)", "person"),
        ("American actress and comedian", "person"),
        ("President of the United States", "person"),
        ("member of a boy band", "person"),
        ("Twitter user", "person"),
        ("US state", "place"),
        ("city in north-west England", "place"),
        ("capital city", "place"),
        ("cities", "place"),
        ("football stadium", "facility"),
        ("sports arena or venue", "facility"),
        ("churches", "facility"),
        ("possibly a sports media outlet", "organization"),
        ("tech companies", "organization"),
        ("TV channel", "organization"),
        ("University", "organization"),
        ("football club", "team"),
        ("NBA team", "team"),
        ("rock band", "group"),
        ("film festival", "event"),
        ("festival film", "work"),
        ("TV series", "event"),
        ("hashtag", "event"),
        ("song by Adele", "work"),
        ("movies", "work"),
        ("award for films", "award"),
        ("smartphone", "product"),
        ("weekday", "time"),
        ("abstract notion", "other"),
        ("", "other"),
        ("???", "other"),
        ("城市", "other"),
    ],
)
def test_kind(kind: str, expected: str) -> None:
    assert KINDS[find_kind(kind)] == expected
    assert KINDS[find_kind(kind.upper())] == expected


def test_each_kind_has_its_words_to_itself() -> None:
    assert 1 + 2 * len(KINDS) == N_TAGS
    for kind, words in KIND_WORDS.items():
        assert KINDS[find_kind(kind)] == kind
        for word in words.split():
            assert find_kind(word) < len(KINDS) - 1


def test_few_kinds_of_the_demo_answers_remain_unknown() -> None:
    kinds = [
        item["kind"]
        for line in DEMO_ANSWERS.read_text("utf-8").splitlines()
        for item in json.loads(line).get("noun") or ()
    ]
    unknown = [kind for kind in kinds if KINDS[find_kind(kind)] == "other"]
    assert len(kinds) > 500
    assert len(unknown) < 0.05 * len(kinds), unknown


@pytest.mark.parametrize(
    "text",
    [
        "Then new york united won",
        "Then NEW YORK UNITED won",
        "Then @NewYorkUnited won",
        "Then #newyorkunited won",
        "Then New  York\nUnited won",
    ],
)
def test_case_signs_and_white_space_do_not_matter(nlp: Language, text: str) -> None:
    doc = with_nouns(nlp(text), New_York_United="football club")
    ((mention, kind),) = found(doc)
    assert kind == "team"
    assert "".join(mention.lower().split()).lstrip("#@") == "newyorkunited"
    for name in ("@NewYorkUnited", "#newyorkunited", " new york  united "):
        assert found(with_nouns(nlp(text), **{name: "football club"})) == [(mention, kind)]


def test_a_sign_that_is_part_of_the_token() -> None:
    doc = Doc(spacy.blank("en").vocab, words=["Go", "#NBA", "and", "@KingJames", "!"])
    doc = with_nouns(doc, NBA="league", KingJames="person")
    assert found(doc) == [("#NBA", "organization"), ("@KingJames", "person")]


def test_every_occurrence_is_tagged(nlp: Language) -> None:
    doc = with_nouns(nlp("Oslo, oslo and #Oslo"), Oslo="city")
    assert [text for text, _ in found(doc)] == ["Oslo", "oslo", "Oslo"]


def test_token_boundaries_only(nlp: Language) -> None:
    doc = with_nouns(nlp("Osloer and Los Loa meet in Lagos"), Oslo="city", Los_Lo="city", a="word")
    assert found(doc) == []
    # "Lo" ends one token and begins the next one, but is none.
    assert found(with_nouns(nlp("Los Loa"), sL="city")) == []


@pytest.mark.parametrize("names", [("New_York", "York", "New_York_Times"), ("York", "New_York")])
def test_the_longest_mention_wins(nlp: Language, names: tuple[str, ...]) -> None:
    kinds = {"New_York": "city", "York": "street", "New_York_Times": "newspaper"}
    doc = nlp("York of the New York Times in New York")
    mentions = found(with_nouns(doc, **{name: kinds[name] for name in names}))
    if "New_York_Times" in names:
        assert mentions == [
            ("York", "place"),
            ("New York Times", "organization"),
            ("New York", "place"),
        ]
    else:
        assert [text for text, _ in mentions] == ["York", "New York", "New York"]


def test_first_tokens_differ_from_the_others(nlp: Language) -> None:
    doc = with_nouns(nlp("Anna Berg Ben Okri sing"), Anna_Berg="singer", Ben_Okri="singer")
    first = 1 + 2 * KINDS.index("person")
    assert tag_tokens(doc).tolist() == [first, first + 1, first, first + 1, 0]


def test_letters_whose_lower_case_is_longer(nlp: Language) -> None:
    doc = with_nouns(nlp("İzmir, İstanbul and Straße"), İstanbul="city", STRASSE="street")
    assert found(doc) == [("İstanbul", "place")]


@pytest.mark.parametrize(
    "knowledge",
    [
        None,
        {},
        {"noun": None},
        {"noun": []},
        {"noun": [{"mention": "#", "kind": "hashtag"}]},
        {"noun": [{"mention": "Bergen", "kind": "city"}]},
        {"sentence": "A night out."},
    ],
)
@pytest.mark.parametrize("text", ["", " \n ", "Oslo by # night"])
def test_no_tags_without_a_mention(nlp: Language, knowledge: dict | None, text: str) -> None:
    doc = nlp(text)
    if knowledge is not None:
        doc.user_data[KNOWLEDGE_KEY] = knowledge
    tags = tag_tokens(doc)
    assert tags.shape == (len(doc),)
    assert not tags.any()


def test_white_space_tokens_carry_no_tag_of_their_own(nlp: Language) -> None:
    doc = with_nouns(nlp("\n Oslo \n\n tonight "), Oslo="city")
    assert found(doc) == [("Oslo", "place")]


def test_texts(nlp: Language) -> None:
    doc = nlp("Oslo")
    assert get_segment_text(doc) == get_full_text(doc) == ""
    doc.user_data[KNOWLEDGE_KEY] = {
        "noun": [
            {"mention": "Oslo", "kind": "city", "explanation": "capital of Norway"},
            {"mention": "Anna", "kind": "singer", "explanation": ""},
        ],
        "caption": " a stage ",
        "multimodality": "The stage is in the city.",
        "sentence": None,
    }
    assert get_segment_text(doc) == "a stage The stage is in the city."
    assert get_full_text(doc) == (
        "Oslo: city. capital of Norway Anna: singer. a stage The stage is in the city."
    )


@pytest.mark.parametrize(
    ("knowledge", "problem"),
    [
        ("Paris is a city.", "is a str"),
        ([{"mention": "Paris", "kind": "city"}], "is a list"),
        ({"sentence": ["Paris"]}, "has a list as 'sentence'"),
        ({"caption": 3}, "has a int as 'caption'"),
        ({"noun": "Paris"}, "has a str as 'noun'"),
        ({"noun": {"Paris": "city"}}, "has a dict as 'noun'"),
        ({"noun": ["Paris"]}, "has a str among its 'noun'"),
        ({"noun": [{"mention": "Paris"}]}, "without a text as 'kind': {'mention': 'Paris'}"),
        ({"noun": [{"kind": "city"}]}, "without a text as 'mention'"),
        ({"noun": [{"mention": None, "kind": "city"}]}, "without a text as 'mention'"),
    ],
)
def test_knowledge_of_another_shape(nlp: Language, knowledge: object, problem: str) -> None:
    doc = nlp("Paris again")
    doc.user_data[KNOWLEDGE_KEY] = knowledge
    for read in (tag_tokens, get_segment_text, get_full_text):
        with pytest.raises(MMCoTError, match=r"E410.*'Paris again'") as caught:
            read(doc)
        assert problem in str(caught.value)
        assert "Allowed in doc._.mmcot_knowledge: a dict" in str(caught.value)

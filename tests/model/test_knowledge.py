from __future__ import annotations

from typing import Any

import numpy
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model.knowledge import (
    TAGS_PER_PAIR,
    TAGS_PER_TOKEN,
    find_kind,
    get_concluded_entities,
    get_concluded_relations,
    get_full_text,
    get_segment_parts,
    hash_tag,
    tag_pairs,
    tag_tokens,
)
from spacy_mmcot.types import KNOWLEDGE_KEY, SURENESS


@pytest.fixture(scope="module")
def nlp() -> Language:
    return spacy.blank("en")


def with_nouns(doc: Doc, **kind_of: str) -> Doc:
    """The Doc with a `noun` answer; underscores in the mentions stand for spaces."""
    nouns = [{"mention": m.replace("_", " "), "kind": k} for m, k in kind_of.items()]
    doc.user_data[KNOWLEDGE_KEY] = {"noun": nouns}
    return doc


def found(doc: Doc) -> list[tuple[str, str]]:
    """(text, kind) of the tagged runs, by the kinds of the Doc's own `noun` answer."""
    items = doc.user_data[KNOWLEDGE_KEY]["noun"]
    kinds = {
        (place, hash_tag(f"noun {place} {find_kind(item['kind'])}")): find_kind(item["kind"])
        for item in items
        for place in "BI"
    }
    begins, goes_on = (hash_tag(f"noun {place}")[0] for place in "BI")
    runs: list[tuple[list[str], str]] = []
    for token, tags in zip(doc, tag_tokens(doc).tolist(), strict=True):
        if tags[0] == begins:
            runs.append(([token.text], kinds["B", tuple(tags[1:3])]))
        elif tags[0] == goes_on:
            assert kinds["I", tuple(tags[1:3])] == runs[-1][1], "a run goes on without a start"
            runs[-1][0].append(token.text)
        else:
            assert not any(tags)
    return [(" ".join(words), kind) for words, kind in runs]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("person/footballer", "person"),
        ("Person (singer)", "person"),
        ("American actress and comedian", "actress"),
        ("President of the United States", "president"),
        ("city in north-west England", "city"),
        ("film festival", "festival"),
        ("festival film", "film"),
        ("football club", "club"),
        ("Medikament/Betablocker", "medikament"),
        ("", ""),
        ("???", ""),
        ("城市", "城市"),
    ],
)
def test_the_kind_is_the_word_that_heads_its_description(kind: str, expected: str) -> None:
    assert find_kind(kind) == expected


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
    assert kind == "club"
    assert "".join(mention.lower().split()).lstrip("#@") == "newyorkunited"
    for name in ("@NewYorkUnited", "#newyorkunited", " new york  united "):
        assert found(with_nouns(nlp(text), **{name: "football club"})) == [(mention, kind)]


def test_a_sign_that_is_part_of_the_token() -> None:
    doc = Doc(spacy.blank("en").vocab, words=["Go", "#NBA", "and", "@KingJames", "!"])
    doc = with_nouns(doc, NBA="league", KingJames="person")
    assert found(doc) == [("#NBA", "league"), ("@KingJames", "person")]


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
            ("York", "street"),
            ("New York Times", "newspaper"),
            ("New York", "city"),
        ]
    else:
        assert [text for text, _ in mentions] == ["York", "New York", "New York"]


def test_first_tokens_differ_from_the_others(nlp: Language) -> None:
    doc = with_nouns(nlp("Anna Berg Ben Okri sing"), Anna_Berg="singer", Ben_Okri="singer")
    anna, berg, ben, okri, sing = tag_tokens(doc).tolist()
    assert anna == ben and berg == okri and anna != berg
    assert sing == [0] * TAGS_PER_TOKEN


def test_letters_whose_lower_case_is_longer(nlp: Language) -> None:
    doc = with_nouns(nlp("İzmir, İstanbul and Straße"), İstanbul="city", STRASSE="street")
    assert found(doc) == [("İstanbul", "city")]


def concluded(doc: Doc, **answer: Any) -> Doc:
    doc.user_data[KNOWLEDGE_KEY] = {"conclusion": answer}
    return doc


def entity(doc: Doc, mention: str, label: str, sure: str) -> dict[str, Any]:
    return {"mention": mention, "label": label, "sure": sure, "start": doc.text.index(mention)}


def test_concluded_entities_are_tagged_by_label_sureness_and_place(nlp: Language) -> None:
    doc = nlp("Anna Berg left Oslo")
    entities = [entity(doc, "Anna Berg", "PER", "high"), entity(doc, "Oslo", "LOC", "low")]
    tags = tag_tokens(concluded(doc, entities=entities))
    assert [tuple(row) for row in tags[:, 3:5].tolist()] == [
        hash_tag("conclusion B PER high"),
        hash_tag("conclusion I PER high"),
        (0, 0),
        hash_tag("conclusion B LOC low"),
    ]
    assert not tags[:, :3].any()


def test_concluded_relations_are_tagged_on_their_pairs(nlp: Language) -> None:
    doc = nlp("Anna Berg left Oslo for Rome")
    relation = {
        **{"head": "Anna Berg", "head_start": 0, "tail": "Oslo", "tail_start": 15},
        **{"label": "left", "sure": "medium", "or_label": "lives_in"},
    }
    mentions = [doc[0:2], doc[3:4], doc[5:6]]
    pairs = numpy.array([[0, 1], [1, 0], [0, 2]])
    labels = {"None": 0, "lives_in": 1, "left": 2}
    tags = tag_pairs(concluded(doc, relations=[relation]), mentions, pairs, labels).tolist()
    asked = hash_tag("asked")[0]
    medium = SURENESS.index("medium")
    assert tags == [
        [2, medium, asked, *hash_tag("left medium"), hash_tag("or lives_in")[0], 0, 0],
        [0, 0, asked, 0, 0, 0, *hash_tag("reverse left medium")],
        [0, 0, asked, 0, 0, 0, 0, 0],
    ]
    silent = tag_pairs(concluded(doc, entities=[]), mentions, pairs, labels)
    assert silent.tolist() == [[-1] + [0] * (1 + TAGS_PER_PAIR)] * 3
    assert tag_pairs(doc, mentions, pairs[:0], labels).shape == (0, 2 + TAGS_PER_PAIR)


def test_tags_have_rows_of_their_own() -> None:
    labels = [f"{label} {sure}" for label in map(str, range(40)) for sure in ("high", "low")]
    rows = {hash_tag(label) for label in labels}
    assert len(rows) == len(labels)  # two names hardly share both of their rows
    assert all(row > 0 for pair in rows for row in pair)


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
    assert tags.shape == (len(doc), TAGS_PER_TOKEN)
    assert not tags.any()


def test_white_space_tokens_carry_no_tag_of_their_own(nlp: Language) -> None:
    doc = with_nouns(nlp("\n Oslo \n\n tonight "), Oslo="city")
    assert found(doc) == [("Oslo", "city")]


def test_texts(nlp: Language) -> None:
    doc = nlp("Oslo")
    assert get_segment_parts(doc) == []
    assert get_full_text(doc) == ""
    doc.user_data[KNOWLEDGE_KEY] = {
        "noun": [
            {"mention": "Oslo", "kind": "city", "explanation": "capital of Norway"},
            {"mention": "Anna", "kind": "singer", "explanation": ""},
        ],
        "caption": " a stage ",
        "multimodality": "The stage is in the city.",
        "sentence": None,
    }
    assert get_segment_parts(doc) == ["a stage", "The stage is in the city."]
    assert get_full_text(doc) == (
        "Oslo: city. capital of Norway Anna: singer. a stage The stage is in the city."
    )


@pytest.mark.parametrize(
    ("knowledge", "problem"),
    [
        ("Paris is a city.", "knowledge is 'Paris is a city.'"),
        ([{"mention": "Paris", "kind": "city"}], "knowledge is [{"),
        ({"sentence": ["Paris"]}, "knowledge.sentence is ['Paris']"),
        ({"caption": 3}, "knowledge.caption is 3"),
        ({"noun": "Paris"}, "knowledge.noun is 'Paris'"),
        ({"noun": {"Paris": "city"}}, "knowledge.noun is {"),
        ({"noun": ["Paris"]}, "knowledge.noun[0] is 'Paris'"),
        ({"noun": [{"mention": "Paris"}]}, "knowledge.noun[0].kind is missing"),
        ({"noun": [{"kind": "city"}]}, "knowledge.noun[0].mention is missing"),
        ({"noun": [{"mention": None, "kind": "city"}]}, "knowledge.noun[0].mention is None"),
        ({"conclusion": {"entities": [{"mention": "Paris"}]}}, "entities[0].label is missing"),
    ],
)
def test_knowledge_of_another_shape(nlp: Language, knowledge: object, problem: str) -> None:
    doc = nlp("Paris again")
    doc.user_data[KNOWLEDGE_KEY] = knowledge
    for read in (tag_tokens, get_segment_parts, get_full_text):
        with pytest.raises(MMCoTError, match=r"E410.*'Paris again'") as caught:
            read(doc)
        assert problem in str(caught.value)
        assert "Allowed in doc._.mmcot_knowledge: a dict" in str(caught.value)


def test_the_conclusion_on_another_text_names_nothing() -> None:
    nlp = spacy.blank("en")
    entities = [{"mention": "Oslo", "label": "LOC", "sure": "high", "start": 8}]
    ends = {"head": "Anna", "head_start": 0, "tail": "Oslo", "tail_start": 8}
    known = {
        "conclusion": {
            "entities": entities,
            "relations": [{**ends, "label": "in", "sure": "high", "or_label": None}],
        }
    }
    own, other = nlp("Anna in Oslo"), nlp("Carla met Dmitri in Rome")
    for doc in (own, other):
        doc.user_data[KNOWLEDGE_KEY] = known
    assert len(get_concluded_entities(own) or []) == len(get_concluded_relations(own) or []) == 1
    assert get_concluded_entities(other) == get_concluded_relations(other) == []

"""Posts to Docs: every entity survives, and what is changed is said."""

from __future__ import annotations

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc

from spacy_mmcot.corpus.docs import collect_knowledge, make_doc
from spacy_mmcot.corpus.posts import Findings
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import ID_KEY, Answers, Entity, NounItem, Post, PostRelation


def post(text: str, *surfaces: tuple[str, str], **fields: object) -> Post:
    """A post whose entities are the given surfaces, each at its first place."""
    entities = [
        Entity(start=text.index(s), end=text.index(s) + len(s), label=label)
        for s, label in surfaces
    ]
    return Post(id="p", text=text, entities=entities, **fields)


def found(doc: Doc) -> list[tuple[str, str]]:
    return [(ent.text, ent.label_) for ent in doc.ents]


def report(findings: Findings) -> str:
    return "\n".join(findings.describe())


@pytest.mark.parametrize("tokenizer", ["spacy", "whitespace"])
@pytest.mark.parametrize(
    "text",
    [
        "Anna in Oslo",
        "  two  spaces   and one at the end ",
        "\tAnna\n\nin \u3000 Oslo\r\n",
        "a\u200b b\u200d c\x92 \xa0 \x85 \u2028",
        "👩‍👩‍👧 e\u0301 ﷽ 漢字",
    ],
)
def test_the_text_stays(nlp: Language, text: str, tokenizer: str) -> None:
    assert make_doc(nlp, Post(id="p", text=text), tokenizer=tokenizer).text == text


def test_pretokenised_text_keeps_its_tokens(nlp: Language) -> None:
    tokens = ["#NBA", ":", "don't", "\u200b", "\xa0", "U.S.", "x\u2028y"]
    doc = make_doc(nlp, Post(id="p", text=" ".join(tokens)), tokenizer="whitespace")
    assert [token.text for token in doc] == tokens


@pytest.mark.parametrize("tokenizer", ["spacy", "whitespace"])
def test_an_edge_inside_a_token_splits_it(nlp: Language, tokenizer: str) -> None:
    findings = Findings()
    source = post("Seen@Oslofjordtoday ok", ("Oslo", "LOC"), ("fjord", "MISC"))
    doc = make_doc(nlp, source, tokenizer=tokenizer, findings=findings)
    assert found(doc) == [("Oslo", "LOC"), ("fjord", "MISC")]
    assert doc.text == source.text
    assert "p: 'Oslo' (5, 9, LOC) in the token" in report(findings)
    assert not findings.lost


def test_white_space_at_an_edge_is_trimmed(nlp: Language) -> None:
    findings = Findings()
    source = post("in \xa0Oslo\n today", ("\xa0Oslo\n ", "LOC"))
    doc = make_doc(nlp, source, findings=findings)
    assert found(doc) == [("Oslo", "LOC")]
    assert "white space at an edge, trimmed: 1" in report(findings)


def test_relations_follow_their_entities(nlp: Language) -> None:
    relations = [PostRelation(head=1, tail=0, label="home")]
    source = post("Anna in Oslofjord", ("Anna", "PER"), ("Oslo", "LOC"), relations=relations)
    (relation,) = make_doc(nlp, source)._.mmcot_rel
    assert (relation.head.text, relation.tail.text) == ("Oslo", "Anna")
    assert (relation.label, relation.score) == ("home", 1.0)


def test_neither_labels_nor_relations_of_unlabelled_posts_are_stored(nlp: Language) -> None:
    relations = [PostRelation(head=0, tail=1, label="home")]
    labelled = post("Anna in Oslo", ("Anna", "PER"), ("Oslo", "LOC"), relations=relations)
    for source in (
        labelled.model_copy(update={"split": "unlabelled"}),
        Post(id="p", text="Anna in Oslo"),
    ):
        doc = make_doc(nlp, source, Answers(id="p", sentence="A walk."))
        assert not doc.has_annotation("ENT_IOB")
        assert doc._.mmcot_rel == ()
        assert b"PER" not in doc.to_bytes()
        assert b"home" not in doc.to_bytes()
        assert doc._.mmcot_knowledge == {"sentence": "A walk."}
    empty = make_doc(nlp, Post(id="p", text="nothing here", entities=[]))
    assert empty.has_annotation("ENT_IOB")


def test_knowledge_holds_what_is_known() -> None:
    source = Post(id="p", text="Anna", caption="a stage")
    answers = Answers(
        id="p",
        noun=[NounItem(mention="Anna", kind="person")],
        multimodality="They agree.",
        style="ANNA!",
        image="a harbour",
    )
    assert collect_knowledge(source, answers) == {
        "noun": [{"mention": "Anna", "kind": "person", "explanation": ""}],
        "multimodality": "They agree.",
        "caption": "a stage",
    }
    assert collect_knowledge(Post(id="p", text="Anna"), None) == {}


def test_documents_name_their_post_and_picture(nlp: Language) -> None:
    doc = make_doc(nlp, Post(id="p/1", text="Anna", image="images/1.png"))
    assert doc.user_data[ID_KEY] == "p/1"
    assert doc._.mmcot_image == "images/1.png"
    plain = make_doc(nlp, Post(id="p/1", text="Anna"))
    assert plain.user_data.keys() == {ID_KEY}


def test_a_text_that_is_too_long(nlp: Language) -> None:
    small = spacy.blank("en")
    small.max_length = 10
    with pytest.raises(MMCoTError, match="Post long: the text has 11 characters, at most 10"):
        make_doc(small, Post(id="long", text="x" * 11))

"""Which pairs of a post were judged: checked in posts, kept on Docs, and given to the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span

from spacy_mmcot.corpus.docbin import Corpus, read_docs, write_docs
from spacy_mmcot.corpus.docs import make_doc
from spacy_mmcot.corpus.extensions import (
    copy_tokens,
    get_pairs,
    list_relations,
    set_pairs,
    set_relations,
)
from spacy_mmcot.corpus.formats import read_corpus
from spacy_mmcot.corpus.posts import Findings, read_posts
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import Entity, Post, PostRelation

POST = Post(
    id="p",
    text="Anna sings in Oslo with Bo",
    entities=[
        Entity(start=0, end=4, label="PER"),
        Entity(start=14, end=18, label="LOC"),
        Entity(start=24, end=26, label="PER"),
    ],
    relations=[PostRelation(head=0, tail=1, label="in")],
    pairs=[(0, 1), (2, 0)],
)
UNLABELLED = POST.model_copy(update={"id": "u", "split": "unlabelled"})


def texts(pairs: list[tuple[Span, Span]] | None) -> list[tuple[str, str]] | None:
    return None if pairs is None else [(head.text, tail.text) for head, tail in pairs]


PAIRS = [("Anna", "Oslo"), ("Bo", "Anna")]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"pairs": [[0, 3]]}, "pairs[0].tail is 3, but the post has 3 entities"),
        ({"pairs": [[0, -1]]}, "field pairs[0][1] is -1"),
        ({"pairs": [[0, 1], [1, 1]]}, "pairs[1] joins entity 1 to itself"),
        ({"pairs": [[0, 1], [2, 0], [0, 1]]}, "pairs[2] joins (0, 1), as pairs[0] does"),
        ({"pairs": [[1, 0]]}, "relations[0] joins (0, 1), which is not among the pairs"),
        ({"pairs": [], "relations": None, "entities": None}, None),
        ({"pairs": [[0, 1]], "relations": None}, None),
        ({"pairs": None}, None),
        ({"pairs": "all"}, "field pairs is 'all'"),
        ({"relations": [{"head": 0, "tail": 1, "label": x} for x in "ab"]}, "as relations[0] does"),
        ({"relations": [{"head": 2, "tail": 2, "label": "x"}]}, "joins entity 2 to itself"),
        ({"relations": [{"head": 0, "tail": 9, "label": "x"}]}, "relations[0].tail is 9"),
    ],
)
def test_pairs_and_relations_of_a_post_agree(
    jsonl: Callable[..., Path], change: dict, problem: str | None
) -> None:
    path = jsonl("posts.jsonl", {**json.loads(POST.model_dump_json()), **change})
    if problem is None:
        (post,) = read_posts(path)
        assert [list(pair) for pair in post.pairs or []] == (change["pairs"] or [])
    else:
        with pytest.raises(MMCoTError) as caught:
            read_posts(path)
        assert f"{path}, line 1: " in str(caught.value)
        assert problem in str(caught.value)


def test_pairs_are_kept_on_a_doc(nlp: Language) -> None:
    doc = make_doc(nlp, POST)
    assert texts(get_pairs(doc)) == PAIRS
    (first, _) = get_pairs(doc) or []
    assert [span.label_ for span in first] == ["PER", "LOC"]
    data = DocBin(docs=[doc], store_user_data=True).to_bytes()
    (stored,) = DocBin().from_bytes(data).get_docs(nlp.vocab)
    assert texts(get_pairs(stored)) == PAIRS
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[1:3])
    assert texts(get_pairs(doc)) == PAIRS
    assert get_pairs(make_doc(nlp, POST.model_copy(update={"pairs": None}))) is None
    assert get_pairs(make_doc(nlp, POST.model_copy(update={"pairs": [], "relations": []}))) == []
    # A relation's own pair was judged, listed or not.
    other = make_doc(nlp, POST.model_copy(update={"pairs": [(2, 0)]}))
    assert texts(get_pairs(other)) == [("Bo", "Anna"), ("Anna", "Oslo")]


def test_pairs_join_spans_of_one_doc(nlp: Language) -> None:
    doc, other = nlp("Anna in Oslo"), nlp("Anna in Oslo")
    with pytest.raises(MMCoTError, match="belongs to another Doc"):
        set_pairs(doc, [(doc[0:1], other[2:3])])
    assert get_pairs(doc) is None


def test_unlabelled_posts_keep_mentions_where_asked(nlp: Language) -> None:
    doc = make_doc(nlp, UNLABELLED, keep_mentions=True)
    assert [ent.text for ent in doc.ents] == ["Anna", "Oslo", "Bo"]
    assert texts(get_pairs(doc)) == PAIRS
    assert list_relations(doc) is None
    bare = make_doc(nlp, UNLABELLED)
    assert not bare.ents
    assert get_pairs(bare) is None and list_relations(bare) is None
    nobody = Post(id="n", text="Anna in Oslo", split="unlabelled")
    assert not make_doc(nlp, nobody, keep_mentions=True).has_annotation("ENT_IOB")


def test_docs_and_back(
    nlp: Language, command: Callable[..., Result], jsonl: Callable[..., Path], tmp_path: Path
) -> None:
    posts = [POST, POST.model_copy(update={"id": "all", "pairs": None}), UNLABELLED]
    path = jsonl("posts.jsonl", *(json.loads(post.model_dump_json()) for post in posts))
    result = command("convert", path, "-o", tmp_path / "docs", "--keep-mentions")
    assert result.exit_code == 0, result.output
    assert "pairs" in result.output
    back = tmp_path / "back.jsonl"
    assert command("convert", tmp_path / "docs", "-o", back).exit_code == 0
    assert read_posts(back) == [*posts[:2], UNLABELLED.model_copy(update={"relations": None})]
    assert command("convert", path, "-o", tmp_path / "bare").exit_code == 0
    (bare,) = read_docs(tmp_path / "bare" / "unlabelled.spacy", nlp.vocab)
    assert not bare.ents


def test_pairs_of_spans_that_are_no_entities_are_reported(nlp: Language, tmp_path: Path) -> None:
    doc = make_doc(nlp, POST)
    set_pairs(doc, [(doc[0:1], doc[1:2]), (doc.ents[2], doc.ents[0])])
    set_relations(doc, [])
    write_docs(tmp_path / "train.spacy", [doc])
    findings = Findings()
    (row,) = read_corpus([tmp_path], findings)
    assert row.post.pairs == [(2, 0)]
    assert "pairs of spans that are no entities: 1" in "\n".join(findings.describe())


def test_the_reader_gives_mentions_where_asked(nlp: Language, tmp_path: Path) -> None:
    nobody = Post(id="n", text="Anna in Oslo")
    docs = [
        make_doc(nlp, post, tokenizer="whitespace", keep_mentions=True)
        for post in (POST, UNLABELLED, nobody)
    ]
    write_docs(tmp_path / "train.spacy", docs)
    labelled, unlabelled, open_one = Corpus(tmp_path, gold_entities=True)(nlp)
    for example in (labelled, unlabelled):
        predicted = example.predicted
        assert [(ent.text, ent.label_) for ent in predicted.ents] == [
            (ent.text, ent.label_) for ent in example.reference.ents
        ]
        assert all(ent.doc is predicted for ent in predicted.ents)
        assert texts(get_pairs(predicted)) == PAIRS
        assert list_relations(predicted) is None
    assert not open_one.predicted.has_annotation("ENT_IOB")
    set_pairs(labelled.reference, [])
    write_docs(tmp_path / "train.spacy", [labelled.reference])
    (example,) = Corpus(tmp_path, gold_entities=True)(nlp)
    assert texts(get_pairs(example.predicted)) == [("Anna", "Oslo")]  # that of its relation
    write_docs(tmp_path / "train.spacy", docs)
    for example in Corpus(tmp_path)(nlp):
        assert not example.predicted.ents
        assert get_pairs(example.predicted) is None


def test_a_bare_copy_has_tokens_and_the_data_asked_for(nlp: Language) -> None:
    doc = make_doc(nlp, POST, tokenizer="whitespace")
    doc.user_data["mine"] = 1
    doc.tensor = doc.tensor.reshape(-1)
    copy = copy_tokens(doc)
    assert isinstance(copy, Doc)
    assert [token.text_with_ws for token in copy] == [token.text_with_ws for token in doc]
    assert not copy.ents
    assert copy.user_data == doc.user_data
    assert copy.user_data is not doc.user_data
    assert copy_tokens(doc, ["mine", "absent"]).user_data == {"mine": 1}
    assert not copy_tokens(doc, []).user_data

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import spacy
import torch
import toy_rel
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Example

from spacy_mmcot.corpus.extensions import get_relations, set_pairs
from spacy_mmcot.distillation.soft_labels import get_soft_labels, get_soft_relations, get_soft_tags
from spacy_mmcot.distillation.teach import KnowledgeEncoder, set_prompt_targets, teach
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.pictures.read import get_image
from spacy_mmcot.types import (
    ID_KEY,
    IMAGE_KEY,
    KNOWLEDGE_KEY,
    PROMPT_TARGET_KEY,
    SOFT_LABELS_KEY,
    SOFT_RELATIONS_KEY,
    Relation,
)

WIDTH = 16
LABELS = ["LOC", "PER"]


@pytest.fixture(scope="module")
def teacher(bert_source: str) -> Language:
    """A teacher that reads knowledge, trained for a few steps: enough to have opinions."""
    spacy.util.fix_random_seed(0)
    nlp = spacy.blank("en")
    encoder = {
        "@architectures": "spacy_mmcot.PromptedTransformer.v1",
        "source": bert_source,
        "knowledge_tags": True,
        "segment_length": 10,
    }
    listener = {
        "@architectures": "spacy-transformers.TransformerListener.v1",
        "grad_factor": 1.0,
        "pooling": {"@layers": "reduce_first.v1"},
    }
    tagger = {"@architectures": "spacy_mmcot.Tagger.v1", "tok2vec": listener}
    nlp.add_pipe("transformer", config={"model": encoder})
    nlp.add_pipe("mmcot_ner", name="entities", config={"model": tagger})
    # What stands behind the teacher is none of its business.
    nlp.add_pipe("sentencizer")

    def examples() -> list[Example]:
        return [Example(nlp.make_doc(doc.text), doc) for doc in corpus(nlp) if doc.ents]

    optimizer = nlp.initialize(examples)
    optimizer.learn_rate = 0.02
    for _ in range(5):
        nlp.update(examples(), sgd=optimizer)
    return nlp


def corpus(nlp: Language) -> list[Doc]:
    """Labelled docs, unlabelled ones, one of white space and one of nothing."""
    docs = [
        nlp.make_doc(text)
        for text in ("Anna sings in Oslo .", "Is  Oslo cold ?", "", "Ben left Lagos", " \n", "Oslo")
    ]
    docs[0].set_ents([docs[0].char_span(0, 4, "PER"), docs[0].char_span(14, 18, "LOC")])
    docs[3].set_ents([], missing=[docs[3][0:1]], default="outside")
    for i, doc in enumerate(docs):
        doc.user_data[ID_KEY] = f"post-{i}"
        if i in (0, 1, 3):
            doc.user_data[KNOWLEDGE_KEY] = {
                "noun": [{"mention": "Oslo", "kind": "city", "explanation": f"number {i}"}],
                "sentence": "Somebody moves. " * (i + 1),
            }
    return docs


def marginals(nlp: Language, docs: list[Doc]) -> list[numpy.ndarray]:
    """The component's own, on docs as the pipeline makes them."""
    copies = []
    for doc in docs:
        twin = Doc(
            doc.vocab,
            words=[token.text for token in doc],
            spaces=[bool(token.whitespace_) for token in doc],
            user_data=copy.deepcopy(doc.user_data),
        )
        copies.append(nlp.get_pipe("transformer")(twin))  # type: ignore[operator]
    return nlp.get_pipe("entities").predict_marginals(copies)  # type: ignore[attr-defined]


def test_what_is_stored_are_the_components_marginals(teacher: Language) -> None:
    expected = marginals(teacher, corpus(teacher))
    docs = list(teach(teacher, corpus(teacher), batch_size=4))
    tags = ["O", *(f"{prefix}-{label}" for label in LABELS for prefix in "BI")]
    assert [doc.user_data[ID_KEY] for doc in docs] == [f"post-{i}" for i in range(6)]
    for doc, rows in zip(docs, expected, strict=True):
        assert get_soft_tags(doc) == tags
        stored = get_soft_labels(doc, tags)
        assert stored is not None
        assert stored.shape == rows.shape == (len(doc), len(tags))
        numpy.testing.assert_allclose(stored, rows, rtol=0, atol=1e-3)
    # A teacher that knows nothing would make this test idle.
    assert max(rows.max(initial=0) for rows in expected) > 0.5


def test_knowledge_changes_what_is_taught(teacher: Language) -> None:
    with_knowledge, without = corpus(teacher), corpus(teacher)
    for doc in without:
        doc.user_data.pop(KNOWLEDGE_KEY, None)
    tags = teacher.get_pipe("entities").tags  # type: ignore[attr-defined]
    pairs = zip(teach(teacher, with_knowledge), teach(teacher, without), strict=True)
    changed = [
        not numpy.allclose(get_soft_labels(a, tags), get_soft_labels(b, tags), atol=1e-3)
        for a, b in pairs
    ]
    assert changed == [True, True, False, True, False, False]


def test_nothing_else_on_the_docs_changes(teacher: Language) -> None:
    before, docs = corpus(teacher), corpus(teacher)
    taught = list(teach(teacher, docs))
    for old, doc, given in zip(before, taught, docs, strict=True):
        assert doc is given
        assert [token.ent_iob for token in doc] == [token.ent_iob for token in old]
        assert [token.ent_type_ for token in doc] == [token.ent_type_ for token in old]
        assert doc.text == old.text
        assert doc.has_annotation("SENT_START") == old.has_annotation("SENT_START")
        del doc.user_data[SOFT_LABELS_KEY]
        assert doc.user_data == old.user_data


def test_taught_docs_survive_a_docbin(teacher: Language) -> None:
    docs = list(teach(teacher, corpus(teacher)))
    loaded = DocBin().from_bytes(DocBin(docs=docs, store_user_data=True).to_bytes())
    tags = get_soft_tags(docs[0])
    for doc, twin in zip(docs, loaded.get_docs(teacher.vocab), strict=True):
        assert numpy.array_equal(get_soft_labels(doc, tags), get_soft_labels(twin, tags))
        assert [t.ent_iob_ for t in doc] == [t.ent_iob_ for t in twin]


def test_pictures_are_hidden_where_asked_and_stay_on_the_docs(teacher: Language) -> None:
    seen: list[bool] = []

    @Language.component("note_picture")
    def note_picture(doc: Doc) -> Doc:
        seen.append(get_image(doc) is not None)
        return doc

    teacher.add_pipe("note_picture", first=True)
    try:
        for pictures in (True, False):
            doc = teacher.make_doc("Oslo")
            doc.user_data[IMAGE_KEY] = "oslo.png"
            (taught,) = teach(teacher, [doc], pictures=pictures)
            assert get_image(taught) == "oslo.png"
    finally:
        teacher.remove_pipe("note_picture")
    assert seen == [True, False]


def test_gold_labels_do_not_leak_into_what_is_taught(teacher: Language) -> None:
    labelled, bare = corpus(teacher), corpus(teacher)
    labelled[5].set_ents([labelled[5][0:1]], default="outside")
    bare[0].set_ents([], default="missing")
    tags = teacher.get_pipe("entities").tags  # type: ignore[attr-defined]
    for a, b in zip(teach(teacher, labelled), teach(teacher, bare), strict=True):
        assert numpy.array_equal(get_soft_labels(a, tags), get_soft_labels(b, tags))


def test_docs_are_taught_as_they_come(teacher: Language) -> None:
    """A corpus of millions is never held at once."""
    drawn: list[int] = []

    def stream() -> Any:
        for i in range(1000):
            drawn.append(i)
            yield teacher.make_doc("Oslo")

    taught = teach(teacher, stream(), batch_size=8)
    for _ in range(3):
        next(taught)
    assert len(drawn) <= 16


def test_pipeline_without_a_teacher() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    with pytest.raises(MMCoTError, match=r"\[E502\].*sentencizer.*mmcot_ner"):
        list(teach(nlp, [nlp.make_doc("Oslo")]))


def targets(doc: Doc, length: int) -> numpy.ndarray:
    entry = doc.user_data[PROMPT_TARGET_KEY]
    return (
        numpy.frombuffer(entry["vectors"], dtype="float16").astype("float32").reshape(length, WIDTH)
    )


@pytest.mark.parametrize("length", [1, 4])
def test_prompt_targets_are_centred_slices(source: str, length: int) -> None:
    docs = corpus(spacy.blank("en"))
    before = corpus(spacy.blank("en"))
    assert set_prompt_targets(docs, KnowledgeEncoder(source, length), batch_size=2) == 3
    found = numpy.stack([targets(docs[i], length) for i in (0, 1, 3)])
    assert found.shape == (3, length, WIDTH)
    numpy.testing.assert_allclose(found.mean(0), 0, atol=2e-3)
    assert len(docs[0].user_data[PROMPT_TARGET_KEY]["vectors"]) == 2 * length * WIDTH
    for doc, old in zip(docs, before, strict=True):
        doc.user_data.pop(PROMPT_TARGET_KEY, None)
        assert doc.user_data == old.user_data


def test_slices_cover_the_text_and_padding_has_no_part(source: str) -> None:
    encoder = KnowledgeEncoder(source, 3)
    texts = ["Oslo is a city in the north.", "Anna: singer. " * 9, "x"]
    together = encoder.encode(texts)
    assert together.shape == (3, 3, WIDTH)
    for text, rows in zip(texts, together, strict=True):
        numpy.testing.assert_allclose(encoder.encode([text])[0], rows, rtol=0, atol=1e-5)
    batch = encoder.tokenizer(texts[0], return_tensors="pt")
    with torch.no_grad():
        states = encoder.encoder(**batch).last_hidden_state[0].numpy()
    for length, expected in ((1, states.mean(0, keepdims=True)), (len(states), states)):
        (found,) = KnowledgeEncoder(source, length).encode(texts[:1])
        numpy.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_long_knowledge_is_cut(bert_source: str) -> None:
    encoder = KnowledgeEncoder(bert_source, 2, max_pieces=16)
    words = "Oslo is cold . " * 200
    assert numpy.array_equal(encoder.encode([words]), encoder.encode([words + "and warm"]))


def test_no_knowledge_no_targets(bert_source: str) -> None:
    docs = [spacy.blank("en")("Oslo")]
    assert set_prompt_targets(docs, KnowledgeEncoder(bert_source, 2)) == 0
    assert PROMPT_TARGET_KEY not in docs[0].user_data


def test_similar_knowledge_has_similar_targets(tiny_source: Callable[[str], str]) -> None:
    nlp = spacy.blank("en")
    docs = []
    song = "a singer of the band sings in the old town of {} tonight"
    for text in (song.format("Oslo"), song.format("Lagos"), "tickets, drinks and a walk home"):
        doc = nlp("x")
        doc.user_data[KNOWLEDGE_KEY] = {"sentence": text}
        docs.append(doc)
    set_prompt_targets(docs, KnowledgeEncoder(tiny_source("bert"), 1))
    near, same, far = (targets(doc, 1)[0] for doc in docs)
    assert numpy.linalg.norm(near - same) < numpy.linalg.norm(near - far)


@pytest.fixture(scope="module")
def pair_teacher(bert_source: str) -> Language:
    """A teacher of entities and relations, trained until it finds those of its corpus."""
    spacy.util.fix_random_seed(0)
    nlp = toy_rel.transformer_pipeline(bert_source)
    nlp.add_pipe("sentencizer")

    def examples() -> list[Example]:
        docs = [doc for doc in pair_corpus(nlp) if doc.ents]
        return [Example(nlp.make_doc(doc.text), doc) for doc in docs]

    optimizer = nlp.initialize(examples)
    optimizer.learn_rate = 0.01
    for _ in range(60):
        nlp.update(examples(), sgd=optimizer)
    return nlp


def pair_corpus(nlp: Language) -> list[Doc]:
    """Two labelled docs, one of which asks about a single pair, unlabelled ones, one of nothing."""
    employs = [("Anna", "Bo", "employs")]
    docs = [
        toy_rel.annotated(nlp, "Anna hired Bo in Oslo", ["Anna", "Bo", "Oslo"], employs),
        toy_rel.annotated(nlp, "Anna saw Bo in Rome", ["Anna", "Bo", "Rome"], []),
        nlp.make_doc("Anna hired Bo in Oslo"),
        nlp.make_doc(""),
        nlp.make_doc(" \n"),
    ]
    anna, _, rome = docs[1].ents
    set_pairs(docs[1], [(rome, anna)])
    for i, doc in enumerate(docs):
        doc.user_data[ID_KEY] = f"post-{i}"
    return docs


def test_pairs_of_gold_mentions_found_mentions_and_asked_pairs(pair_teacher: Language) -> None:
    docs = list(teach(pair_teacher, pair_corpus(pair_teacher), batch_size=2))
    labelled, asked, unlabelled, *empty = (get_soft_relations(doc) for doc in docs)
    mentions = [(0, 4, "PER"), (11, 13, "PER"), (17, 21, "LOC")]
    assert labelled.mentions == mentions
    assert sorted(map(tuple, labelled.pairs)) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    assert labelled.labels == ["employs"]
    assert labelled.probabilities[labelled.index_rows()[0, 4, 11, 13], 1] > 0.5
    # The unlabelled twin: the teacher finds the mentions by itself.
    assert unlabelled.mentions == mentions
    numpy.testing.assert_allclose(unlabelled.probabilities, labelled.probabilities, atol=1e-3)
    assert asked.pairs.tolist() == [[2, 0]]
    assert asked.probabilities.shape == (1, 2)
    assert [(soft.mentions, len(soft.pairs)) for soft in empty] == [([], 0), ([], 0)]


def test_what_is_stored_are_the_components_distributions(pair_teacher: Language) -> None:
    (doc,) = teach(pair_teacher, [pair_corpus(pair_teacher)[0]])
    component = toy_rel.component(pair_teacher)
    twin = toy_rel.with_entities(pair_teacher, doc)
    (expected,) = component.predict_soft_relations([pair_teacher.get_pipe("transformer")(twin)])
    found = get_soft_relations(doc)
    assert found.mentions == expected.mentions
    assert numpy.array_equal(found.pairs, expected.pairs)
    numpy.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-3)


def test_entities_and_relations_of_taught_docs_stay(pair_teacher: Language) -> None:
    before = pair_corpus(pair_teacher)
    for old, doc in zip(before, teach(pair_teacher, pair_corpus(pair_teacher)), strict=True):
        assert doc.user_data.keys() - old.user_data.keys() == {
            SOFT_LABELS_KEY,
            SOFT_RELATIONS_KEY,
        }
        assert {key: doc.user_data[key] for key in old.user_data} == old.user_data
        assert doc.has_annotation("ENT_IOB") == old.has_annotation("ENT_IOB")
        assert [ent.text for ent in doc.ents] == [ent.text for ent in old.ents]
        assert doc.has_annotation("SENT_START") == old.has_annotation("SENT_START")


def test_gold_relations_do_not_leak_into_what_is_taught(pair_teacher: Language) -> None:
    docs, swapped = pair_corpus(pair_teacher)[:1], pair_corpus(pair_teacher)[:1]
    anna, bo, _ = swapped[0].ents
    swapped[0]._.mmcot_rel = [Relation(bo, anna, "employs", 1.0)]
    (left,), (right,) = (
        [get_soft_relations(doc) for doc in teach(pair_teacher, given)] for given in (docs, swapped)
    )
    assert numpy.array_equal(left.probabilities, right.probabilities)


def test_soft_relations_survive_a_docbin_and_teach_a_student(pair_teacher: Language) -> None:
    docs = list(teach(pair_teacher, pair_corpus(pair_teacher)))
    binary = DocBin(docs=docs, store_user_data=True).to_bytes()
    loaded = list(DocBin().from_bytes(binary).get_docs(pair_teacher.vocab))
    for doc, twin in zip(docs, loaded, strict=True):
        left, right = get_soft_relations(doc), get_soft_relations(twin)
        assert (left.labels, left.mentions) == (right.labels, right.mentions)
        assert numpy.array_equal(left.pairs, right.pairs)
        assert numpy.array_equal(left.probabilities, right.probabilities)
    unlabelled = loaded[2:]
    assert not any(get_relations(doc) or doc.ents for doc in unlabelled)
    student = toy_rel.pipeline()
    data = [Example(student.make_doc(doc.text), doc) for doc in unlabelled]
    student.initialize(lambda: data)
    for _ in range(30):
        student.update(data, losses={})
    assert toy_rel.names(student("Anna hired Bo in Oslo")) == [("Anna", "Bo", "employs")]


def test_a_teacher_of_relations_alone() -> None:
    """Behind a ruler that finds the mentions."""
    nlp = toy_rel.fitted(steps=20)
    docs = list(teach(nlp, [nlp.make_doc("Anna employs Bo"), nlp.make_doc("nobody")]))
    assert all(SOFT_LABELS_KEY not in doc.user_data for doc in docs)
    soft = get_soft_relations(docs[0])
    assert soft.labels == list(toy_rel.LABELS)
    assert soft.probabilities[soft.index_rows()[0, 4, 13, 15]].argmax() == 3
    assert len(get_soft_relations(docs[1]).pairs) == 0

"""Soft relations as a Doc keeps them."""

from __future__ import annotations

import numpy
import pytest
import spacy
from spacy.tokens import Doc, DocBin

from spacy_mmcot.distillation.soft_labels import (
    SoftRelations,
    get_soft_relations,
    set_soft_relations,
)
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import SOFT_RELATIONS_KEY

LABELS = ["employs", "knows"]
MENTIONS = [(0, 4, "PER"), (13, 15, "PER"), (19, 23, "LOC")]


def soft(n_pairs: int = 4) -> SoftRelations:
    pairs = numpy.array([(0, 1), (1, 0), (2, 0), (1, 2)], dtype="int64")[:n_pairs]
    rows = numpy.random.default_rng(0).dirichlet([0.5] * 3, size=n_pairs).astype("float32")
    return SoftRelations(LABELS, MENTIONS, pairs, rows)


def doc_with(relations: SoftRelations) -> Doc:
    doc = spacy.blank("en")("Anna employs Bo in Oslo")
    set_soft_relations(doc, relations)
    return doc


def assert_equal(found: SoftRelations | None, expected: SoftRelations) -> None:
    assert found is not None
    assert (found.labels, found.mentions) == (expected.labels, expected.mentions)
    assert numpy.array_equal(found.pairs, expected.pairs)
    assert found.pairs.dtype == "int64"
    # 16-bit floats carry three digits.
    numpy.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=2e-3, atol=1e-6)


def test_what_is_set_is_got() -> None:
    found = get_soft_relations(doc_with(soft()))
    assert_equal(found, soft())
    numpy.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-6)
    assert found.index_rows() == {
        (0, 4, 13, 15): 0,
        (13, 15, 0, 4): 1,
        (19, 23, 0, 4): 2,
        (13, 15, 19, 23): 3,
    }


def test_a_doc_without_any() -> None:
    assert get_soft_relations(spacy.blank("en")("Oslo")) is None
    assert get_soft_relations(spacy.blank("en")("Oslo"), LABELS) is None


def test_a_doc_without_pairs() -> None:
    found = get_soft_relations(doc_with(soft(0)))
    assert_equal(found, soft(0))
    assert found.probabilities.shape == (0, 3)
    assert found.index_rows() == {}


def test_more_labels_in_another_order() -> None:
    found = get_soft_relations(doc_with(soft()), ["knows", "sees", "employs"])
    stored = get_soft_relations(doc_with(soft()))
    assert found.labels == ["knows", "sees", "employs"]
    assert numpy.array_equal(found.probabilities[:, [0, 3, 1]], stored.probabilities)
    assert not found.probabilities[:, 2].any()


def test_a_label_that_the_student_does_not_have() -> None:
    with pytest.raises(MMCoTError, match=r"\[E500\].*\['employs'\].*\['knows', 'sees'\]"):
        get_soft_relations(doc_with(soft()), ["knows", "sees"])


def test_bytes_and_docbin() -> None:
    doc = doc_with(soft())
    assert_equal(get_soft_relations(Doc(doc.vocab).from_bytes(doc.to_bytes())), soft())
    binary = DocBin(docs=[doc, doc_with(soft(0))], store_user_data=True).to_bytes()
    first, second = DocBin().from_bytes(binary).get_docs(doc.vocab)
    assert_equal(get_soft_relations(first), soft())
    assert_equal(get_soft_relations(second), soft(0))


def test_a_pair_costs_8_bytes_and_2_a_label() -> None:
    stored = doc_with(soft()).user_data[SOFT_RELATIONS_KEY]
    assert len(stored["pairs"]) == 4 * 8
    assert len(stored["probabilities"]) == 4 * 2 * 3

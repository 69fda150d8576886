from __future__ import annotations

import numpy
import pytest
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from spacy_mmcot.distillation.soft_labels import get_soft_labels, get_soft_tags, set_soft_labels
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import SOFT_LABELS_KEY

LABELS = ["LOC", "MISC", "ORG", "PER"]
TAGS = ["O", *(f"{prefix}-{label}" for label in LABELS for prefix in "BI")]


@pytest.fixture
def rows() -> numpy.ndarray:
    return numpy.random.default_rng(0).dirichlet([0.3] * len(TAGS), size=5).astype("float32")


@pytest.fixture
def doc(rows: numpy.ndarray) -> Doc:
    doc = Doc(Vocab(), words=["Anna", "sings", "in", "Oslo", "."])
    set_soft_labels(doc, TAGS, rows)
    return doc


def check(doc: Doc, rows: numpy.ndarray) -> None:
    labels = get_soft_labels(doc, TAGS)
    assert labels is not None
    assert labels.dtype == "float32"
    assert get_soft_tags(doc) == TAGS
    numpy.testing.assert_allclose(labels, rows, atol=1e-3)
    numpy.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)


def test_round_trips(doc: Doc, rows: numpy.ndarray) -> None:
    check(doc, rows)
    check(Doc(Vocab()).from_bytes(doc.to_bytes()), rows)
    box = DocBin(store_user_data=True, docs=[doc])
    (loaded,) = DocBin().from_bytes(box.to_bytes()).get_docs(Vocab())
    check(loaded, rows)


def test_size_a_token_is_as_documented(doc: Doc) -> None:
    assert len(doc.user_data[SOFT_LABELS_KEY]["probabilities"]) == 18 * len(doc)


def test_sure_rows_compress_well() -> None:
    """A teacher is near one-hot on most tokens."""
    generator = numpy.random.default_rng(0)
    plain, taught = DocBin(store_user_data=True), DocBin(store_user_data=True)
    for _ in range(50):
        rows = numpy.full((30, len(TAGS)), 1e-9)
        rows[numpy.arange(30), generator.choice([0, 0, 0, 0, 1, 2], 30)] = 1.0
        doc = Doc(Vocab(), words=["word"] * 30)
        plain.add(doc)
        set_soft_labels(doc, TAGS, rows)
        taught.add(doc)
    assert len(taught.to_bytes()) - len(plain.to_bytes()) < 18 * 30 * 50 / 4


def test_tags_are_mapped_by_name(doc: Doc, rows: numpy.ndarray) -> None:
    """The student may know its tags in another order, and more of them."""
    tags = ["B-NEW", "I-NEW", *reversed(TAGS)]
    labels = get_soft_labels(doc, tags)
    assert labels is not None
    assert labels.shape == (5, len(tags))
    for column, tag in enumerate(TAGS):
        numpy.testing.assert_allclose(labels[:, tags.index(tag)], rows[:, column], atol=1e-3)
    assert not labels[:, :2].any()


def test_none_where_there_are_none() -> None:
    doc = Doc(Vocab(), words=["Anna"])
    assert get_soft_labels(doc, TAGS) is None
    assert get_soft_tags(doc) == []


def test_empty_doc() -> None:
    doc = Doc(Vocab())
    set_soft_labels(doc, TAGS, numpy.zeros((0, len(TAGS))))
    labels = get_soft_labels(doc, TAGS)
    assert labels is not None
    assert labels.shape == (0, len(TAGS))


def test_tags_that_the_student_does_not_have(doc: Doc) -> None:
    with pytest.raises(MMCoTError, match=r"\[E500\].*'B-MISC', 'I-MISC'.*teach again"):
        get_soft_labels(doc, [tag for tag in TAGS if "MISC" not in tag])


@pytest.mark.parametrize("words", [["Anna", "sings"], ["Anna", "sings", "in", "Oslo", ".", "!"]])
def test_another_tokenization(doc: Doc, words: list[str]) -> None:
    other = Doc(Vocab(), words=words)
    other.user_data[SOFT_LABELS_KEY] = doc.user_data[SOFT_LABELS_KEY]
    with pytest.raises(MMCoTError, match=rf"\[E501\].*cover 5 tokens, .* has {len(words)}\."):
        get_soft_labels(other, TAGS)

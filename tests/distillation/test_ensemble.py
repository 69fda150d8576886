from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import spacy
import toy_rel
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from spacy_mmcot.distillation.soft_labels import get_soft_labels, get_soft_relations, get_soft_tags
from spacy_mmcot.distillation.teach import teach
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import SOFT_LABELS_KEY, SOFT_RELATIONS_KEY

TEXTS = ("Anna hired Bo in Oslo", "", "Bo saw Anna")
EMPLOYS = [("Anna", "Bo", "employs")]


def labelled(nlp: Language) -> Doc:
    return toy_rel.annotated(nlp, "Anna hired Bo in Oslo", ["Anna", "Bo", "Oslo"], EMPLOYS)


def docs_of(nlp: Language) -> list[Doc]:
    """A labelled doc, whose mentions all teachers share, and unlabelled ones."""
    return [labelled(nlp), *map(nlp.make_doc, TEXTS)]


@pytest.fixture(scope="module")
def folders(bert_source: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two teachers of the same labels with other weights, and one of entities alone."""
    folders = []
    for seed in range(2):
        spacy.util.fix_random_seed(seed)
        nlp = toy_rel.transformer_pipeline(bert_source)
        examples = [Example(nlp.make_doc(TEXTS[0]), labelled(nlp))]
        optimizer = nlp.initialize(lambda examples=examples: examples)
        optimizer.learn_rate = 0.01
        for _ in range(20):
            nlp.update(examples, sgd=optimizer)
        folders.append(tmp_path_factory.mktemp("teacher"))
        nlp.to_disk(folders[-1])
    nlp.remove_pipe(toy_rel.component(nlp).name)
    folders.append(tmp_path_factory.mktemp("entities_only"))
    nlp.to_disk(folders[-1])
    return folders


@pytest.fixture(scope="module")
def teachers(folders: list[Path]) -> list[Language]:
    first = spacy.load(folders[0])
    return [first, *(spacy.load(folder, vocab=first.vocab) for folder in folders[1:])]


def taught_by(teacher: Language) -> list[Doc]:
    return list(teach(teacher, docs_of(teacher)))


def test_tags_are_the_mean_of_all_teachers(teachers: list[Language]) -> None:
    taught = list(teach(teachers, docs_of(teachers[0]), batch_size=3))
    alone = [taught_by(teacher) for teacher in teachers]
    tags = get_soft_tags(taught[0])
    for doc, *each in zip(taught, *alone, strict=True):
        rows = [get_soft_labels(one, tags) for one in each]
        found = get_soft_labels(doc, tags)
        assert found is not None
        numpy.testing.assert_allclose(found, numpy.mean(rows, axis=0), atol=2e-3)
    # Teachers of one mind would make this test idle.
    assert not numpy.allclose(
        get_soft_labels(alone[0][0], tags), get_soft_labels(alone[1][0], tags), atol=1e-2
    )


def test_relations_are_the_mean_of_those_who_judge_them(teachers: list[Language]) -> None:
    taught = list(teach(teachers, docs_of(teachers[0])))
    found = get_soft_relations(taught[0])
    # The third teacher finds no relations: its silence is no vote.
    each = [get_soft_relations(taught_by(teacher)[0]) for teacher in teachers[:2]]
    assert found is not None and all(soft is not None for soft in each)
    assert found.index_rows() == each[0].index_rows() == each[1].index_rows()
    expected = numpy.mean([soft.probabilities for soft in each], axis=0)
    numpy.testing.assert_allclose(found.probabilities, expected, atol=2e-3)
    assert not numpy.allclose(each[0].probabilities, each[1].probabilities, atol=1e-2)


def test_a_pair_that_one_teacher_alone_judged_keeps_its_word(teachers: list[Language]) -> None:
    doc = teachers[0].make_doc("Bo saw Anna")
    (taught,) = teach(teachers[:2], [doc])
    found = get_soft_relations(taught)
    first = get_soft_relations(next(teach(teachers[0], [teachers[0].make_doc("Bo saw Anna")])))
    second = get_soft_relations(next(teach(teachers[1], [teachers[1].make_doc("Bo saw Anna")])))
    assert found is not None and first is not None and second is not None
    assert list(found.index_rows()) == list(first.index_rows())
    for pair, row in found.index_rows().items():
        votes = [
            s.probabilities[s.index_rows()[pair]] for s in (first, second) if pair in s.index_rows()
        ]
        numpy.testing.assert_allclose(
            found.probabilities[row], numpy.mean(votes, axis=0), atol=2e-3
        )


def test_one_teacher_is_teach(teachers: list[Language]) -> None:
    together = list(teach(teachers[:1], docs_of(teachers[0])))
    for doc, other in zip(together, taught_by(teachers[0]), strict=True):
        for key in (SOFT_LABELS_KEY, SOFT_RELATIONS_KEY):
            assert doc.user_data[key] == other.user_data[key]


def test_teachers_of_other_labels(teachers: list[Language]) -> None:
    other = spacy.blank("en", vocab=teachers[0].vocab)
    other.add_pipe("mmcot_ner").add_label("FILM")
    other.initialize()
    with pytest.raises(MMCoTError, match=r"E505.*FILM"):
        list(teach([teachers[0], other], docs_of(teachers[0])))

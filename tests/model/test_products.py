"""Another way to multiply matrices changes no prediction."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import spacy
import toy
from spacy.language import Language
from thinc.api import CupyOps, NumpyOps

from spacy_mmcot.model.cnn import NumpyProducts

CALLBACK = {"@callbacks": "spacy_mmcot.NumpyProducts.v1"}


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Language, Language]:
    """A pipeline, and what is loaded from its files once its config names the callback."""
    nlp = toy.initialised()
    toy.fit(nlp, toy.examples(nlp), steps=10)
    nlp.config["nlp"]["after_pipeline_creation"] = CALLBACK
    folder: Path = tmp_path_factory.mktemp("products")
    nlp.to_disk(folder)
    return nlp, spacy.load(folder)


@pytest.mark.parametrize("trans1", [False, True])
@pytest.mark.parametrize("trans2", [False, True])
def test_products_are_those_of_thinc(trans1: bool, trans2: bool) -> None:
    random = numpy.random.default_rng(0)
    x = random.normal(size=(7, 5) if trans1 else (5, 7)).astype("float32")
    y = random.normal(size=(3, 7) if trans2 else (7, 3)).astype("float32")
    out = numpy.zeros((5, 3), dtype="float32")
    ours = NumpyProducts().gemm(x, y, out=out, trans1=trans1, trans2=trans2)
    thincs = NumpyOps().gemm(x, y, trans1=trans1, trans2=trans2)
    assert ours is out
    numpy.testing.assert_allclose(ours, thincs, rtol=1e-5, atol=1e-6)
    numpy.testing.assert_array_equal(ours, NumpyProducts().gemm(x, y, None, trans1, trans2))


def test_a_loaded_pipeline_multiplies_by_numpy(changed: tuple[Language, Language]) -> None:
    before, after = (list(nlp.get_pipe("mmcot_ner").model.walk()) for nlp in changed)
    assert all(type(node.ops) is NumpyOps for node in before)
    assert all(type(node.ops) is NumpyProducts for node in after)


def test_predictions_stay(changed: tuple[Language, Language]) -> None:
    before, after = (list(nlp.pipe(toy.texts())) for nlp in changed)
    assert toy.found(before) == toy.found(after)
    for left, right in zip(before, after, strict=True):
        assert toy.scores(left) == pytest.approx(toy.scores(right), abs=1e-4)


def test_it_learns(changed: tuple[Language, Language]) -> None:
    _, nlp = changed
    data = toy.examples(nlp)
    before = toy.loss(nlp, data)
    toy.fit(nlp, data, steps=15)
    assert toy.loss(nlp, data) < before / 2


def test_a_backend_of_another_kind_is_left_alone() -> None:
    nlp = toy.pipeline()
    other = CupyOps()
    nodes = list(nlp.get_pipe("mmcot_ner").model.walk())
    nodes[0].ops = other
    spacy.registry.get("callbacks", "spacy_mmcot.NumpyProducts.v1")()(nlp)
    assert nodes[0].ops is other
    assert all(type(node.ops) is NumpyProducts for node in nodes[1:])

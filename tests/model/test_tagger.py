"""The tag head as a thinc model: shapes, gradients, what is saved."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch
from spacy.tokens import Doc
from spacy.vocab import Vocab
from thinc.api import Adam, Model

from spacy_mmcot.model.bridge import torch_shim
from spacy_mmcot.model.tagger import ILLEGAL, Tagger, TagScores, find_legal_steps, set_tags
from spacy_mmcot.types import KNOWLEDGE_KEY

TAGS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
WIDTH = 6


def vectors(docs: list[Doc]) -> list[numpy.ndarray]:
    """Fixed vectors of each token, and no width for an empty Doc, as listeners give them."""
    rows = []
    for doc in docs:
        shape = (len(doc), WIDTH if len(doc) else 0)
        rows.append(numpy.random.default_rng(len(doc)).normal(size=shape).astype("float32"))
    return rows


def tagger(
    crf: bool = True, dropout: float = 0.0, conclusions: bool = False
) -> tuple[Model, list[Any]]:
    """A tagger over fixed vectors, and the list that receives the gradients of those."""
    received: list[Any] = []

    def forward(model: Model, docs: list[Doc], is_train: bool) -> tuple[list, Any]:
        return vectors(docs), lambda gradients: received.append(gradients) or docs

    model = Tagger(Model("vectors", forward), dropout=dropout, crf=crf, conclusions=conclusions)
    set_tags(model, TAGS)
    model.initialize(X=docs(2, 3))
    return model, received


def docs(*lengths: int) -> list[Doc]:
    return [Doc(Vocab(), words=["word"] * length) for length in lengths]


def test_scores_have_a_row_a_token_and_bar_illegal_steps() -> None:
    model, _ = tagger()
    scores = model.predict(docs(3, 0, 1))
    assert [rows.shape for rows in scores.emissions] == [(3, 5), (0, 5), (1, 5)]
    assert scores.transitions.shape == (6, 6)
    assert numpy.array_equal(scores.transitions > ILLEGAL / 2, find_legal_steps(TAGS).numpy())
    alone = model.predict(docs(3))
    numpy.testing.assert_allclose(alone.emissions[0], scores.emissions[0], rtol=0, atol=1e-6)


def test_docs_without_tokens_alone() -> None:
    model, _ = tagger()
    assert [rows.shape for rows in model.predict(docs(0, 0)).emissions] == [(0, 5), (0, 5)]


@pytest.mark.parametrize("crf", [True, False])
def test_gradients_match_differences(crf: bool) -> None:
    model, received = tagger(crf)
    batch = docs(3, 0, 2)
    module = torch_shim(model.get_ref("head")).module
    random = numpy.random.default_rng(0)
    scores, backprop = model.begin_update(batch)
    weights = TagScores(
        [random.normal(size=rows.shape).astype("float32") for rows in scores.emissions],
        random.normal(size=scores.transitions.shape).astype("float32"),
    )

    def loss() -> float:
        scores = model.predict(batch)
        legal = scores.transitions > ILLEGAL / 2
        total = sum((a * b).sum() for a, b in zip(scores.emissions, weights.emissions, strict=True))
        return float(total + (scores.transitions * weights.transitions)[legal].sum())

    backprop(weights)
    parameters = dict(module.named_parameters())
    assert set(parameters) == {"linear.weight", "linear.bias", "steps"}
    for name, parameter in parameters.items():
        if name == "steps" and not crf:
            assert parameter.grad is None
            continue
        before = loss()
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
        parameter.data += 0.01 * direction
        change = loss() - before
        parameter.data -= 0.01 * direction
        expected = 0.01 * float((parameter.grad * direction).sum())
        assert change == pytest.approx(expected, rel=1e-2, abs=1e-3)
    assert [rows.shape for rows in received[0]] == [(3, WIDTH), (0, WIDTH), (2, WIDTH)]
    weight = module.linear.weight.detach().numpy()
    numpy.testing.assert_allclose(received[0][2], weights.emissions[2] @ weight, rtol=1e-5)


def test_transitions_stay_as_they_are_without_a_crf() -> None:
    for crf in (True, False):
        model, _ = tagger(crf)
        scores, backprop = model.begin_update(docs(3))
        backprop(TagScores([numpy.ones_like(scores.emissions[0])], numpy.ones((6, 6), "float32")))
        model.finish_update(Adam(0.1))
        after = model.predict(docs(3))
        legal = find_legal_steps(TAGS).numpy()
        assert bool(after.transitions[legal].any()) is crf
        assert (after.transitions[~legal] == numpy.float32(ILLEGAL)).all()
        assert (after.emissions[0] < scores.emissions[0]).all()


def test_dropout_in_training_alone() -> None:
    model, _ = tagger(dropout=0.5)
    batch = docs(3)
    calm = [model.predict(batch).emissions[0] for _ in range(2)]
    wild = [model.begin_update(batch)[0].emissions[0] for _ in range(2)]
    assert numpy.array_equal(*calm)
    assert not numpy.array_equal(*wild)
    assert numpy.array_equal(model.predict(batch).emissions[0], calm[0])


@pytest.mark.parametrize("crf", [True, False])
def test_round_trip(crf: bool) -> None:
    model, _ = tagger(crf)
    scores, backprop = model.begin_update(docs(3))
    backprop(TagScores([numpy.ones_like(scores.emissions[0])], numpy.ones((6, 6), "float32")))
    model.finish_update(Adam(0.1))
    expected = model.predict(docs(3))

    def forward(model: Model, docs: list[Doc], is_train: bool) -> tuple[list, Any]:
        return vectors(docs), lambda gradients: docs

    # Neither tags nor settings are given anew: the bytes hold them.
    loaded = Tagger(Model("vectors", forward)).from_bytes(model.to_bytes())
    found = loaded.predict(docs(3))
    assert numpy.array_equal(found.emissions[0], expected.emissions[0])
    assert numpy.array_equal(found.transitions, expected.transitions)
    assert loaded.get_ref("head").get_dim("nO") == len(TAGS)
    assert loaded.get_ref("head").attrs["learn_transitions"] is crf


def test_initializing_again_starts_from_scratch() -> None:
    model, _ = tagger()
    before = model.predict(docs(3)).emissions[0]
    model.initialize(X=docs(2))
    assert not numpy.array_equal(model.predict(docs(3)).emissions[0], before)


def test_a_teacher_starts_from_what_the_llm_concludes() -> None:
    model, received = tagger(conclusions=True)
    told, empty, not_asked = docs(3, 0, 2)
    told.user_data[KNOWLEDGE_KEY] = {
        "conclusion": {
            "entities": [
                {"mention": "word word", "label": "PER", "sure": "high", "start": 0},
                {"mention": "word", "label": "CITY", "sure": "high", "start": 10},
            ]
        }
    }
    scores, backprop = model.begin_update([told, empty, not_asked])
    assert [rows.shape for rows in scores.emissions] == [(3, 5), (0, 5), (2, 5)]
    assert [TAGS[i] for i in scores.emissions[0].argmax(1)] == ["B-PER", "I-PER", "O"]
    plain = model.predict(docs(3, 2))
    numpy.testing.assert_allclose(scores.emissions[2], plain.emissions[1], rtol=0, atol=1e-6)
    # 0.95 is the label's; a tenth of all is spread over the five tags.
    prior = numpy.log(0.9 * 0.95 + 0.1 / 5)
    difference = scores.emissions[0][0, 3] - plain.emissions[0][0, 3]
    assert difference == pytest.approx(prior, abs=1e-4)
    backprop(TagScores([numpy.ones_like(e) for e in scores.emissions], scores.transitions * 0))
    assert [array.shape[0] for array in received[0]] == [3, 0, 2]
    assert received[0][0].shape == (3, WIDTH)
    loaded, _ = tagger(conclusions=True)
    loaded.from_bytes(model.to_bytes())
    again = loaded.predict([told])
    numpy.testing.assert_allclose(again.emissions[0], scores.emissions[0], rtol=0, atol=1e-5)

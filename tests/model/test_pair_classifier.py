"""The pair classifier: its module against a loop over pairs, its thinc model end to end."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab
from thinc.api import Adam, Model
from torch import Tensor

from spacy_mmcot.model import pair_classifier
from spacy_mmcot.model.bridge import torch_shim
from spacy_mmcot.model.pair_classifier import (
    DocPairs,
    PairClassifier,
    PairHead,
    PairIndex,
    compute_pair_priors,
    set_schema,
)
from spacy_mmcot.types import SURENESS

WIDTH = 6
LABELS = ["None", "employs", "knows"]
TYPES = ["LOC", "PER"]


def index(
    docs: list[tuple[int, int]],
    mentions: list[tuple[int, int, int, int]],
    pairs: list[tuple[int, int]],
) -> PairIndex:
    """mentions: (start, end, type, doc)."""
    table = torch.tensor(mentions, dtype=torch.long).reshape(-1, 4)
    return PairIndex(
        torch.tensor(docs).reshape(-1, 2),
        table[:, :2],
        table[:, 2],
        table[:, 3],
        torch.tensor(pairs, dtype=torch.long).reshape(-1, 2),
    )


def small_index() -> PairIndex:
    """A doc with mentions apart, adjacent and of an unknown type, an empty doc, and a third."""
    mentions = [(0, 2, 1, 0), (2, 3, 2, 0), (6, 7, 0, 0), (8, 9, 1, 2), (10, 11, 2, 2)]
    pairs = [(0, 1), (1, 0), (0, 2), (2, 0), (4, 3), (3, 4), (2, 1)]
    return index([(0, 8), (8, 8), (8, 12)], mentions, pairs)


def head(conclusions: bool = False) -> PairHead:
    torch.manual_seed(0)
    module = PairHead(
        WIDTH,
        len(TYPES),
        len(LABELS),
        hidden=5,
        dropout=0.0,
        conclusions=conclusions,
    )
    # Embeddings begin so small that a wrong row would not show.
    for part in module.modules():
        if isinstance(part, torch.nn.Embedding):
            torch.nn.init.normal_(part.weight)
    return module.double().eval()


def mean(states: Tensor) -> Tensor:
    return states.mean(0) if len(states) else states.new_zeros(states.shape[1])


def view_of(module: PairHead, states: Tensor, index: PairIndex, h: int, t: int) -> Tensor:
    """The hidden layer's input from one pair, from its own slices of the states."""
    (h0, h1), (t0, t1) = index.mentions[h].tolist(), index.mentions[t].tolist()
    of_doc = states[slice(*index.docs[int(index.doc_of[h])].tolist())]
    left, right = min(h1, t1), max(h0, t0)
    of_head, of_tail = module.head(mean(states[h0:h1])), module.tail(mean(states[t0:t1]))
    total = of_head + of_tail + module.doc(mean(of_doc))
    total = total + module.head_type.weight[index.types[h]]
    total = total + module.tail_type.weight[index.types[t]]
    gap = max(0, right - left)
    bucket = [n for n, bound in enumerate((0, 1, 2, 3, 5, 9, 17, 33)) if gap >= bound][-1]
    total = total + module.distance.weight[bucket + (8 if h0 > t0 else 0)]
    return total + module.around(mean(states[left:right]))


def one_by_one(module: PairHead, states: Tensor, index: PairIndex) -> Tensor:
    rows = []
    for h, t in index.pairs.tolist():
        total = view_of(module, states, index, h, t)
        rows.append(module.output(torch.relu(total)))
    return torch.stack(rows)


def test_against_a_loop_over_pairs() -> None:
    module = head()
    states = torch.randn(12, WIDTH, dtype=torch.float64)
    found = module(states, small_index())
    expected = one_by_one(module, states, small_index())
    assert found.shape == (7, len(LABELS))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("gap", [0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 50])
def test_distances_and_their_order(gap: int) -> None:
    module = head()
    states = torch.randn(gap + 2, WIDTH, dtype=torch.float64)
    mentions = [(0, 1, 1, 0), (gap + 1, gap + 2, 1, 0)]
    both = index([(0, gap + 2)], mentions, [(0, 1), (1, 0)])
    torch.testing.assert_close(module(states, both), one_by_one(module, states, both))


def test_gradients() -> None:
    module = head()
    states = torch.randn(12, WIDTH, dtype=torch.float64, requires_grad=True)
    parameters = tuple(module.parameters())

    def logits(states: Tensor, *_: Tensor) -> Tensor:
        return module(states, small_index())

    assert torch.autograd.gradcheck(logits, (states, *parameters), fast_mode=True)


def test_no_pairs() -> None:
    module = head()
    states = torch.randn(3, WIDTH, dtype=torch.float64, requires_grad=True)
    found = module(states, index([(0, 3)], [(0, 1, 1, 0)], []))
    assert found.shape == (0, len(LABELS))
    found.sum().backward()
    assert not states.grad.any()


def test_a_large_batch_costs_no_digits() -> None:
    """Encoders have dimensions far from 0, whose sum over a batch outgrows a 32-bit float."""
    module = head().float()
    states = torch.randn(30_000, WIDTH) + 20
    mentions = [(0, 1, 1, 1), (3, 5, 1, 1)]
    alone = index([(0, 0), (0, 8)], mentions, [(0, 1), (1, 0)])
    shifted = [(29_992 + start, 29_992 + end, *rest) for start, end, *rest in mentions]
    last = index([(0, 29_992), (29_992, 30_000)], shifted, [(0, 1), (1, 0)])
    torch.testing.assert_close(
        module(states, last), module(states[-8:], alone), rtol=1e-5, atol=1e-4
    )


def vectors(docs: list[Doc]) -> list[numpy.ndarray]:
    """Fixed vectors of each token, and no width for an empty Doc, as listeners give them."""
    rows = []
    for doc in docs:
        shape = (len(doc), WIDTH if len(doc) else 0)
        rows.append(numpy.random.default_rng(len(doc)).normal(size=shape).astype("float32"))
    return rows


def entry(n_tokens: int, n_mentions: int) -> DocPairs:
    """Every second token a mention; all ordered pairs of them."""
    doc = Doc(Vocab(), words=["word"] * n_tokens)
    labels = (*TYPES, "NEW")
    mentions = [Span(doc, 2 * i, 2 * i + 1, label=labels[i % 3]) for i in range(n_mentions)]
    pairs = [(h, t) for h in range(n_mentions) for t in range(n_mentions) if h != t]
    return DocPairs(doc, mentions, numpy.array(pairs, dtype="int64").reshape(-1, 2))


def batch() -> list[DocPairs]:
    return [entry(7, 3), entry(0, 0), entry(4, 1), entry(9, 4), entry(3, 2)]


def classifier(dropout: float = 0.0) -> tuple[Model, list[Any]]:
    """A classifier over fixed vectors, and the list that receives the gradients of those."""
    received: list[Any] = []

    def forward(model: Model, docs: list[Doc], is_train: bool) -> tuple[list, Any]:
        return vectors(docs), lambda gradients: received.append(gradients) or docs

    model = PairClassifier(Model("vectors", forward), hidden=8, dropout=dropout)
    set_schema(model, LABELS, TYPES)
    torch.manual_seed(0)
    model.initialize(X=[entry(3, 0)])
    return model, received


def test_a_row_a_pair_and_batch_equals_single() -> None:
    model, _ = classifier()
    together = model.predict(batch())
    assert [rows.shape for rows in together] == [(6, 3), (0, 3), (0, 3), (12, 3), (2, 3)]
    for single, rows in zip(batch(), together, strict=True):
        numpy.testing.assert_allclose(model.predict([single])[0], rows, rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 5, 20, 21])
def test_chunks_change_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = classifier()
    whole = model.predict(batch())
    monkeypatch.setattr(pair_classifier, "CHUNK", chunk)
    for left, right in zip(model.predict(batch()), whole, strict=True):
        numpy.testing.assert_allclose(left, right, rtol=0, atol=1e-6)


def test_gradients_match_differences() -> None:
    model, received = classifier()
    module = torch_shim(model).module
    random = numpy.random.default_rng(0)
    logits, backprop = model.begin_update(batch())
    weights = [random.normal(size=rows.shape).astype("float32") for rows in logits]

    def loss() -> float:
        pairs = zip(model.predict(batch()), weights, strict=True)
        return float(sum((a * b).sum() for a, b in pairs))

    backprop(weights)
    for name, parameter in module.named_parameters():
        before = loss()
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
        parameter.data += 0.003 * direction
        change = loss() - before
        parameter.data -= 0.003 * direction
        expected = 0.003 * float((parameter.grad * direction).sum())
        assert change == pytest.approx(expected, rel=5e-2, abs=3e-3), name
    assert [rows.shape for rows in received[0]] == [(len(e.doc), WIDTH) for e in batch()]
    moved = [bool(abs(rows).max(initial=0) > 1e-3) for rows in received[0]]
    assert moved == [True, False, False, True, True]


def test_a_batch_without_pairs_still_answers_its_encoder() -> None:
    model, received = classifier()
    logits, backprop = model.begin_update([entry(3, 1), entry(0, 0), entry(2, 0)])
    assert [rows.shape for rows in logits] == [(0, 3)] * 3
    backprop(logits)
    assert [rows.shape for rows in received[0]] == [(3, WIDTH), (0, WIDTH), (2, WIDTH)]
    assert not any(rows.any() for rows in received[0])


def test_dropout_in_training_alone() -> None:
    model, _ = classifier(dropout=0.5)
    calm = [model.predict([entry(7, 3)])[0] for _ in range(2)]
    wild = [model.begin_update([entry(7, 3)])[0][0] for _ in range(2)]
    assert numpy.array_equal(*calm)
    assert not numpy.array_equal(*wild)
    assert numpy.array_equal(model.predict([entry(7, 3)])[0], calm[0])


def test_round_trip() -> None:
    model, _ = classifier()
    logits, backprop = model.begin_update(batch())
    backprop([numpy.ones_like(rows) for rows in logits])
    model.finish_update(Adam(0.1))
    expected = model.predict(batch())
    assert not numpy.allclose(expected[0], logits[0])

    def forward(model: Model, docs: list[Doc], is_train: bool) -> tuple[list, Any]:
        return vectors(docs), lambda gradients: docs

    # Neither schema nor settings are given anew: the bytes hold them.
    loaded = PairClassifier(Model("vectors", forward)).from_bytes(model.to_bytes())
    for left, right in zip(loaded.predict(batch()), expected, strict=True):
        assert numpy.array_equal(left, right)


def test_initializing_again_starts_from_scratch_with_another_schema() -> None:
    model, _ = classifier()
    before = model.predict([entry(7, 3)])[0]
    model.initialize(X=[entry(3, 0)])
    assert not numpy.array_equal(model.predict([entry(7, 3)])[0], before)
    set_schema(model, [*LABELS, "sees"], [*TYPES, "NEW"])
    model.initialize(X=[entry(3, 0)])
    assert model.predict([entry(7, 3)])[0].shape == (6, 4)


def test_a_conclusion_moves_the_logits_of_its_pair_alone() -> None:
    module, where = head(conclusions=True), small_index()
    assert module.tags is not None
    module.tags.weight.data[0] = 0.0  # no tag
    states = torch.randn(12, WIDTH, dtype=torch.double)
    tags = torch.zeros(len(where.pairs), 8, dtype=torch.long)
    tags[:, 0] = -1  # not asked
    plain = module(states, where)
    torch.testing.assert_close(module(states, where, tags), plain)
    tags[2, :2] = torch.tensor([2, 1])
    tags[2, 3:5] = torch.tensor([5, 9])
    changed = (module(states, where, tags) - plain).abs().sum(1) > 1e-9
    assert changed.tolist() == [False, False, True, False, False, False, False]


def test_what_a_conclusion_says_before_anything_is_learned() -> None:
    label = torch.tensor([2, 2, 0, -1])
    sure = torch.tensor([SURENESS.index(s) for s in ("high", "low", "medium", "high")])
    priors = compute_pair_priors(label, sure, 3)
    # A tenth of all is spread over the three labels.
    expected = 0.9 * torch.tensor([[0.05, 0, 0.95], [0.5, 0, 0.5], [0.7, 0.15, 0.15]]) + 0.1 / 3
    torch.testing.assert_close(priors[:3].exp(), expected)
    assert not priors[3].any()

"""The random field against plain enumeration of all tag sequences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spacy_mmcot.components import decoding
from spacy_mmcot.model import tagger as crf
from spacy_mmcot.model.tagger import ILLEGAL, compute_forward, find_legal_steps

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
Path = tuple[int, ...]
Span = tuple[int, int, int]  # start, end, index of the B- tag
SpanOf = tuple[int, ...]  # the sentence before them


class Field(NamedTuple):
    emissions: Tensor
    lengths: Tensor
    transitions: Tensor


def arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().numpy() for tensor in tensors]


def lattice(field: Field) -> decoding.Lattice:
    return decoding.compute_lattice(*arrays(*field))


def compute_marginals(field: Field) -> Tensor:
    """Those of training for scores that are learned from, otherwise those of prediction."""
    if field.emissions.requires_grad:
        return crf.compute_log_marginals(*field)[0].exp()
    emissions, lengths, transitions = arrays(*field)
    each = {row: emissions[row, :length] for row, length in enumerate(lengths)}
    found = decoding.compute_marginals(each, transitions)
    return pad_sequence([torch.tensor(found[row]) for row in each], batch_first=True)


def compute_log_z(field: Field) -> Tensor:
    if field.emissions.requires_grad:
        return crf.compute_log_marginals(*field)[1]
    return torch.tensor(lattice(field).log_z)


def score_spans(field: Field, spans: list[SpanOf]) -> Tensor:
    if field.emissions.requires_grad:
        return crf.score_spans(*field, compute_log_z(field), spans)
    found = []
    for row, start, end, begin in spans:
        chosen = [[0] * length for length in field.lengths.tolist()]
        chosen[row][start:end] = [begin, *[begin + 1] * (end - start - 1)]
        places = [(row, start, end)]
        found.append(decoding.score_mentions(lattice(field), chosen, places))
    return torch.tensor(numpy.concatenate(found))


def score_stretches(field: Field, chosen: list[Any], stretches: list[Span]) -> Tensor:
    """The probability that the tokens of each stretch have the chosen tags."""
    return torch.tensor(decoding.score_stretches(lattice(field), chosen, stretches)).exp()


def find_best_paths(field: Field) -> list[list[int]]:
    return decoding.find_best_paths(*arrays(*field))


def span_probability(field: Field, *span: int) -> float:
    found = score_spans(field, [span]).item()
    assert found <= 0.0
    return math.exp(found)


def random_field(lengths: list[int], seed: int, scale: float = 1.0) -> Field:
    """Double precision, with noise where no token is, so that a look past the end shows."""
    generator = torch.Generator().manual_seed(seed)
    n = len(TAGS)
    emissions = torch.randn(len(lengths), max(lengths), n, generator=generator, dtype=torch.float64)
    steps = torch.randn(n + 1, n + 1, generator=generator, dtype=torch.float64)
    transitions = steps.masked_fill(~find_legal_steps(TAGS), ILLEGAL)
    return Field(emissions * scale, torch.tensor(lengths), transitions)


def is_legal(path: Path) -> bool:
    before = "O"
    for tag in (TAGS[i] for i in path):
        if tag[0] == "I" and (before == "O" or before[2:] != tag[2:]):
            return False
        before = tag
    return True


def paths(length: int) -> Iterator[Path]:
    return (p for p in itertools.product(range(len(TAGS)), repeat=length) if is_legal(p))


def score(field: Field, row: int, path: Path) -> float:
    total = field.transitions[-1, path[0]] + field.transitions[path[-1], -1]
    total = total + sum(field.transitions[i, j] for i, j in itertools.pairwise(path))
    emissions = field.emissions.detach()[row]
    return float(total + sum(emissions[t, tag] for t, tag in enumerate(path)))


def mentions(path: Path) -> set[Span]:
    found: set[Span] = set()
    for start, tag in enumerate(path):
        if TAGS[tag][0] == "B":
            end = start + 1
            while end < len(path) and path[end] == tag + 1:
                end += 1
            found.add((start, end, tag))
    return found


def weights(field: Field, row: int) -> dict[Path, float]:
    """The probability of each legal path."""
    scores = {p: score(field, row, p) for p in paths(int(field.lengths[row]))}
    top = max(scores.values())
    z = sum(math.exp(s - top) for s in scores.values())
    return {p: math.exp(s - top) / z for p, s in scores.items()}


BATCHES = [([1], 0), ([2], 1), ([4], 2), ([1, 4, 2, 3], 3), ([3, 1, 1], 4), ([4, 4], 5)]


@pytest.fixture(params=BATCHES, ids=lambda b: "-".join(map(str, b[0])))
def batch(request: pytest.FixtureRequest) -> tuple[list[int], int]:
    return request.param


@pytest.fixture(params=[False, True], ids=["predicting", "learning"])
def field(request: pytest.FixtureRequest, batch: tuple[list[int], int]) -> Field:
    """What predicts and what learns are computed in different ways."""
    field = random_field(*batch, scale=1.5)
    field.emissions.requires_grad_(request.param)
    return field


def test_log_z(field: Field) -> None:
    forward, log_z = compute_forward(*field)
    assert forward.shape == field.emissions.shape
    for row, length in enumerate(field.lengths.tolist()):
        scores = torch.tensor([score(field, row, p) for p in paths(length)], dtype=torch.float64)
        assert log_z[row].item() == pytest.approx(torch.logsumexp(scores, 0).item(), abs=1e-9)


def test_marginals(field: Field) -> None:
    marginals = compute_marginals(field)
    for row, length in enumerate(field.lengths.tolist()):
        expected = torch.zeros(length, len(TAGS), dtype=torch.float64)
        for path, weight in weights(field, row).items():
            expected[torch.arange(length), torch.tensor(path)] += weight
        torch.testing.assert_close(marginals[row, :length], expected, rtol=0, atol=1e-9)


def test_best_path(field: Field) -> None:
    for row, path in enumerate(find_best_paths(field)):
        probabilities = weights(field, row)
        assert tuple(path) == max(probabilities, key=probabilities.__getitem__)


def test_path_scores(field: Field) -> None:
    """Of the best path and of the worst one that is legal."""
    whole = [(row, 0, length) for row, length in enumerate(field.lengths.tolist())]
    for pick in (max, min):
        chosen = []
        for row in range(len(field.lengths)):
            probabilities = weights(field, row)
            chosen.append(pick(probabilities, key=probabilities.__getitem__))
        found = score_stretches(field, chosen, whole).tolist()
        assert found == pytest.approx([weights(field, r)[p] for r, p in enumerate(chosen)])


def test_span_probabilities(field: Field) -> None:
    for row, length in enumerate(field.lengths.tolist()):
        probabilities = weights(field, row)
        for start, end in itertools.combinations(range(length + 1), 2):
            for begin in (1, 3):
                expected = sum(
                    w for p, w in probabilities.items() if (start, end, begin) in mentions(p)
                )
                found = span_probability(field, row, start, end, begin)
                assert found == pytest.approx(expected, abs=1e-9)


def test_spans_over_a_token_add_up_to_its_chance_of_being_inside() -> None:
    length = 9
    field = random_field([4, length], seed=7)
    inside = [0.0] * length
    for start, end in itertools.combinations(range(length + 1), 2):
        for begin in (1, 3):
            probability = span_probability(field, 1, start, end, begin)
            for t in range(start, end):
                inside[t] += probability
    outside = compute_marginals(field)[1, :, 0]
    assert inside == pytest.approx((1 - outside).tolist(), abs=1e-9)


@pytest.mark.parametrize("scale", [1.0, 20.0, 50.0, 200.0])
def test_predicting_and_learning_see_one_lattice(scale: float) -> None:
    """Scores that lie far apart too, in the precision of production."""
    lengths = [40, 1, 17, 39]
    field = random_field(lengths, seed=2, scale=scale)
    exact = Field(field.emissions.clone().requires_grad_(), *field[1:])
    single = Field(field.emissions.float(), field.lengths, field.transitions.float())
    # Rounding grows with the scores, which a sentence adds up.
    error = {"rtol": 1e-5, "atol": 1e-4 * scale}
    torch.testing.assert_close(compute_log_z(single).double(), compute_log_z(exact), **error)
    expected, found = compute_marginals(exact), compute_marginals(single)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(
            found[row, :length].double(), expected[row, :length], rtol=0, atol=2e-4 * scale
        )


def test_spans_of_a_batch_are_scored_together() -> None:
    field = random_field([4, 9, 1], seed=3)
    field.emissions.requires_grad_()
    spans: list[SpanOf] = [(1, 2, 9, 3), (0, 0, 1, 1), (2, 0, 1, 3), (0, 1, 4, 1), (1, 8, 9, 1)]
    alone = [span_probability(field, *span) for span in spans]
    assert score_spans(field, spans).exp().tolist() == pytest.approx(alone, abs=1e-12)


def test_adjacent_mentions_of_one_label_stay_apart() -> None:
    field = random_field([3], seed=0)
    field.emissions.zero_()
    field.emissions[0, [0, 1, 2], [1, 1, 2]] = 30.0
    assert find_best_paths(field) == [[1, 1, 2]]

    def probability(start: int, end: int) -> float:
        return span_probability(field, 0, start, end, 1)

    assert probability(0, 1) == pytest.approx(1, abs=1e-6)
    assert probability(1, 3) == pytest.approx(1, abs=1e-6)
    assert probability(0, 3) == pytest.approx(0, abs=1e-6)


def test_a_doc_scores_the_same_alone_and_padded() -> None:
    batch = random_field([3, 7, 1, 5], seed=11)
    log_z, marginals, routes = (
        compute_log_z(batch),
        compute_marginals(batch),
        find_best_paths(batch),
    )
    for row, length in enumerate(batch.lengths.tolist()):
        emissions = batch.emissions[row : row + 1, :length]
        alone = Field(emissions, batch.lengths[row : row + 1], batch.transitions)
        torch.testing.assert_close(compute_log_z(alone)[0], log_z[row])
        torch.testing.assert_close(compute_marginals(alone)[0], marginals[row, :length])
        assert find_best_paths(alone) == [routes[row]]


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1000.0])
def test_never_an_illegal_tag(scale: float) -> None:
    for seed in range(5):
        lengths = [12, 1, 5, 2, 9, 12, 3, 7]
        field = random_field(lengths, seed, scale)
        # Push towards the tags that may not start a mention, in the precision of production.
        emissions = field.emissions.float()
        emissions[..., 2::2] += scale
        single = Field(emissions, field.lengths, field.transitions.float())
        routes = find_best_paths(single)
        assert [len(route) for route in routes] == lengths
        assert all(is_legal(tuple(route)) for route in routes)
        marginals = compute_marginals(single)
        for row, length in enumerate(lengths):
            assert torch.isfinite(marginals[row, :length]).all()
            assert marginals[row, 0, 2::2].max() == 0.0
            torch.testing.assert_close(
                marginals[row, :length].sum(-1).float(), torch.ones(length), rtol=0, atol=0.01
            )


def test_legal_steps_of_labels_whose_names_contain_each_other() -> None:
    tags = ["O", "B-A", "I-A", "B-A-B", "I-A-B"]
    legal = find_legal_steps(tags)
    assert {(tags[i], tags[j]) for i, j in legal[:5, :5].nonzero().tolist() if j in (2, 4)} == {
        ("B-A", "I-A"),
        ("I-A", "I-A"),
        ("B-A-B", "I-A-B"),
        ("I-A-B", "I-A-B"),
    }
    assert legal[-1].tolist() == [True, True, False, True, False, True]
    assert legal[:, -1].all()


@pytest.mark.parametrize("lengths", [[1], [3, 2]])
def test_gradients(lengths: list[int]) -> None:
    field = random_field(lengths, seed=5)
    legal = find_legal_steps(TAGS)
    steps = field.transitions.masked_fill(~legal, 0.0).requires_grad_()
    emissions = field.emissions.requires_grad_()

    def log_z(emissions: Tensor, steps: Tensor) -> Tensor:
        transitions = steps.masked_fill(~legal, ILLEGAL)
        return compute_forward(emissions, field.lengths, transitions)[1]

    def marginals(emissions: Tensor, steps: Tensor) -> tuple[Tensor, ...]:
        transitions = steps.masked_fill(~legal, ILLEGAL)
        table, _ = crf.compute_log_marginals(emissions, field.lengths, transitions)
        return tuple(table[row, :length] for row, length in enumerate(lengths))

    assert torch.autograd.gradcheck(log_z, (emissions, steps))
    # Tags that no path reaches score about ILLEGAL, which costs the differences four digits.
    assert torch.autograd.gradcheck(marginals, (emissions, steps), eps=1e-5, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([0.0, 0.1, 1.0, 5.0, 30.0]),
    edges=st.tuples(st.integers(0, 3), st.integers(1, 4)),
    learning=st.booleans(),
)
def test_any_field_against_enumeration(
    lengths: list[int], seed: int, scale: float, edges: tuple[int, int], learning: bool
) -> None:
    """Marginals, best paths, mentions, and stretches of the best path."""
    field = random_field(lengths, seed, scale)
    field.emissions.requires_grad_(learning)
    marginals = compute_marginals(field).detach()
    best = find_best_paths(field)
    for row, length in enumerate(lengths):
        probabilities = weights(field, row)
        path = tuple(best[row])
        assert probabilities[path] == pytest.approx(max(probabilities.values()), abs=1e-9)
        expected = torch.zeros(length, len(TAGS), dtype=torch.float64)
        spans: dict[Span, float] = {}
        for other, weight in probabilities.items():
            expected[torch.arange(length), torch.tensor(other)] += weight
            for span in mentions(other):
                spans[span] = spans.get(span, 0.0) + weight
        torch.testing.assert_close(marginals[row, :length], expected, rtol=0, atol=1e-9)
        for (start, end, tag), chance in spans.items():
            found = span_probability(field, row, start, end, tag)
            assert found == pytest.approx(chance, abs=1e-9)
        start, end = min(edges[0], length - 1), min(edges[1], length)
        if start < end:
            stretch = [(row, start, end)]
            (found,) = score_stretches(field, best, stretch).tolist()
            agree = (w for p, w in probabilities.items() if p[start:end] == path[start:end])
            assert found == pytest.approx(sum(agree), abs=1e-9)

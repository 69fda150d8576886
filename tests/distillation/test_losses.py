"""The losses against enumeration, and who learns from what."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from spacy_mmcot.distillation.soft_labels import Losses, pair_losses, tag_losses
from spacy_mmcot.model.tagger import ILLEGAL, compute_log_marginals, find_legal_steps

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
LEGAL = find_legal_steps(TAGS)


class Batch:
    """Random scores for docs of the given lengths; nothing labelled or taught yet."""

    def __init__(self, lengths: list[int], seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        shape = (len(lengths), max(lengths), len(TAGS))
        random = torch.randn(*shape, generator=generator, dtype=torch.float64)
        self.emissions = random.requires_grad_()
        n = len(TAGS) + 1
        self.steps = torch.randn(n, n, generator=generator, dtype=torch.float64).requires_grad_()
        self.lengths = torch.tensor(lengths)
        self.allowed = torch.ones(shape, dtype=torch.bool)
        self.soft = torch.zeros(shape, dtype=torch.float64)

    @property
    def transitions(self) -> Tensor:
        return self.steps.masked_fill(~LEGAL, ILLEGAL)

    def label(self, row: int, *tags: str | None) -> None:
        """One tag a token, None where the annotation is missing."""
        for token, tag in enumerate(tags):
            if tag is not None:
                self.allowed[row, token] = False
                self.allowed[row, token, TAGS.index(tag)] = True

    def teach(self, row: int, distributions: Tensor) -> None:
        self.soft[row, : len(distributions)] = distributions

    def losses(self, crf: bool = True) -> Losses:
        return tag_losses(
            self.emissions,
            self.lengths,
            self.transitions,
            self.allowed,
            self.soft,
            crf=crf,
        )

    def gradient(self, loss: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(loss, [self.emissions], retain_graph=True)
        return gradient

    def log_probability_of_open_paths(self, row: int) -> float:
        """By enumeration: the log probability of all legal paths that the annotation allows."""
        length = int(self.lengths[row])
        table, agree = [], []
        for path in itertools.product(range(len(TAGS)), repeat=length):
            around = [-1, *path, -1]
            steps = list(itertools.pairwise(around))
            if all(LEGAL[i, j] for i, j in steps):
                score = sum(self.transitions[i, j] for i, j in steps)
                score = score + sum(self.emissions[row, t, tag] for t, tag in enumerate(path))
                table.append(float(score.detach()))
                agree.append(all(self.allowed[row, t, tag] for t, tag in enumerate(path)))
        scores = torch.tensor(table, dtype=torch.float64)
        return float(torch.logsumexp(scores[torch.tensor(agree)], 0) - torch.logsumexp(scores, 0))


def uniform_over_legal_starts() -> Tensor:
    return torch.tensor([0.5, 0.25, 0.0, 0.25, 0.0], dtype=torch.float64)


def test_complete_and_partial_annotation_equal_enumeration() -> None:
    batch = Batch([4, 3, 1, 4])
    batch.label(0, "O", "B-PER", "I-PER", "O")
    batch.label(1, None, "I-LOC", None)
    batch.label(2, "B-LOC")
    batch.label(3, None, None, "B-PER", "B-PER")
    expected = -sum(batch.log_probability_of_open_paths(row) for row in range(4)) / 8
    assert batch.losses().gold.item() == pytest.approx(expected, abs=1e-9)


def test_softmax_head_is_the_mean_cross_entropy_of_labelled_tokens() -> None:
    batch = Batch([3, 2])
    batch.label(0, "O", None, "B-PER")
    batch.label(1, "B-LOC", "I-LOC")
    gold = torch.tensor([0, 1, 3, 4])
    expected = torch.nn.functional.cross_entropy(
        torch.stack([batch.emissions[r, t] for r, t in ((0, 0), (0, 2), (1, 0), (1, 1))]), gold
    )
    torch.testing.assert_close(batch.losses(crf=False).gold, expected)


def test_soft_loss_is_the_mean_cross_entropy_with_the_marginals() -> None:
    batch = Batch([3, 2])
    rows = torch.stack([uniform_over_legal_starts()] * 2)
    batch.teach(1, rows)
    marginals, _ = compute_log_marginals(batch.emissions, batch.lengths, batch.transitions)
    possible = rows > 0
    expected = -(rows[possible] * marginals[1][:2][possible]).sum() / 2
    torch.testing.assert_close(batch.losses().soft, expected)

    log_softmax = torch.log_softmax(batch.emissions, -1)[1, :2]
    expected = -(rows * log_softmax).sum() / 2
    torch.testing.assert_close(batch.losses(crf=False).soft, expected)


@pytest.mark.parametrize("crf", [True, False])
def test_each_doc_learns_from_what_it_has(crf: bool) -> None:
    """Row 0 is labelled, row 1 taught, row 2 both, row 3 neither."""
    batch = Batch([3, 3, 3, 3])
    batch.label(0, "B-PER", "I-PER", "O")
    batch.label(2, "O", "O", "B-LOC")
    rows = torch.stack([uniform_over_legal_starts()] * 3)
    batch.teach(1, rows)
    batch.teach(2, rows)
    losses = batch.losses(crf)
    moved = [
        [bool(row.abs().sum() > 1e-6) for row in batch.gradient(loss)]
        for loss in (losses.gold, losses.soft)
    ]
    assert moved == [[True, False, True, False], [False, True, True, False]]


def test_a_student_that_agrees_with_its_teacher_stays() -> None:
    teacher = Batch([4, 2], seed=3)
    batch = Batch([4, 2], seed=3)
    marginals, _ = compute_log_marginals(teacher.emissions, teacher.lengths, teacher.transitions)
    for row, length in enumerate((4, 2)):
        batch.teach(row, marginals[row, :length].detach().exp())
    assert batch.gradient(batch.losses().soft).abs().max() < 1e-9


@pytest.mark.parametrize("crf", [True, False])
def test_nothing_to_learn_from(crf: bool) -> None:
    batch = Batch([1, 4, 2])
    losses = batch.losses(crf)
    assert (losses.gold.item(), losses.soft.item()) == (0.0, 0.0)
    gradients = torch.autograd.grad(
        losses.gold + losses.soft, [batch.emissions, batch.steps], allow_unused=True
    )
    for gradient in gradients:
        assert gradient is None or not gradient.any()


@pytest.mark.parametrize("crf", [True, False])
def test_what_stands_past_the_end_of_a_doc_has_no_influence(crf: bool) -> None:
    batch = Batch([1, 4])
    batch.label(0, "B-PER")
    batch.teach(0, uniform_over_legal_starts().unsqueeze(0))
    losses = batch.losses(crf)
    for loss in losses:
        assert not batch.gradient(loss)[0, 1:].any()
    with torch.no_grad():
        batch.emissions[0, 1:] = 1e3
    for before, after in zip(losses, batch.losses(crf), strict=True):
        torch.testing.assert_close(after, before)


@pytest.mark.parametrize("crf", [True, False])
def test_gradients(crf: bool) -> None:
    batch = Batch([3, 2, 2])
    batch.label(0, "B-PER", None, "O")
    batch.teach(1, torch.stack([uniform_over_legal_starts()] * 2))

    def losses(emissions: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        transitions = steps.masked_fill(~LEGAL, ILLEGAL)
        rest = (batch.allowed, batch.soft)
        return tuple(tag_losses(emissions, batch.lengths, transitions, *rest, crf=crf))

    assert torch.autograd.gradcheck(losses, (batch.emissions, batch.steps), eps=1e-5, atol=1e-5)


def test_noise_of_a_teacher_on_a_barred_tag_does_not_drown_the_rest() -> None:
    batch = Batch([2])
    row = uniform_over_legal_starts()
    batch.teach(0, torch.stack([row, row]))
    clean = batch.losses().soft.item()
    # The smallest positive 16-bit float, on a tag that cannot start a mention.
    batch.soft[0, 0, 2] = 6e-8
    assert batch.losses().soft.item() == pytest.approx(clean, abs=1e-4)


INF = float("inf")


def pair_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Five pairs: labelled, taught, both, neither, and taught what its types rule out."""
    logits = torch.tensor(
        [[0.5, 1.0, -1.0], [2.0, -INF, 0.0], [0.1, 0.2, -INF], [3.0, 1.0, 1.0], [0, -INF, -INF]],
        dtype=torch.float64,
    )
    gold = torch.tensor([1, -1, 0, -1, -1])
    soft = torch.tensor(
        [[0, 0, 0], [0.7, 0, 0.3], [0.4, 0.6, 0], [0, 0, 0], [0.9, 0.1, 0]], dtype=torch.float64
    )
    return logits, gold, soft


def test_pair_losses_by_hand() -> None:
    losses = pair_losses(*pair_batch())

    def log_softmax(row: list[float], k: int) -> float:
        return row[k] - math.log(sum(math.exp(x) for x in row))

    gold = -(log_softmax([0.5, 1.0, -1.0], 1) + log_softmax([0.1, 0.2], 0)) / 2
    # The last pair can have no relation but none, whatever the teacher says: log 1 = 0.
    soft = 0.7 * log_softmax([2.0, 0.0], 0) + 0.3 * log_softmax([2.0, 0.0], 1)
    soft += 0.4 * log_softmax([0.1, 0.2], 0) + 0.6 * log_softmax([0.1, 0.2], 1)
    assert losses.gold.item() == pytest.approx(gold, abs=1e-12)
    assert losses.soft.item() == pytest.approx(-soft / 3, abs=1e-12)


def test_each_pair_learns_from_what_it_has() -> None:
    logits, *rest = pair_batch()
    logits.requires_grad_()
    moved = []
    for loss in pair_losses(logits, *rest):
        (gradient,) = torch.autograd.grad(loss, [logits], retain_graph=True)
        assert gradient.isfinite().all()
        assert not gradient[logits.isinf()].any()
        moved.append([bool(row.abs().max() > 1e-9) for row in gradient])
    assert moved == [
        [True, False, True, False, False],
        # The last pair has nowhere to go.
        [False, True, True, False, False],
    ]


@pytest.mark.parametrize("n_pairs", [0, 3])
def test_no_pair_to_learn_from(n_pairs: int) -> None:
    logits = torch.randn(n_pairs, 4, requires_grad=True)
    gold = torch.full((n_pairs,), -1)
    losses = pair_losses(logits, gold, torch.zeros(n_pairs, 4))
    assert (losses.gold.item(), losses.soft.item()) == (0.0, 0.0)
    (losses.gold + losses.soft).backward()
    assert logits.grad is not None and not logits.grad.any()


def test_pair_gradients() -> None:
    masked, gold, soft = pair_batch()
    illegal = masked.isinf()
    free = masked.masked_fill(illegal, 0.3).requires_grad_()

    def losses(logits: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(pair_losses(logits.masked_fill(illegal, -INF), gold, soft))

    assert torch.autograd.gradcheck(losses, (free,), eps=1e-6, atol=1e-6)

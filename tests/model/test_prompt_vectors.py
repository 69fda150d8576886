"""Visual prompts by themselves: shapes, masks, the gate, and the learning of what fits."""

from __future__ import annotations

import pytest
import torch

from spacy_mmcot.model.prompts import PatchNorm, VisualPrompt

WIDTH, STATE, PATCH, K = 12, 10, 6, 3


@pytest.fixture
def prompt() -> VisualPrompt:
    torch.manual_seed(3)
    return VisualPrompt(WIDTH, STATE, PATCH, K, hidden=8).eval()


def inputs(windows: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    mask = torch.ones(windows, 5)
    mask[0, 3:] = 0
    return torch.randn(windows, 5, WIDTH), mask, torch.randn(windows, 4, PATCH)


def test_shapes_and_ranges(prompt: VisualPrompt) -> None:
    embeddings, mask, patches = inputs()
    seen = prompt(embeddings, mask, patches)
    assert seen.vectors.shape == (2, K, WIDTH)
    assert ((seen.gate > 0) & (seen.gate < 1)).all()
    added, attention = prompt.attend_again(torch.randn(2, 5, STATE), seen)
    assert added.shape == (2, 5, STATE)
    assert attention.shape == (2, 5, 4)
    assert (attention >= 0).all()
    # The rest of each piece's attention went to nothing.
    assert (attention.sum(-1) < 1).all()


def test_pieces_outside_the_text_do_not_matter(prompt: VisualPrompt) -> None:
    embeddings, mask, patches = inputs()
    expected = prompt(embeddings, mask, patches)
    embeddings = embeddings.masked_fill(mask.unsqueeze(-1) == 0, 7.0)
    torch.testing.assert_close(prompt(embeddings, mask, patches).vectors, expected.vectors)


def test_every_piece_of_the_text_matters(prompt: VisualPrompt) -> None:
    embeddings, mask, patches = inputs()
    changed = embeddings.clone()
    changed[0, 1] += 1
    before, after = (prompt(e, mask, patches).vectors for e in (embeddings, changed))
    assert (before != after).flatten(1).any(1).tolist() == [True, False]


def test_the_gate_opens_wide_at_first(prompt: VisualPrompt) -> None:
    assert prompt(*inputs()).gate.min() > 0.5 - 0.5 * torch.sigmoid(torch.tensor(3.0))
    prompt.matching.gate_bias.data.fill_(-30.0)
    closed = prompt(*inputs())
    assert closed.gate.max() < 1e-6
    added, _ = prompt.attend_again(torch.randn(2, 5, STATE), closed)
    torch.testing.assert_close(added, torch.zeros_like(added), atol=1e-5, rtol=0)


def test_what_fits_together_is_learnt_and_opens_the_gate() -> None:
    torch.manual_seed(7)
    prompt = VisualPrompt(WIDTH, STATE, PATCH, K, hidden=8)
    embeddings, patches = torch.randn(6, 5, WIDTH), torch.randn(6, 4, PATCH)
    mask, own = torch.ones(6, 5), torch.arange(6)
    optimizer = torch.optim.Adam(prompt.parameters(), 0.02)
    for _ in range(300):
        loss = prompt.compute_matching_loss(embeddings, mask, patches, own)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    prompt.eval()
    assert prompt.compute_matching_loss(embeddings, mask, patches, own) < 0.1
    fitting = prompt(embeddings, mask, patches).gate
    wrong = prompt(embeddings, mask, patches.roll(1, 0)).gate
    assert (fitting > wrong).all()


def test_the_loss_by_hand(prompt: VisualPrompt) -> None:
    embeddings, mask, patches = inputs(3)
    own = torch.tensor([0, 1, 1])
    prompt.eval()  # training drops some of the pictures' features
    torch.nn.init.normal_(prompt.matching.pool.weight)
    loss = prompt.compute_matching_loss(embeddings, mask, patches[:2], own)
    right, wrong = [], []
    for i in range(3):
        for j in range(2):
            pieces = prompt.text_norm(embeddings[i, mask[i] == 1])
            text = prompt.matching.pool(pieces).softmax(0).squeeze(1) @ pieces
            picture = prompt.patch_norm(patches[:2])[j].mean(0)
            match = torch.cosine_similarity(
                prompt.matching.text(text), prompt.matching.picture(picture), dim=0
            )
            share = torch.sigmoid(prompt.matching.scale * match + prompt.matching.bias)
            (right if own[i] == j else wrong).append(-(share if own[i] == j else 1 - share).log())
    expected = (torch.stack(right).mean() + torch.stack(wrong).mean()) / 2
    torch.testing.assert_close(loss, expected)


def test_the_norm_takes_away_what_all_pictures_share() -> None:
    norm = PatchNorm(PATCH)
    patches = torch.randn(8, 4, PATCH) * 0.01 + 30.0
    normed = norm(patches)
    assert abs(float(normed.mean())) < 1e-3
    assert 0.9 < float(normed.std()) < 1.1
    for _ in range(200):
        norm(patches)
    norm.eval()
    torch.testing.assert_close(norm(patches), normed, atol=0.1, rtol=0)


def test_one_picture_alone_is_normed_as_at_inference() -> None:
    norm = PatchNorm(PATCH)
    for _ in range(60):
        norm(torch.randn(8, 4, PATCH) + 3)
    one = torch.randn(1, 4, PATCH) + 3
    alone = norm(one)
    torch.testing.assert_close(norm.eval()(one), alone)

"""Layers without padding give what the encoder itself gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from spacy_mmcot.model.encoder import PieceBatch, PromptedEncoder
from spacy_mmcot.model.encoder import can_pack, run_packed
from spacy_mmcot.model.sources import load_pretrained

PACKABLE = ("bert", "roberta", "electra")
# Not in order of length, two of one length, and one of a single piece.
LENGTHS = (4, 9, 1, 4, 6)


def batch() -> PieceBatch:
    generator = torch.Generator().manual_seed(1)
    longest = max(LENGTHS)
    ids = torch.randint(5, 100, (len(LENGTHS), longest), generator=generator)
    mask = (torch.arange(longest) < torch.tensor(LENGTHS).unsqueeze(1)).long()
    return PieceBatch(ids=ids, mask=mask, types=torch.zeros_like(ids), text=mask, tags=None)


@pytest.mark.parametrize("family", PACKABLE)
def test_states_are_those_of_the_encoder(tiny_source: Callable[[str], str], family: str) -> None:
    _, encoder = load_pretrained(tiny_source(family))
    pieces = batch()
    words = encoder.get_input_embeddings()(pieces.ids)
    with torch.no_grad():
        own = encoder(inputs_embeds=words, attention_mask=pieces.mask).last_hidden_state
        packed = run_packed(encoder, None, inputs_embeds=words, attention_mask=pieces.mask)
    real = pieces.mask.bool()
    assert own[real].std() > 0.1
    assert torch.allclose(packed[real], own[real], atol=1e-5)
    assert not packed[~real].any()


@pytest.mark.parametrize("family", PACKABLE)
@pytest.mark.parametrize("prompt", ["none", "conditional"])
def test_states_and_gradients_are_those_of_the_family_s_own_code(
    tiny_source: Callable[[str], str], family: str, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, encoder = load_pretrained(tiny_source(family))
    module = PromptedEncoder(
        encoder,
        tokenizer,
        prompt=prompt,  # type: ignore[arg-type]
        prompt_length=2,
        embedding_dropout=0.0,
    ).train()
    pieces = batch()
    real = pieces.mask.bool()
    weights = torch.randn(int(real.sum()), module.width, generator=torch.Generator().manual_seed(2))

    def learn() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        module.zero_grad()
        states = module(pieces).states[real]
        (states * weights).sum().backward()
        gradients = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
        return states.detach(), gradients

    assert module.packs
    packed, packed_gradients = learn()
    monkeypatch.setattr(module, "_can_pack", False)
    assert not module.packs
    own, own_gradients = learn()
    assert torch.allclose(packed, own, atol=1e-5)
    assert packed_gradients.keys() == own_gradients.keys()
    assert any("attention" in name for name in own_gradients)
    for name, gradient in own_gradients.items():
        assert torch.allclose(packed_gradients[name], gradient, atol=1e-4, rtol=1e-3), name


def test_attention_dropout_counts_in_training_alone(bert_source: str) -> None:
    tokenizer, encoder = load_pretrained(bert_source)
    module = PromptedEncoder(encoder, tokenizer, embedding_dropout=0.0)
    for layer in encoder.encoder.layer:
        layer.attention.self.dropout.p = 0.5
    pieces = batch()
    with torch.no_grad():
        module.train()
        assert not torch.allclose(module(pieces).states, module(pieces).states)
        module.eval()
        assert torch.equal(module(pieces).states, module(pieces).states)


def test_a_window_does_not_depend_on_its_batch(bert_source: str) -> None:
    tokenizer, encoder = load_pretrained(bert_source)
    module = PromptedEncoder(encoder, tokenizer).eval()
    pieces = batch()
    with torch.no_grad():
        together = module(pieces).states
        for i, length in enumerate(LENGTHS):
            alone = PieceBatch(*(None if t is None else t[i : i + 1, :length] for t in pieces))
            assert torch.allclose(module(alone).states[0], together[i, :length], atol=1e-5)


def test_other_families_keep_their_own_way(source: str) -> None:
    tokenizer, encoder = load_pretrained(source)
    family = encoder.config.model_type
    assert can_pack(encoder) == (family in PACKABLE)
    assert PromptedEncoder(encoder, tokenizer).eval().packs == (family in PACKABLE)

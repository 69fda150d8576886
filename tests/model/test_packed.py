"""Layers without padding give what the encoder itself gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from spacy_mmcot.model.encoder import load_pretrained
from spacy_mmcot.model.packed import can_pack, packed_states
from spacy_mmcot.model.prompted_encoder import PieceBatch, PromptedEncoder

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
        packed = packed_states(encoder, None, inputs_embeds=words, attention_mask=pieces.mask)
    real = pieces.mask.bool()
    assert own[real].std() > 0.1
    assert torch.allclose(packed[real], own[real], atol=1e-5)
    assert not packed[~real].any()


@pytest.mark.parametrize("family", PACKABLE)
@pytest.mark.parametrize("prompt", ["none", "conditional"])
def test_prediction_and_training_agree(
    tiny_source: Callable[[str], str], family: str, prompt: str
) -> None:
    tokenizer, encoder = load_pretrained(tiny_source(family))
    module = PromptedEncoder(
        encoder,
        tokenizer,
        prompt=prompt,  # type: ignore[arg-type]
        prompt_length=2,
        embedding_dropout=0.0,
    )
    pieces = batch()
    module.train()
    assert not module.packs
    with torch.no_grad():
        trained = module(pieces).states
        module.eval()
        assert module.packs
        predicted = module(pieces).states
    real = pieces.mask.bool()
    assert torch.allclose(predicted[real], trained[real], atol=1e-5)


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

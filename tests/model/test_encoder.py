"""The encoder's module: what it passes to the Hugging Face encoder, and layers without padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import build
from transformers import AutoConfig, AutoModel, AutoTokenizer

from spacy_mmcot.model.encoder import (
    EncoderSettings,
    PieceBatch,
    PromptedEncoder,
    can_pack,
    run_packed,
)
from spacy_mmcot.model.knowledge import TAG_ROWS
from spacy_mmcot.model.sources import load_pretrained

K = 2
# Rows of tag embeddings, two a piece.
NONE = [0, 0]
TAGS = [[NONE, [1, 3], [2, 0], NONE, NONE], [NONE, [TAG_ROWS - 1, 1], NONE, NONE, NONE]]


def batch(tags: bool = False) -> PieceBatch:
    """Two windows; the last two pieces of the first one are a knowledge segment."""
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    return PieceBatch(
        ids=torch.tensor([[2, 20, 21, 22, 3], [2, 23, 3, 0, 0]]),
        mask=mask,
        types=torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]),
        text=torch.tensor([[0, 1, 1, 0, 0], [0, 1, 0, 0, 0]]),
        cases=torch.tensor([[0, 4, 1, 0, 0], [0, 2, 0, 0, 0]]),
        tags=torch.tensor(TAGS) if tags else None,
    )


def read(encoder: PromptedEncoder, pieces: PieceBatch) -> dict[str, torch.Tensor]:
    """The arguments that reach the Hugging Face encoder where it is called as a whole, as on a GPU:
    on a CPU its layers may be taken one by one (see below)."""
    caught: dict[str, torch.Tensor] = {}
    hook = encoder.encoder.register_forward_pre_hook(
        lambda _, args, kwargs: caught.update(kwargs), with_kwargs=True
    )
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "_can_pack", False)
        encoder(pieces)
    hook.remove()
    return caught


@pytest.mark.parametrize("prompt", ["static", "conditional"])
def test_a_prompt_stands_first_and_the_pieces_keep_their_places(source: str, prompt: Any) -> None:
    encoder = build(source, prompt=prompt, prompt_length=K)
    family = encoder.encoder.config.model_type
    seen = read(encoder, batch())
    assert seen["inputs_embeds"].shape[:2] == (2, K + 5)
    words = encoder.word_embeddings(batch().ids)
    assert torch.equal(seen["inputs_embeds"][:, K:], words)
    assert seen["attention_mask"].tolist() == [[1] * 7, [1] * 5 + [0] * 2]
    if family == "distilbert":
        assert "position_ids" not in seen
    else:
        first = 2 if family in ("roberta", "mpnet") else 0
        expected = torch.tensor([[5, 6, 0, 1, 2, 3, 4], [3, 4, 0, 1, 2, 3, 4]]) + first
        assert torch.equal(seen["position_ids"], expected)
    if family in ("bert", "electra"):
        assert seen["token_type_ids"].tolist() == [[0, 0, 0, 0, 0, 1, 1], [0] * 7]
    else:
        assert "token_type_ids" not in seen


def test_conditional_prompts_are_computed_from_the_text_alone(bert_source: str) -> None:
    encoder = build(bert_source, prompt="conditional", prompt_length=K, knowledge_tags=True)
    assert encoder.tags is not None
    torch.nn.init.normal_(encoder.tags.weight)
    pieces = batch(tags=True)

    def prompts(pieces: PieceBatch) -> torch.Tensor:
        return read(encoder, pieces)["inputs_embeds"][:, :K]

    expected = prompts(pieces)
    segment = pieces.ids.clone()
    segment[0, 3:] = 40
    segment[1, 3:] = 41
    assert torch.equal(prompts(pieces._replace(ids=segment)), expected)
    assert torch.equal(prompts(pieces._replace(tags=None)), expected)
    text = pieces.ids.clone()
    text[0, 1] = 42
    changed = (prompts(pieces._replace(ids=text)) != expected).flatten(1).any(1)
    assert changed.tolist() == [True, False]


def test_tags_are_added_to_their_pieces(bert_source: str) -> None:
    encoder = build(bert_source, knowledge_tags=True)
    assert encoder.tags is not None
    assert not encoder.tags.weight.any()
    torch.nn.init.normal_(encoder.tags.weight[1:])
    tagged = read(encoder, batch(tags=True))["inputs_embeds"]
    added = tagged - read(encoder, batch())["inputs_embeds"]
    expected = encoder.tags.weight[torch.tensor(TAGS)].sum(-2)
    torch.testing.assert_close(added, expected, atol=1e-6, rtol=0)


def test_letter_case_is_added_where_the_tokenizer_ignores_it(source: str) -> None:
    encoder = build(source)
    if not encoder.pieces.ignores_case:
        assert encoder.cases is None
        return
    assert encoder.cases is not None
    assert not encoder.cases.weight.any()
    before = read(encoder, batch())["inputs_embeds"]
    torch.nn.init.normal_(encoder.cases.weight[1:])
    added = read(encoder, batch())["inputs_embeds"] - before
    expected = encoder.cases.weight[batch().cases]
    torch.testing.assert_close(added, expected, atol=1e-6, rtol=0)


def test_training_hides_the_case_of_some_windows(bert_source: str) -> None:
    encoder = build(bert_source).train()
    cases = torch.tensor([[0, 4, 1, 6, 0, 2]]).expand(1000, -1)
    hidden = encoder._hide_cases(cases)
    small = torch.tensor([0, 1, 1, 1, 0, 1])
    rows = (hidden == small).all(dim=1)
    assert torch.equal(hidden[~rows], cases[~rows])
    assert 100 < int(rows.sum()) < 200
    assert torch.equal(encoder.eval()._hide_cases(cases), cases)


@pytest.mark.parametrize("regression", [True, False])
def test_what_comes_back(bert_source: str, regression: bool) -> None:
    for prompt, k in (("none", 0), ("static", K), ("conditional", K)):
        encoder = build(
            bert_source, prompt=prompt, prompt_length=K, prompt_regression=float(regression)
        )
        states, prompts, *_ = encoder(batch())
        assert states.shape == (2, 5, encoder.width)
        assert encoder.prompt_length == k
        if regression and k:
            assert prompts is not None
            assert prompts.shape == (2, K, encoder.width)
        else:
            assert prompts is None


def test_padding_changes_nothing(bert_source: str) -> None:
    encoder = build(bert_source, prompt="conditional", prompt_length=K, prompt_regression=1.0)
    states, prompts, *_ = encoder(batch())
    short = PieceBatch(*(None if t is None else t[1:, :3] for t in batch()))  # type: ignore
    alone, prompt, *_ = encoder(short)
    torch.testing.assert_close(alone[0], states[1, :3], rtol=0, atol=1e-5)
    torch.testing.assert_close(prompt[0], prompts[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("padding", [0, 1, 5])
def test_positions_are_the_familys_own_wherever_padding_lies(
    tiny_source: Callable[[str], str], padding: int
) -> None:
    """RoBERTa-like encoders count positions from behind the padding id."""
    source = tiny_source("roberta")
    config = AutoConfig.from_pretrained(source, pad_token_id=padding)
    encoder = AutoModel.from_config(config).eval()
    prompted = PromptedEncoder(
        encoder, AutoTokenizer.from_pretrained(source), EncoderSettings()
    ).eval()
    pieces = PieceBatch(*(None if t is None else t[:1] for t in batch()))  # type: ignore
    with torch.no_grad():
        expected = encoder(inputs_embeds=prompted.word_embeddings(pieces.ids)).last_hidden_state
        torch.testing.assert_close(prompted(pieces)[0], expected)
    assert prompted.max_pieces == 514 - (padding + 1)


def test_room_beside_the_prompt(source: str) -> None:
    assert build(source, prompt="none").max_pieces == 512
    assert build(source, prompt="static", prompt_length=K).max_pieces == 512 - K


def test_dropout_stands_at_the_embeddings_alone(bert_source: str) -> None:
    encoder = build(bert_source, embedding_dropout=0.25)
    rates = {n: m.p for n, m in encoder.named_modules() if isinstance(m, torch.nn.Dropout)}
    assert {p for n, p in rates.items() if "embeddings" in n} == {0.25}
    assert {p for n, p in rates.items() if "embeddings" not in n} <= {0.0}
    calm = encoder(batch())[0]
    assert torch.equal(calm, encoder(batch())[0])
    encoder.train()
    assert not torch.equal(encoder(batch())[0], encoder(batch())[0])


# Layers without padding ---------------------------------------------------------------------

PACKABLE = ("bert", "roberta", "electra")
# Not in order of length, two of one length, and one of a single piece.
UNEVEN = (4, 9, 1, 4, 6)


def uneven_batch() -> PieceBatch:
    generator = torch.Generator().manual_seed(1)
    longest = max(UNEVEN)
    ids = torch.randint(5, 100, (len(UNEVEN), longest), generator=generator)
    mask = (torch.arange(longest) < torch.tensor(UNEVEN).unsqueeze(1)).long()
    none = torch.zeros_like(ids)
    return PieceBatch(ids=ids, mask=mask, types=none, text=mask, cases=none, tags=None)


@pytest.mark.parametrize("family", PACKABLE)
def test_states_are_those_of_the_encoder(tiny_source: Callable[[str], str], family: str) -> None:
    _, encoder = load_pretrained(tiny_source(family))
    pieces = uneven_batch()
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
    module = build(
        tiny_source(family), prompt=prompt, prompt_length=2, embedding_dropout=0.0
    ).train()
    pieces = uneven_batch()
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
    module = build(bert_source, embedding_dropout=0.0)
    for layer in module.encoder.encoder.layer:
        layer.attention.self.dropout.p = 0.5
    pieces = uneven_batch()
    with torch.no_grad():
        module.train()
        assert not torch.allclose(module(pieces).states, module(pieces).states)
        module.eval()
        assert torch.equal(module(pieces).states, module(pieces).states)


def test_a_window_does_not_depend_on_its_batch(bert_source: str) -> None:
    module = build(bert_source)
    pieces = uneven_batch()
    with torch.no_grad():
        together = module(pieces).states
        for i, length in enumerate(UNEVEN):
            alone = PieceBatch(*(None if t is None else t[i : i + 1, :length] for t in pieces))
            assert torch.allclose(module(alone).states[0], together[i, :length], atol=1e-5)


def test_other_families_keep_their_own_way(source: str) -> None:
    module = build(source)
    family = module.encoder.config.model_type
    assert can_pack(module.encoder) == module.packs == (family in PACKABLE)

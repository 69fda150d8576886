"""An encoder cut to its first layers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy
import pytest
import spacy
import torch
from tiny import module_of, pipeline
from transformers import AlbertConfig, AlbertModel, AutoModel

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model.sources import keep_layers

TEXT = "Anna Berg sings in Oslo tonight."


def test_the_first_layers_are_the_pretrained_ones(source: str) -> None:
    ids = torch.tensor([[7, 11, 5, 13]])
    whole, cut = (AutoModel.from_pretrained(source).eval() for _ in range(2))
    keep_layers(cut, 1)
    assert cut.config.num_hidden_layers == 1
    with torch.no_grad():
        states = whole(ids, output_hidden_states=True).hidden_states
        assert torch.equal(cut(ids).last_hidden_state, states[1])
    assert not torch.allclose(states[1], states[2], atol=1e-3)


def test_none_keeps_all(bert_source: str) -> None:
    encoder = AutoModel.from_pretrained(bert_source)
    weights = len(encoder.state_dict())
    keep_layers(encoder, None)
    keep_layers(encoder, 2)
    assert len(encoder.state_dict()) == weights and encoder.config.num_hidden_layers == 2


def test_a_cut_pipeline_survives_the_disk(source: str, tmp_path: Path) -> None:
    nlp = pipeline(source, layers=1)
    before = nlp(TEXT)._.trf_data.model_output.last_hidden_state
    nlp.to_disk(tmp_path / "cut")
    loaded = spacy.load(tmp_path / "cut")
    assert module_of(loaded).encoder.config.num_hidden_layers == 1
    after = loaded(TEXT)._.trf_data.model_output.last_hidden_state
    numpy.testing.assert_array_equal(before, after)
    whole = pipeline(source)(TEXT)._.trf_data.model_output.last_hidden_state
    assert abs(whole - before).max() > 1e-3
    assert len(nlp.to_bytes()) < len(pipeline(source).to_bytes())


@pytest.mark.parametrize("layers", [0, -1, 3])
def test_layers_that_the_encoder_does_not_have(bert_source: str, layers: int) -> None:
    with pytest.raises(MMCoTError, match=re.escape("[E409] layers of spacy_mmcot")) as error:
        pipeline(bert_source, layers=layers)
    assert f"is {layers}. Allowed: 1 to 2" in str(error.value)


def test_a_family_whose_layers_share_weights() -> None:
    config = AlbertConfig(
        vocab_size=20,
        embedding_size=8,
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=3,
    )
    with pytest.raises(MMCoTError, match=r"\[E411\].*'albert'"):
        keep_layers(AlbertModel(config), 2)

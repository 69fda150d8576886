"""Loading draws no random numbers, and nothing that it leaves out is missed."""

from __future__ import annotations

import pytest
import spacy
import torch
from tiny import module_of, pipeline
from torch import nn

from spacy_mmcot.model.bridge import WithoutRandomInit


def test_random_numbers_are_left_out_and_constants_are_set() -> None:
    before = torch.random.get_rng_state()
    with WithoutRandomInit():
        layer = nn.Linear(3, 4)
        nn.init.xavier_uniform_(tensor=layer.weight)
        layer.weight.data.normal_(mean=0.0, std=1.0)
        norm = nn.LayerNorm(5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(norm.weight, torch.ones(5))
    nn.Linear(3, 4)
    assert not torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("before", [0.0, 9.0, float("inf")])
def test_a_truncated_normal_comes_to_an_end(before: float) -> None:
    with WithoutRandomInit():
        filled = nn.init.trunc_normal_(torch.full((2, 3), before), std=0.02)
    assert torch.equal(filled, torch.zeros(2, 3))


def test_a_loaded_pipeline_has_every_weight_and_moves_no_seed(source: str) -> None:
    nlp = pipeline(source, prompt="conditional", knowledge_tags=True)
    saved = nlp.to_bytes()
    before = torch.random.get_rng_state()
    loaded = spacy.blank("en")
    loaded.add_pipe(
        "transformer",
        config={
            "model": {
                "@architectures": "spacy_mmcot.PromptedTransformer.v1",
                "source": source,
                "prompt": "conditional",
                "knowledge_tags": True,
            }
        },
    )
    loaded.from_bytes(saved)
    assert torch.equal(torch.random.get_rng_state(), before)
    weights, again = module_of(nlp).state_dict(), module_of(loaded).state_dict()
    assert weights.keys() == again.keys()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    # Beside weights: what a module computes from buffers that no file holds.
    text = "Anna Berg sings in Oslo tonight"
    first, second = nlp(text)._.trf_data, loaded(text)._.trf_data
    assert (first.model_output.last_hidden_state == second.model_output.last_hidden_state).all()

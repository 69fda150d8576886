"""Loading a saved module draws no random numbers and restores every weight."""

from __future__ import annotations

import spacy
import torch
from tiny import module_of, pipeline


def test_a_loaded_pipeline_has_every_weight_and_moves_no_seed(bert_source: str) -> None:
    nlp = pipeline(bert_source, prompt="conditional", knowledge_tags=True)
    saved = nlp.to_bytes()
    before = torch.random.get_rng_state()
    loaded = spacy.blank("en")
    loaded.add_pipe(
        "transformer",
        config={
            "model": {
                "@architectures": "spacy_mmcot.PromptedTransformer.v1",
                "source": bert_source,
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

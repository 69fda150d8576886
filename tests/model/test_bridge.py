"""Loading a saved module draws no random numbers and restores every weight."""

from __future__ import annotations

import spacy
import torch
import toy
from thinc.api import Adam
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


def test_averaged_weights_reach_torch(bert_source: str) -> None:
    """As `spacy train` saves a pipeline with `use_averages = true`."""
    nlp = toy.transformer_pipeline(bert_source)
    nlp.initialize(lambda: toy.examples(nlp))
    optimizer = Adam(0.01, use_averages=True)
    for _ in range(3):
        nlp.update(toy.examples(nlp)[:4], sgd=optimizer)
    last = {name: weights.clone() for name, weights in module_of(nlp).named_parameters()}
    with nlp.use_params(optimizer.averages):
        averaged = {name: weights.clone() for name, weights in module_of(nlp).named_parameters()}
    assert all(torch.equal(weights, last[k]) for k, weights in module_of(nlp).named_parameters())
    expected = {key[1]: weights for key, weights in optimizer.averages.items()}
    changed = [name for name in last if not torch.equal(averaged[name], last[name])]
    assert [name for name in changed if name.endswith("layer.0.output.dense.weight")]
    for name in changed:
        assert (averaged[name].numpy(force=True) == expected[name]).all()

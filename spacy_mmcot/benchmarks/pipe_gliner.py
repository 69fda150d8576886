"""A GLiNER of its small size as a contender. Its weights are random, which costs the same time."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..model.prompted_encoder import PromptedEncoder
from .turns import Contender

# DeBERTa-v3-small and what GLiNER small puts on it.
ENCODER: dict[str, Any] = {
    "model_type": "deberta-v2",
    "vocab_size": 128_100,
    "hidden_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "relative_attention": True,
    "position_buckets": 256,
    "max_relative_positions": -1,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
}
SPANS: dict[str, Any] = {"span_mode": "markerV0", "max_width": 12, "hidden_size": 512}
# Random weights find spans everywhere at the usual 0.5, and sorting those out is no part of a
# trained model's time.
THRESHOLD = 0.99


def has_gliner() -> bool:
    return importlib.util.find_spec("gliner") is not None


def gliner(
    module: PromptedEncoder, labels: Sequence[str], batches: Sequence[list[str]], size: int
) -> Contender:
    """Finds entities of the labels in batches of texts, `size` of them at once. The texts are cut
    into word pieces as `module` does: the real vocabulary is not at hand, and is of that kind."""
    from gliner import GLiNER

    with tempfile.TemporaryDirectory() as folder:
        module.pieces.tokenizer.save_pretrained(folder)
        names = {"model_name": str(Path(folder)), "name": "small"}
        settings = {**names, **SPANS, "encoder_config": dict(ENCODER)}
        model = GLiNER.from_config(settings, backbone_from_pretrained=False)
    # It warns of each text that is longer than its windows.
    logging.getLogger("gliner").setLevel(logging.ERROR)

    def run(number: int) -> None:
        model.inference(batches[number], list(labels), threshold=THRESHOLD, batch_size=size)

    return run

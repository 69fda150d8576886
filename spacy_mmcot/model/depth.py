"""A shallower encoder out of a deep one: its first layers, pretrained weights and all."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import Errors, MMCoTError


def keep_layers(encoder: Any, layers: int | None) -> None:
    """Cut a Hugging Face encoder down to its first `layers` layers, in place; None keeps all. Its
    config says so afterwards, so that `build_from_config` makes the same encoder.

    Raises MMCoTError for a number that the encoder does not have, and for a family whose layers
    do not stand in one list of modules (ALBERT, whose layers share their weights).
    """
    if layers is None:
        return
    depth = encoder.config.num_hidden_layers
    if not 1 <= layers <= depth:
        raise MMCoTError(
            Errors.E409.format(
                name="layers of spacy_mmcot.PromptedTransformer.v1",
                received=layers,
                allowed=f"1 to {depth}, the layers of the encoder, or null for all",
            )
        )
    stacks = [m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if len(stacks) != 1:
        raise MMCoTError(Errors.E411.format(family=encoder.config.model_type))
    del stacks[0][layers:]
    encoder.config.num_hidden_layers = layers
    # Families that alternate kinds of attention list the kind of every layer.
    if getattr(encoder.config, "layer_types", None):
        encoder.config.layer_types = encoder.config.layer_types[:layers]

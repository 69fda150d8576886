"""Encoders of BERT's build, run over the real word pieces of a batch and none of its padding.

Nearly all of an encoder's time goes into linear layers, which look at each piece by itself, so that
a padded piece costs what a real one does. Only attention knows of windows: it runs once for each
length, over all windows of that length, and needs no mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.activations import GELUActivation

# Model types whose layers are BERT's, part by part: attention over the layer's input, and norms
# behind each part.
FAMILIES = frozenset({"bert", "camembert", "electra", "roberta", "xlm-roberta"})

# What runs an encoder's layers: takes states (pieces, width), the windows in order of length and
# without padding, and the lengths (windows,), ascending; returns the last layer's states.
Layers = Callable[[Tensor, Tensor], Tensor]


class Run(NamedTuple):
    """Windows of one length that stand one behind the other among the packed pieces."""

    start: int
    end: int  # exclusive, in pieces
    length: int  # of each window


def can_pack(encoder: Any) -> bool:
    """Whether `packed_states` can run the encoder."""
    config = encoder.config
    return (
        config.model_type in FAMILIES
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and not getattr(config, "is_decoder", False)
    )


def packed_states(
    encoder: Any,
    layers: Layers | None,
    *,
    inputs_embeds: Tensor,
    attention_mask: Tensor,
    position_ids: Tensor | None = None,
    token_type_ids: Tensor | None = None,
) -> Tensor:
    """The last layer's states, (windows, pieces, width), 0 where the mask is: what the encoder
    itself returns for the same arguments, up to rounding. The mask is (windows, pieces), each
    window has at least one real piece. layers: what runs in place of the encoder's own."""
    embedded = _embed(encoder, inputs_embeds, position_ids, token_type_ids)
    lengths = attention_mask.sum(1)
    order = torch.argsort(lengths)
    windows, pieces = attention_mask[order].nonzero(as_tuple=True)
    # Where each packed piece stands among all, padded ones included.
    places = order[windows] * attention_mask.shape[1] + pieces
    packed, lengths = embedded.flatten(0, 1)[places], lengths[order]
    packed = layers(packed, lengths) if layers else _own_layers(encoder, packed, lengths)
    states = embedded.new_zeros(attention_mask.numel(), packed.shape[-1])
    return states.index_copy(0, places, packed).unflatten(0, attention_mask.shape)


def _embed(
    encoder: Any, inputs_embeds: Tensor, position_ids: Tensor | None, token_type_ids: Tensor | None
) -> Tensor:
    """The first layer's input, (windows, pieces, width)."""
    embedded = encoder.embeddings(
        inputs_embeds=inputs_embeds, position_ids=position_ids, token_type_ids=token_type_ids
    )
    project = getattr(encoder, "embeddings_project", None)  # ELECTRA's narrow embeddings
    return embedded if project is None else project(embedded)


def _own_layers(encoder: Any, packed: Tensor, lengths: Tensor) -> Tensor:
    runs = _runs(lengths)
    for layer in encoder.encoder.layer:
        packed = _layer(layer, packed, runs)
    return packed


def _runs(lengths: Tensor) -> list[Run]:
    """lengths: (windows,), ascending."""
    runs = []
    start = 0
    values, counts = torch.unique_consecutive(lengths, return_counts=True)
    for length, count in zip(values.tolist(), counts.tolist(), strict=True):
        runs.append(Run(start, start + length * count, length))
        start += length * count
    return runs


def _layer(layer: Any, packed: Tensor, runs: Sequence[Run]) -> Tensor:
    attention = layer.attention.self
    projections = [part(packed) for part in (attention.query, attention.key, attention.value)]
    heads = attention.num_attention_heads
    dropout = attention.dropout.p if attention.training else 0.0
    mixed = []
    for start, end, length in runs:
        shape = (-1, length, heads, packed.shape[1] // heads)
        query, key, value = (p[start:end].view(shape).transpose(1, 2) for p in projections)
        context = scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        mixed.append(context.transpose(1, 2).reshape(end - start, -1))
    attended = layer.attention.output(torch.cat(mixed), packed)
    return layer.output(_widen(layer.intermediate, attended), attended)


def _widen(intermediate: Any, states: Tensor) -> Tensor:
    """The layer's largest array, (pieces, intermediate width). Where nothing is to be learned it is
    activated in place: a second one of its size would be new memory each time."""
    wide = intermediate.dense(states)
    activate = intermediate.intermediate_act_fn
    if isinstance(activate, GELUActivation) and not wide.requires_grad:
        return torch.ops.aten.gelu_(wide)
    return activate(wide)

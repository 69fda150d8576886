"""The torch module that scores BIO tags for tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .crf import ILLEGAL, legal_steps


class TagHead(nn.Module):
    """Emission scores by one linear layer, and a transition matrix that bars illegal steps.

    With `learn_transitions` the head is a conditional random field, without it a softmax per
    token whose decoding keeps to legal sequences all the same.
    """

    legal: Tensor

    def __init__(self, width: int, tags: Sequence[str], *, dropout: float, learn_transitions: bool):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, len(tags))
        n = len(tags) + 1
        self.steps = nn.Parameter(torch.zeros(n, n), requires_grad=learn_transitions)
        self.register_buffer("legal", legal_steps(tags), persistent=False)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """states: (tokens, width) of all Docs of a batch, one after the other. Returns emissions
        (tokens, tags) and transitions (tags + 1, tags + 1) as spacy_mmcot.model.crf reads them."""
        return self.linear(self.dropout(states)), self.steps.masked_fill(~self.legal, ILLEGAL)

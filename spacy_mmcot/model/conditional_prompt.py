"""Prompt vectors that stand before the word pieces, where a teacher has its knowledge.

Source of the method: conditional prompt distillation, arXiv 2306.14122.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConditionalPrompt(nn.Module):
    """`length` prompt vectors computed from the text's own word embeddings.

    The text's mean embedding goes through a bottleneck of `hidden` units.
    """

    def __init__(self, width: int, length: int, hidden: int):
        super().__init__()
        self.length = length
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, length * width)
        nn.init.normal_(self.up.weight, std=0.02)
        nn.init.normal_(self.up.bias, std=0.02)

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """embeddings: (batch, pieces, width), the text's word embeddings; mask: (batch, pieces),
        1 at the text's pieces. Returns (batch, length, width)."""
        weights = mask.unsqueeze(-1).to(embeddings.dtype)
        mean = (embeddings * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        prompt = self.up(torch.tanh(self.down(mean)))
        return prompt.view(len(embeddings), self.length, -1)


class StaticPrompt(nn.Module):
    """`length` learned vectors, the same for every text: the control for ConditionalPrompt."""

    def __init__(self, width: int, length: int):
        super().__init__()
        self.length = length
        self.vectors = nn.Parameter(torch.randn(length, width) * 0.02)

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Shapes as in ConditionalPrompt."""
        return self.vectors.expand(len(embeddings), -1, -1)

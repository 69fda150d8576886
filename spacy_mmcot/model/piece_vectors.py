"""The torch module that gives tokens vectors from an encoder's word embeddings, without the
encoder: what it was pretrained to know of single words, at the price of a look-up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .wordpieces import WordPieceTokenizer


class PieceVectors(nn.Module):
    """A token is the mean of its word pieces' rows in a frozen table, through one linear layer.

    No token is unknown: a word that was never seen still has pieces.
    """

    table: Tensor

    def __init__(self, tokenizer: Any, pieces: int, table_width: int, width: int):
        super().__init__()
        self.pieces = WordPieceTokenizer(tokenizer)
        # Half the precision, half the file: the rows are an input, nothing adds up in them.
        self.register_buffer("table", torch.zeros(pieces, table_width, dtype=torch.float16))
        self.linear = nn.Linear(table_width, width)

    @property
    def width(self) -> int:
        return self.linear.out_features

    def forward(self, ids: Tensor, counts: Tensor) -> Tensor:
        """ids: (pieces,), the pieces of all tokens one after the other. counts: (tokens,), how
        many of them are each token's, at least 1. Returns (tokens, width)."""
        owner = torch.repeat_interleave(counts)
        rows = self.table.index_select(0, ids).float()
        sums = rows.new_zeros(len(counts), rows.shape[1]).index_add(0, owner, rows)
        return self.linear(sums / counts.unsqueeze(1))


def principal_rows(table: Tensor, width: int) -> Tensor:
    """The rows of a table, (rows, columns), on its first `width` principal components, at a
    variance of 1 on the mean; (rows, width). At most as many as there are columns."""
    centred = table - table.mean(0)
    _, components = torch.linalg.eigh(centred.T @ centred)
    rows = centred @ components.flip(1)[:, :width]
    return rows / rows.std()

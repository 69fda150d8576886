"""The torch module that gives tokens vectors from an encoder's word embeddings, without the
encoder: what it was pretrained to know of single words, at the price of a look-up.

PieceVectors as a thinc model from Docs to token vectors.

Matrix products by numpy instead of by the BLIS that thinc brings along.

A CNN spends nearly all its time in them, and on processors that BLIS has no kernel for it falls
back to a general one: numpy's own library was three times as fast where this was measured
(research/LADDER.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from spacy.language import Language
from spacy.tokens import Doc
from thinc.api import Model, NumpyOps, Ops, torch2xp, xp2torch
from thinc.types import Floats2d, Ragged
from torch import Tensor, nn

from .bridge import Settings, TorchShim, torch_shim
from .sources import load_pretrained, tokenizer_files, tokenizer_of
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


# An overlong token, such as a URL, says no more after so many pieces.
MAX_PIECES = 16


def piece_vectors(source: str, *, table_width: int, width: int) -> Model[list[Doc], Ragged]:
    """One vector a token, (tokens, width) and the Docs' lengths. It holds no table until
    `initialize` reads `source`, or `from_bytes` rebuilds what was saved."""
    return Model(
        "piece_vectors",
        _forward,
        init=_init,
        dims={"nO": width},
        shims=[TorchShim(_build)],
        attrs={"source": source, "table_width": table_width},
    )


def _build(settings: Settings) -> PieceVectors:
    tokenizer = tokenizer_of(settings["tokenizer"])
    return PieceVectors(tokenizer, settings["pieces"], settings["table_width"], settings["width"])


def _init(model: Model, X: Any = None, Y: Any = None) -> None:
    shim = torch_shim(model)
    if shim.module is not None:
        return
    tokenizer, encoder = load_pretrained(model.attrs["source"])
    table = encoder.get_input_embeddings().weight.detach()
    rows = principal_rows(table, model.attrs["table_width"])
    settings: Settings = {
        "tokenizer": tokenizer_files(tokenizer),
        "pieces": rows.shape[0],
        "table_width": rows.shape[1],
        "width": model.get_dim("nO"),
    }
    module = PieceVectors(tokenizer, rows.shape[0], rows.shape[1], settings["width"])
    module.table.copy_(rows)
    shim.set_module(module, settings)


def _forward(
    model: Model, docs: Sequence[Doc], is_train: bool
) -> tuple[Ragged, Callable[[Ragged], list[Doc]]]:
    shim = torch_shim(model)
    module: PieceVectors = shim.module
    words = [word for doc in docs for word in module.pieces.pieces(doc, MAX_PIECES)]
    ids = torch.tensor(list(itertools.chain.from_iterable(words)), dtype=torch.long)
    counts = torch.tensor([len(word) for word in words], dtype=torch.long)
    with torch.set_grad_enabled(is_train):
        vectors = module(ids.to(shim.device), counts.to(shim.device))
    lengths = model.ops.asarray1i([len(doc) for doc in docs])

    def backprop(gradient: Ragged) -> list[Doc]:
        vectors.backward(xp2torch(gradient.data))
        return []

    return Ragged(torch2xp(vectors.detach()), lengths), backprop


class NumpyProducts(NumpyOps):
    """NumpyOps in all but how matrices are multiplied."""

    def gemm(
        self,
        x: Floats2d,
        y: Floats2d,
        out: Floats2d | None = None,
        trans1: bool = False,
        trans2: bool = False,
    ) -> Floats2d:
        return Ops.gemm(self, x, y, out=out, trans1=trans1, trans2=trans2)


def numpy_products() -> Callable[[Language], Language]:
    """`spacy_mmcot.NumpyProducts.v1`: a callback for `[nlp.after_pipeline_creation]`, so that it
    holds in training and for every pipeline that is loaded. Layers on a GPU or on another CPU
    backend, such as Apple's, stay as they are."""

    def change(nlp: Language) -> Language:
        ops = NumpyProducts()
        for _, pipe in nlp.pipeline:
            for node in pipe.model.walk() if hasattr(pipe, "model") else ():
                if type(node.ops) is NumpyOps:
                    node.ops = ops
        return nlp

    return change

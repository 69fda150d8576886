"""PieceVectors as a thinc model from Docs to token vectors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from spacy.tokens import Doc
from thinc.api import Model, torch2xp, xp2torch
from thinc.types import Ragged

from .bridge import Settings, TorchShim, torch_shim
from .encoder import load_pretrained
from .piece_vectors import PieceVectors, principal_rows
from .tokenizer_files import tokenizer_files, tokenizer_of

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

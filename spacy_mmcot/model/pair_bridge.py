"""PairHead as a thinc model over a batch of Docs and the pairs of mentions to score in each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy
import torch
from numpy.typing import NDArray
from spacy.tokens import Doc
from thinc.api import Model, torch2xp, xp2torch
from thinc.types import Floats2d
from torch import Tensor

from .bridge import Settings, TorchShim, torch_shim
from .pair_classifier import PairHead, PairIndex


# Pairs that are scored at once outside training: what bounds the memory of very many mentions.
CHUNK = 8192


class DocPairs(NamedTuple):
    """A Doc, its mentions as (start token, end token, label), end exclusive, and the pairs to
    score: an int array (pairs, 2) of head and tail, indexes into the mentions."""

    doc: Doc
    mentions: Sequence[tuple[int, int, str]]
    pairs: NDArray[numpy.int64]


def pair_model(
    tok2vec: Model[list[Doc], list[Floats2d]],
    *,
    knowledge: Model[list[Doc], Floats2d] | None = None,
    settings: Settings,
) -> Model[list[DocPairs], list[Floats2d]]:
    """Logits, one (pairs, labels) array a Doc. `set_schema` must be called before `initialize`."""
    layers: list[Model] = [tok2vec] if knowledge is None else [tok2vec, knowledge]
    return Model(
        "pair_classifier",
        _forward,
        init=_init,
        dims={"nI": None, "nO": None},
        layers=layers,
        shims=[TorchShim(_build)],
        attrs={"settings": settings},
    )


def set_schema(model: Model, labels: Sequence[str], types: Sequence[str]) -> None:
    """Tell a pair classifier what `initialize` will build it for: the relation labels, that of no
    relation first, and the mention types."""
    model.attrs["types"] = {name: i + 1 for i, name in enumerate(types)}
    model.set_dim("nO", len(labels), force=True)


def _build(settings: Settings) -> PairHead:
    return PairHead(**settings)


def _init(model: Model, X: Any = None, Y: Any = None) -> None:
    docs = [entry.doc for entry in X]
    for layer in model.layers:
        layer.initialize(X=docs)
    width = model.layers[0].predict(docs)[0].shape[1]
    settings = {
        **model.attrs["settings"],
        "width": width,
        "n_types": len(model.attrs["types"]),
        "n_labels": model.get_dim("nO"),
        "knowledge_width": model.layers[1].get_dim("nO") if len(model.layers) > 1 else 0,
    }
    # Made anew every time: a second initialisation starts from scratch, with its own schema.
    torch_shim(model).set_module(_build(settings), settings)
    model.set_dim("nI", width, force=True)


def _forward(
    model: Model, X: list[DocPairs], is_train: bool
) -> tuple[list[Floats2d], Callable[[list[Floats2d]], list[Doc]]]:
    module: PairHead = torch_shim(model).module
    docs = [entry.doc for entry in X]
    arrays, backprop_states = model.layers[0](docs, is_train)
    # Zero-length Docs come without a width.
    empty = model.ops.alloc2f(0, model.get_dim("nI"))
    filled = [array for array in arrays if len(array)]
    states = xp2torch(model.ops.xp.concatenate([empty, *filled]), requires_grad=is_train)
    known: Tensor | None = None
    backprop_known: Callable | None = None
    if len(model.layers) > 1:
        vectors, backprop_known = model.layers[1](docs, is_train)
        known = xp2torch(vectors, requires_grad=is_train)
    lengths = [len(array) for array in arrays]
    index = _index(X, lengths, model.attrs["types"], states.device)
    module.train(is_train)
    with torch.set_grad_enabled(is_train):
        parts = (index.pairs,) if is_train else torch.split(index.pairs, CHUNK)
        logits = torch.cat([module(states, index._replace(pairs=p), known) for p in parts])
    counts = [len(entry.pairs) for entry in X]

    def backprop(d_logits: list[Floats2d]) -> list[Doc]:
        # A batch without a pair must go back too: the encoder waits for all of its listeners.
        torch.autograd.backward(logits, xp2torch(model.ops.xp.concatenate(d_logits)))
        gradient = states.grad if states.grad is not None else torch.zeros_like(states)
        backprop_states(_split(torch2xp(gradient), lengths))
        if known is not None and backprop_known is not None and known.grad is not None:
            backprop_known(torch2xp(known.grad))
        return docs

    return _split(cast(Any, torch2xp(logits.detach())), counts), backprop


def _index(
    X: list[DocPairs], lengths: list[int], types: dict[str, int], device: torch.device
) -> PairIndex:
    starts = numpy.concatenate([[0], numpy.cumsum(lengths)]).astype("int64")
    mentions: list[tuple[int, int]] = []
    type_ids: list[int] = []
    doc_of: list[int] = []
    pairs = [numpy.zeros((0, 2), dtype="int64")]
    for i, entry in enumerate(X):
        pairs.append(entry.pairs + len(mentions))
        for start, end, label in entry.mentions:
            mentions.append((int(starts[i]) + start, int(starts[i]) + end))
            type_ids.append(types.get(label, 0))
            doc_of.append(i)
    bounds = numpy.stack([starts[:-1], starts[1:]], axis=1)
    arrays = (
        bounds,
        numpy.array(mentions, dtype="int64").reshape(-1, 2),
        numpy.array(type_ids, dtype="int64"),
        numpy.array(doc_of, dtype="int64"),
        numpy.concatenate(pairs),
    )
    return PairIndex(*(torch.from_numpy(array).to(device) for array in arrays))


def _split(flat: Any, counts: list[int]) -> list[Any]:
    ends: NDArray = numpy.cumsum(counts)
    return [flat[end - count : end] for end, count in zip(ends.tolist(), counts, strict=True)]

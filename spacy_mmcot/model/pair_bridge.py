"""PairHead as a thinc model over a batch of Docs and the pairs of mentions to score in each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy
import torch
from spacy.tokens import Doc
from thinc.api import Model, torch2xp, xp2torch
from thinc.types import Floats2d
from torch import Tensor

from .bridge import Settings, TorchShim, set_mode, split_by_counts, torch_shim
from .doc_pairs import DocPairs
from .knowledge_docs import knowledge_doc
from .pair_classifier import PairHead, PairIndex

# Pairs that are scored at once outside training: what bounds the memory of very many mentions.
CHUNK = 8192


def pair_model(
    tok2vec: Model[list[Doc], list[Floats2d]],
    *,
    knowledge: Model[list[Doc], list[Floats2d]] | None = None,
    settings: Settings,
) -> Model[list[DocPairs], list[Floats2d]]:
    """Logits, one (pairs, labels) array a Doc. `set_schema` must be called before `initialize`.

    knowledge: token vectors of the knowledge texts, for a teacher.
    """
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
    widths = [layer.predict(docs)[0].shape[1] for layer in model.layers]
    settings = {
        **model.attrs["settings"],
        "width": widths[0],
        "n_types": len(model.attrs["types"]),
        "n_labels": model.get_dim("nO"),
        "knowledge_width": widths[1] if len(widths) > 1 else 0,
    }
    # Made anew every time: a second initialisation starts from scratch, with its own schema.
    torch_shim(model).set_module(_build(settings), settings)
    model.set_dim("nI", widths[0], force=True)


def _forward(
    model: Model, X: list[DocPairs], is_train: bool
) -> tuple[list[Floats2d], Callable[[list[Floats2d]], list[Doc]]]:
    module: PairHead = torch_shim(model).module
    texts = _Texts(model, 0, X, module.width, is_train)
    known = None
    if module.knowledge is not None:
        entries = [knowledge_doc(entry) for entry in X]
        known = _Texts(model, 1, entries, module.knowledge.width, is_train)
    set_mode(module, is_train)
    pairs = texts.index.pairs
    parts = (pairs,) if is_train else torch.split(pairs, CHUNK)
    with torch.set_grad_enabled(is_train):
        logits = torch.cat(
            [module(*texts.of_pairs(part), known and known.of_pairs(part)) for part in parts]
        )
    counts = [len(entry.pairs) for entry in X]

    def backprop(d_logits: list[Floats2d]) -> list[Doc]:
        # A batch without a pair must go back too: the encoder waits for all of its listeners.
        torch.autograd.backward(logits, xp2torch(model.ops.xp.concatenate(d_logits)))
        texts.backprop()
        if known is not None:
            known.backprop()
        return [entry.doc for entry in X]

    return split_by_counts(cast(Any, torch2xp(logits.detach())), counts), backprop


class _Texts:
    """The states of a batch of Docs from one of the model's layers, and the pairs in them."""

    def __init__(self, model: Model, layer: int, X: Sequence[DocPairs], width: int, is_train: bool):
        # A listener must be asked about every Doc; an encoder has nothing to say about knowledge
        # that is missing.
        docs = [entry.doc for entry in X if layer == 0 or len(entry.doc)]
        self.lengths = [len(doc) for doc in docs]
        self._back: Callable[[list[Any]], Any] | None = None
        arrays: list[Any] = []
        if docs:
            arrays, self._back = model.layers[layer](docs, is_train)
        # Zero-length Docs come without a width.
        empty = model.ops.alloc2f(0, width)
        flat = model.ops.xp.concatenate([empty, *(array for array in arrays if len(array))])
        self.states = xp2torch(flat, requires_grad=is_train)
        lengths = [len(entry.doc) for entry in X]
        self.index = _index(X, lengths, model.attrs["types"], self.states.device)

    def of_pairs(self, pairs: Tensor) -> tuple[Tensor, PairIndex]:
        return self.states, self.index._replace(pairs=pairs)

    def backprop(self) -> None:
        gradient = self.states.grad
        if gradient is None:
            gradient = torch.zeros_like(self.states)
        if self._back is not None:
            self._back(split_by_counts(torch2xp(gradient), self.lengths))


def _index(
    X: Sequence[DocPairs], lengths: list[int], types: dict[str, int], device: torch.device
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

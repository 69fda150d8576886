"""The pair classifier of `mmcot_rel`: a torch module that scores relation labels for ordered pairs
of mentions, as a thinc model over a batch of Docs and the pairs to score in each. A teacher's also
reads what an LLM said about the Doc.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional, cast

import numpy
import torch
from numpy.typing import NDArray
from spacy.tokens import Doc
from thinc.api import Model, torch2xp, xp2torch
from thinc.types import Floats2d
from torch import Tensor, nn

from .bridge import Settings, TorchShim, prepare_module, split_by_counts, torch_shim
from .knowledge import TAG_ROWS, find_in_segment, tag_pairs

# No postponed annotations here: spaCy reads those of architectures at run time.


class DocPairs(NamedTuple):
    """A Doc, its mentions as (start token, end token, label), end exclusive, and the pairs to
    score: an int array (pairs, 2) of head and tail, indexes into the mentions."""

    doc: Doc
    mentions: Sequence[tuple[int, int, str]]
    pairs: NDArray[numpy.int64]


# Distances between mentions, in tokens, fall into these buckets by their lower bound; the sign
# says which of the two comes first.
_DISTANCES = (0, 1, 2, 3, 5, 9, 17, 33)


class PairIndex(NamedTuple):
    """Which pairs to score, as int64 tensors. Offsets are tokens of the concatenated docs, end
    exclusive; types index the schema's mention types, 0 for one it does not know."""

    docs: Tensor  # (docs, 2): where each doc's tokens stand
    mentions: Tensor  # (mentions, 2)
    types: Tensor  # (mentions,)
    doc_of: Tensor  # (mentions,)
    pairs: Tensor  # (pairs, 2): head and tail, indexes into mentions


class PairView(nn.Module):
    """The hidden layer's input from one text: a sum of projections of the pair's two mentions (the
    mean states of their tokens), the tokens between them, the whole doc, their types and their
    distance."""

    def __init__(self, width: int, n_types: int, hidden: int, dropout: float):
        super().__init__()
        self.width = width
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, hidden)
        self.tail = nn.Linear(width, hidden, bias=False)
        self.around = nn.Linear(width, hidden, bias=False)
        self.doc = nn.Linear(width, hidden, bias=False)
        self.head_type = nn.Embedding(n_types + 1, hidden)
        self.tail_type = nn.Embedding(n_types + 1, hidden)
        self.distance = nn.Embedding(2 * len(_DISTANCES), hidden)
        for embedding in (self.head_type, self.tail_type, self.distance):
            nn.init.normal_(embedding.weight, std=0.02)

    def view(self, states: Tensor, index: PairIndex) -> Tensor:
        """states: (tokens, width) of all docs, one after the other. Returns (pairs, hidden)."""
        means = _SpanMeans(self.dropout(states))
        mentions = means.compute(index.mentions)
        docs = self.doc(means.compute(index.docs))
        head, tail = index.pairs[:, 0], index.pairs[:, 1]
        summed = self.head(mentions)[head] + self.tail(mentions)[tail] + docs[index.doc_of[head]]
        summed = summed + self.head_type(index.types[head]) + self.tail_type(index.types[tail])
        spans = index.mentions[head], index.mentions[tail]
        summed = summed + self.distance(_bucket_distances(*spans))
        return summed + self.around(means.compute(_find_between(*spans)))


class _SpanMeans:
    """Running sums that give the mean of any span. states: (tokens, width)."""

    def __init__(self, states: Tensor):
        # Subtracted, since sums that grow with the batch would lose digits; detached, since it
        # cancels out of every mean.
        self.centre = states.detach().sum(0) / max(1, len(states))
        total = (states - self.centre).cumsum(0)
        self.total = torch.cat([states.new_zeros(1, states.shape[1]), total])

    def compute(self, spans: Tensor) -> Tensor:
        """The mean state of each span, (spans, width), 0 where it is empty. spans: (spans, 2)."""
        start, end = spans[:, 0], spans[:, 1]
        length = (end - start).unsqueeze(1)
        mean = (self.total[end] - self.total[start]) / length.clamp(min=1) + self.centre
        return mean.where(length > 0, 0.0)


class PairHead(PairView):
    """One hidden layer over a pair. A teacher's has a second view of it: the same mentions in the
    knowledge text."""

    def __init__(
        self,
        width: int,
        n_types: int,
        n_labels: int,
        *,
        hidden: int,
        dropout: float,
        view_dropout: float,
        conclusions: bool,
        knowledge_width: int,
    ):
        super().__init__(width, n_types, hidden, dropout)
        self.knowledge: PairView | None = None
        if knowledge_width:
            self.knowledge = PairView(knowledge_width, n_types, hidden, dropout)
        self.view_dropout = view_dropout
        self.tags: nn.Embedding | None = None
        if conclusions:
            self.tags = nn.Embedding(TAG_ROWS, hidden, padding_idx=0)
            nn.init.zeros_(self.tags.weight)
        self.output = nn.Linear(hidden, n_labels)

    def forward(
        self,
        states: Tensor,
        index: PairIndex,
        known: tuple[Tensor, PairIndex] | None = None,
        tags: Tensor | None = None,
    ) -> Tensor:
        """Logits, (pairs, labels).

        states: (tokens, width) of all docs, one after the other; known: the states of the
        knowledge texts, and the same pairs in them; tags: (pairs, tags), the rows of their tag
        embeddings.
        """
        summed = self.view(states, index)
        if self.knowledge is not None and known is not None:
            other = self.knowledge.view(*known)
            if self.training and self.view_dropout:
                # At most one view of a pair is dropped.
                draw = torch.rand(len(summed), 1, device=summed.device)
                summed = summed * (draw >= self.view_dropout)
                other = other * (draw <= 1 - self.view_dropout)
            summed = summed + other
        if self.tags is not None and tags is not None:
            summed = summed + self.tags(tags).sum(-2)
        return self.output(self.dropout(torch.relu(summed)))


def _find_between(heads: Tensor, tails: Tensor) -> Tensor:
    """The tokens between two mentions, (pairs, 2), an empty span where there are none. heads,
    tails: (pairs, 2)."""
    start = torch.minimum(heads[:, 1], tails[:, 1])
    end = torch.maximum(heads[:, 0], tails[:, 0])
    return torch.stack([start, torch.maximum(start, end)], dim=1)


def _bucket_distances(heads: Tensor, tails: Tensor) -> Tensor:
    """The bucket of the number of tokens between two mentions and of their order, (pairs,). heads,
    tails: (pairs, 2)."""
    between = _find_between(heads, tails)
    gap = between[:, 1] - between[:, 0]
    bounds = torch.tensor(_DISTANCES, device=gap.device)
    bucket = torch.bucketize(gap, bounds, right=True) - 1
    return bucket + len(_DISTANCES) * (heads[:, 0] > tails[:, 0]).long()


# Pairs that are scored at once outside training: bounds the memory that very many mentions take.
CHUNK = 8192


def PairClassifier(
    tok2vec: Model[list[Doc], list[Floats2d]],
    knowledge: Optional[Model[list[Doc], list[Floats2d]]] = None,  # noqa: UP045
    hidden: int = 256,
    dropout: float = 0.2,
    view_dropout: float = 0.0,
    conclusions: bool = False,
) -> Model[list[DocPairs], list[Floats2d]]:
    """`spacy_mmcot.PairClassifier.v1`: relation logits of mention pairs for `mmcot_rel`, (pairs,
    labels) for each Doc. `set_schema` must be called before `initialize`.

    tok2vec: token vectors, usually `spacy-transformers.TransformerListener.v1`: one encoder pass
        serves the tagger and all pairs.
    knowledge: for a teacher, a second encoder (`spacy_mmcot.KnowledgeReader.v1`) for what the LLM
        said about the doc, in which the same mentions are found; None for a student.
    hidden: units of the classifier's hidden layer.
    dropout: dropout of the token vectors and the hidden layer in training.
    view_dropout: with `knowledge`, how often a pair is trained without its text, and as often
        without its knowledge, at most 0.5: a classifier that has memorised the texts would ignore
        the knowledge.
    conclusions: for a teacher, learn an embedding of what the LLM concludes on each pair.
    """
    settings = dict(
        hidden=hidden, dropout=dropout, view_dropout=view_dropout, conclusions=conclusions
    )
    return Model(
        "pair_classifier",
        _forward,
        init=functools.partial(_init, settings=settings),
        dims={"nI": None, "nO": None},
        layers=[tok2vec] if knowledge is None else [tok2vec, knowledge],
        shims=[TorchShim(PairHead)],
    )


def set_schema(model: Model, labels: Sequence[str], types: Sequence[str]) -> None:
    """Set what `initialize` builds a pair classifier for: the relation labels, that of no relation
    first, and the mention types."""
    model.attrs["types"] = {name: i + 1 for i, name in enumerate(types)}
    model.set_dim("nO", len(labels), force=True)


def _init(model: Model, X: Any = None, Y: Any = None, *, settings: Settings) -> None:
    docs = [entry.doc for entry in X]
    for layer in model.layers:
        layer.initialize(X=docs)
    widths = [layer.predict(docs)[0].shape[1] for layer in model.layers]
    settings = {
        **settings,
        "width": widths[0],
        "n_types": len(model.attrs["types"]),
        "n_labels": model.get_dim("nO"),
        "knowledge_width": widths[1] if len(widths) > 1 else 0,
    }
    # A new module each time: a second initialisation starts from scratch.
    torch_shim(model).set_module(PairHead(**settings), settings)
    model.set_dim("nI", widths[0], force=True)


def _forward(
    model: Model, X: list[DocPairs], is_train: bool
) -> tuple[list[Floats2d], Callable[[list[Floats2d]], list[Doc]]]:
    module: PairHead = prepare_module(model, is_train)
    texts = _Texts(model, 0, X, module.width, is_train)
    known = None
    if module.knowledge is not None:
        entries = [DocPairs(*find_in_segment(doc, found), pairs) for doc, found, pairs in X]
        known = _Texts(model, 1, entries, module.knowledge.width, is_train)
    pairs = texts.index.pairs
    tags = None
    if module.tags is not None:
        tags = torch.from_numpy(numpy.concatenate([tag_pairs(*entry) for entry in X]))
        tags = tags.to(pairs.device)
    size = max(1, len(pairs)) if is_train else CHUNK
    with torch.set_grad_enabled(is_train):
        parts = []
        for i, part in enumerate(torch.split(pairs, size)):
            own = None if tags is None else tags[i * size : (i + 1) * size]
            parts.append(module(*texts.select(part), known and known.select(part), own))
        logits = torch.cat(parts)
    counts = [len(entry.pairs) for entry in X]

    def backprop(d_logits: list[Floats2d]) -> list[Doc]:
        # Even without pairs: the encoder waits for the gradients of all of its listeners.
        torch.autograd.backward(logits, xp2torch(model.ops.xp.concatenate(d_logits)))
        texts.backprop()
        if known is not None:
            known.backprop()
        return [entry.doc for entry in X]

    return split_by_counts(cast(Any, torch2xp(logits.detach())), counts), backprop


class _Texts:
    """The states of a batch of Docs from one of the model's layers, and the pairs in them."""

    def __init__(self, model: Model, layer: int, X: Sequence[DocPairs], width: int, is_train: bool):
        # A listener must get every Doc; a knowledge encoder only those with knowledge.
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
        self.index = _make_index(X, lengths, model.attrs["types"], self.states.device)

    def select(self, pairs: Tensor) -> tuple[Tensor, PairIndex]:
        """The states and the index of some pairs, (pairs, 2)."""
        return self.states, self.index._replace(pairs=pairs)

    def backprop(self) -> None:
        gradient = self.states.grad
        if gradient is None:
            gradient = torch.zeros_like(self.states)
        if self._back is not None:
            self._back(split_by_counts(torch2xp(gradient), self.lengths))


def _make_index(
    X: Sequence[DocPairs], lengths: list[int], types: dict[str, int], device: torch.device
) -> PairIndex:
    """lengths: tokens of each Doc; types: the indexes of the mention types."""
    offsets = list(itertools.accumulate(lengths, initial=0))
    mentions: list[tuple[int, ...]] = []  # start, end, type, doc
    pairs = [numpy.zeros((0, 2), dtype="int64")]
    for i, (entry, offset) in enumerate(zip(X, offsets, strict=False)):
        pairs.append(entry.pairs + len(mentions))
        for start, end, label in entry.mentions:
            mentions.append((offset + start, offset + end, types.get(label, 0), i))
    table = torch.tensor(mentions, dtype=torch.long, device=device).reshape(-1, 4)
    docs = torch.tensor(list(itertools.pairwise(offsets)), device=device).reshape(-1, 2)
    joined = torch.from_numpy(numpy.concatenate(pairs)).to(device)
    return PairIndex(docs.long(), table[:, :2], table[:, 2], table[:, 3], joined)

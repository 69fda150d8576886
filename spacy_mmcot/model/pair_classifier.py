"""The pair classifier of `mmcot_rel`: a torch module that scores relation labels for ordered pairs
of mentions, as a thinc model over a batch of Docs and the pairs to score in each. A teacher's also
reads what an LLM concludes on the pairs.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy
import torch
from spacy.tokens import Doc
from thinc.api import Model, torch2xp, xp2torch
from thinc.types import Floats2d
from torch import Tensor, nn

from ..types import DEFAULT_CONFIDENCE, SURENESS, DocPairs
from .bridge import Settings, TorchShim, prepare_module, torch_shim
from .knowledge import PRIOR_FLOOR, TAG_ROWS, tag_pairs

# No postponed annotations here: spaCy reads those of architectures at run time.

# Distances between mentions, in tokens, fall into these buckets by their lower bound; there is
# one set of buckets for each order of head and tail.
_DISTANCES = (0, 1, 2, 3, 5, 9, 17, 33)


class PairIndex(NamedTuple):
    """Which pairs to score, as int64 tensors. Offsets are tokens of the concatenated docs, end
    exclusive; types index the schema's mention types, 0 for one it does not know."""

    docs: Tensor  # (docs, 2): where each doc's tokens stand
    mentions: Tensor  # (mentions, 2)
    types: Tensor  # (mentions,)
    doc_of: Tensor  # (mentions,)
    pairs: Tensor  # (pairs, 2): head and tail, indexes into mentions


class PairHead(nn.Module):
    """One hidden layer over a pair. Its input is a sum of projections of the pair's two mentions
    (the mean states of their tokens), the tokens between them, the whole doc, their types and their
    distance, and of embeddings of what an LLM concludes on the pair."""

    def __init__(
        self,
        width: int,
        n_types: int,
        n_labels: int,
        hidden: int,
        dropout: float,
        conclusions: bool,
    ):
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
        self.tags: nn.Embedding | None = None
        if conclusions:
            self.tags = nn.Embedding(TAG_ROWS, hidden, padding_idx=0)
            nn.init.zeros_(self.tags.weight)
        self.output = nn.Linear(hidden, n_labels)

    def forward(self, states: Tensor, index: PairIndex, tags: Tensor | None = None) -> Tensor:
        """Logits, (pairs, labels). states: (tokens, width) of all docs, one after the other; tags:
        (pairs, 2 + TAGS_PER_PAIR), see `tag_pairs`."""
        head, tail = index.pairs.unbind(1)
        between, bucket = _find_between(index.mentions[head], index.mentions[tail])
        spans = index.mentions, index.docs, between
        mentions, docs, around = _compute_means(self.dropout(states), *spans)
        docs = self.doc(docs)[index.doc_of[head]]
        summed = self.head(mentions)[head] + self.tail(mentions)[tail] + docs
        summed = summed + self.head_type(index.types[head]) + self.tail_type(index.types[tail])
        summed = summed + self.distance(bucket)
        summed = summed + self.around(around)
        if self.tags is None or tags is None:
            return self.output(self.dropout(torch.relu(summed)))
        asked = tags[:, :1] >= 0
        if self.training:
            # A classifier that has memorised the texts would ignore the conclusions.
            drawn = torch.rand(len(summed), 1, device=summed.device)
            summed = summed * ((drawn >= TEXT_DROPOUT) | ~asked)
        else:
            summed = summed * torch.where(asked, 1 - TEXT_DROPOUT, 1.0)
        summed = summed + self.tags(tags[:, 2:]).sum(-2)
        logits = self.output(self.dropout(torch.relu(summed)))
        return logits + compute_pair_priors(tags[:, 0], tags[:, 1], logits.shape[1])


def compute_pair_priors(label: Tensor, sure: Tensor, n_labels: int) -> Tensor:
    """(pairs, labels): the log-probabilities of the labels by the conclusion alone, before anything
    is learned; 0 where no relations were asked for. label, sure: (pairs,), see `tag_pairs`."""
    confidence = torch.tensor([DEFAULT_CONFIDENCE[name] for name in SURENESS], device=label.device)
    right = confidence[sure]
    is_related = (label > 0).unsqueeze(1)
    chosen = nn.functional.one_hot(label.clamp(min=0), n_labels)
    # What is left goes to no relation, or to all labels alike.
    others = (1 - chosen) / (n_labels - 1)
    others = torch.where(is_related, torch.eye(n_labels, device=label.device)[0], others)
    probabilities = right.unsqueeze(1) * chosen + (1 - right).unsqueeze(1) * others
    priors = ((1 - PRIOR_FLOOR) * probabilities + PRIOR_FLOOR / n_labels).log()
    return priors * (label >= 0).unsqueeze(1)


def _compute_means(states: Tensor, *tables: Tensor) -> list[Tensor]:
    """Mean states of each table's spans, (spans, 2): (spans, width), 0 where one is empty."""
    # Subtracted, since sums that grow with the batch would lose digits; detached, since it cancels
    # out of every mean.
    centre = states.detach().sum(0) / max(1, len(states))
    total = (states - centre).cumsum(0)
    total = torch.cat([states.new_zeros(1, states.shape[1]), total])
    means = []
    for start, end in (table.unbind(1) for table in tables):
        length = (end - start).unsqueeze(1)
        mean = (total[end] - total[start]) / length.clamp(min=1) + centre
        means.append(mean.where(length > 0, 0.0))
    return means


def _find_between(heads: Tensor, tails: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens between two mentions, (pairs, 2), an empty span where there are none, and the
    bucket of their number and of the mentions' order, (pairs,). heads, tails: (pairs, 2)."""
    start = torch.minimum(heads[:, 1], tails[:, 1])
    end = torch.maximum(start, torch.maximum(heads[:, 0], tails[:, 0]))
    bounds = torch.tensor(_DISTANCES, device=start.device)
    bucket = torch.bucketize(end - start, bounds, right=True) - 1
    bucket = bucket + len(_DISTANCES) * (heads[:, 0] > tails[:, 0]).long()
    return torch.stack([start, end], dim=1), bucket


# Pairs that are scored at once outside training: bounds the memory that very many mentions take.
CHUNK = 8192
# How often a pair of a teacher is trained on the LLM's conclusion alone.
TEXT_DROPOUT = 0.5


def PairClassifier(
    tok2vec: Model[list[Doc], list[Floats2d]],
    hidden: int = 256,
    dropout: float = 0.2,
    conclusions: bool = False,
) -> Model[list[DocPairs], list[Floats2d]]:
    """`spacy_mmcot.PairClassifier.v1`: relation logits of mention pairs for `mmcot_rel`, (pairs,
    labels) for each Doc. `set_schema` must be called before `initialize`.

    tok2vec: token vectors, usually `spacy-transformers.TransformerListener.v1`: one encoder pass
        serves the tagger and all pairs.
    hidden: units of the classifier's hidden layer.
    dropout: dropout of the token vectors and the hidden layer in training.
    conclusions: for a teacher, start from what the LLM concludes on each pair, and learn an
        embedding of it.
    """
    settings = dict(hidden=hidden, dropout=dropout, conclusions=conclusions)
    return Model(
        "pair_classifier",
        _forward,
        init=functools.partial(_init, settings=settings),
        dims={"nI": None, "nO": None},
        layers=[tok2vec],
        shims=[TorchShim(PairHead)],
    )


def set_schema(model: Model, labels: Sequence[str], types: Sequence[str]) -> None:
    """Set what `initialize` builds a pair classifier for: the relation labels, that of no relation
    first, and the mention types."""
    model.attrs["labels"] = {name: i for i, name in enumerate(labels)}
    model.attrs["types"] = {name: i + 1 for i, name in enumerate(types)}
    model.set_dim("nO", len(labels), force=True)


def _init(model: Model, X: Any = None, Y: Any = None, *, settings: Settings) -> None:
    docs = [entry.doc for entry in X]
    (tok2vec,) = model.layers
    tok2vec.initialize(X=docs)
    width = tok2vec.predict(docs)[0].shape[1]
    known = {"n_types": len(model.attrs["types"]), "n_labels": model.get_dim("nO")}
    settings = {**settings, "width": width, **known}
    # A new module each time: a second initialisation starts from scratch.
    torch_shim(model).set_module(PairHead(**settings), settings)
    model.set_dim("nI", width, force=True)


def _forward(
    model: Model, X: list[DocPairs], is_train: bool
) -> tuple[list[Floats2d], Callable[[list[Floats2d]], list[Doc]]]:
    module: PairHead = prepare_module(model, is_train)
    docs = [entry.doc for entry in X]
    lengths = [len(doc) for doc in docs]
    arrays, back = model.layers[0](docs, is_train)
    # Zero-length Docs come without a width.
    empty = model.ops.alloc2f(0, module.width)
    flat = model.ops.xp.concatenate([empty, *(array for array in arrays if len(array))])
    states = xp2torch(flat, requires_grad=is_train)
    index = _make_index(X, lengths, model.attrs["types"], states.device)
    size = max(1, len(index.pairs)) if is_train else CHUNK
    parts = index.pairs.split(size)
    tag_parts: Sequence[Tensor | None] = [None] * len(parts)
    if module.tags is not None:
        rows = numpy.concatenate([tag_pairs(*entry, model.attrs["labels"]) for entry in X])
        tag_parts = torch.from_numpy(rows).to(states.device).split(size)
    with torch.set_grad_enabled(is_train):
        logits = torch.cat(
            [
                module(states, index._replace(pairs=part), tags)
                for part, tags in zip(parts, tag_parts, strict=True)
            ]
        )
    counts = [len(entry.pairs) for entry in X]

    def backprop(d_logits: list[Floats2d]) -> list[Doc]:
        # Even without pairs: the encoder waits for the gradients of all of its listeners.
        torch.autograd.backward(logits, xp2torch(model.ops.xp.concatenate(d_logits)))
        gradient = torch.zeros_like(states) if states.grad is None else states.grad
        back([torch2xp(part) for part in gradient.split(lengths)])
        return docs

    return [cast(Any, torch2xp(part)) for part in logits.detach().split(counts)], backprop


def _make_index(
    X: Sequence[DocPairs], lengths: list[int], types: dict[str, int], device: torch.device
) -> PairIndex:
    """lengths: tokens of each Doc; types: the indexes of the mention types."""
    offsets = list(itertools.accumulate(lengths, initial=0))
    mentions: list[tuple[int, ...]] = []  # start, end, type, doc
    pairs = [numpy.zeros((0, 2), dtype="int64")]
    for i, (entry, offset) in enumerate(zip(X, offsets, strict=False)):
        pairs.append(entry.pairs + len(mentions))
        for span in entry.mentions:
            mentions.append((offset + span.start, offset + span.end, types.get(span.label_, 0), i))
    table = torch.tensor(mentions, dtype=torch.long, device=device).reshape(-1, 4)
    docs = torch.tensor(list(itertools.pairwise(offsets)), device=device).reshape(-1, 2)
    joined = torch.from_numpy(numpy.concatenate(pairs)).to(device)
    return PairIndex(docs.long(), table[:, :2], table[:, 2], table[:, 3], joined)

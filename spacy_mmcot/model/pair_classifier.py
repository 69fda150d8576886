"""The torch module that scores relation labels for ordered pairs of mentions."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

Context = Literal["between", "attention"]

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
    """The hidden layer's input from one text: the means of a pair's two mentions' token states,
    their types, the distance, the whole doc, and a context, each by weights of its own, so that a
    mention is projected once however many pairs it is in, and a pair costs a few vector additions.

    context "between": the mean of the states that stand between the mentions. "attention": a mean
    over all of the doc's states, weighed by a query made from both mentions (the mentions as
    levitated markers, after Ye et al., ACL 2022, "Packed levitated marker", here on the encoder's
    last layer so that one pass serves all pairs).
    """

    def __init__(
        self,
        width: int,
        n_types: int,
        *,
        hidden: int = 256,
        dropout: float = 0.2,
        context: Context = "between",
    ):
        super().__init__()
        self.width = width
        self.context: Context = context
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
        if context == "attention":
            self.query = nn.Linear(2 * hidden, hidden)
            self.key = nn.Linear(width, hidden, bias=False)

    def view(self, states: Tensor, index: PairIndex) -> Tensor:
        """states: (tokens, width) of all docs, one after the other. Returns (pairs, hidden)."""
        states = self.dropout(states)
        sums = _running_sums(states)
        mentions = _means(sums, index.mentions)
        head, tail = index.pairs[:, 0], index.pairs[:, 1]
        doc = index.doc_of[head]
        heads, tails = self.head(mentions), self.tail(mentions)
        summed = heads[head] + tails[tail] + self.doc(_means(sums, index.docs))[doc]
        summed = summed + self.head_type(index.types[head]) + self.tail_type(index.types[tail])
        summed = summed + self.distance(_distances(index.mentions[head], index.mentions[tail]))
        if self.context == "between":
            between = _means(sums, _between(index.mentions[head], index.mentions[tail]))
            return summed + self.around(between)
        queries = self.query(torch.cat([heads[head], tails[tail]], dim=-1))
        return summed + self.around(self._attended(states, queries, index.docs, doc))

    def _attended(self, states: Tensor, queries: Tensor, docs: Tensor, doc: Tensor) -> Tensor:
        """(pairs, width): each query's mean over the states of its doc."""
        keys = self.key(states)
        result = states.new_zeros(len(queries), states.shape[1])
        for i, (start, end) in enumerate(docs.tolist()):
            rows = (doc == i).nonzero().squeeze(1)
            if len(rows):
                scores = queries[rows] @ keys[start:end].T / math.sqrt(keys.shape[1])
                result = result.index_copy(0, rows, torch.softmax(scores, -1) @ states[start:end])
        return result


class _Sums(NamedTuple):
    """centre: (width,), the mean of all states; total: (tokens + 1, width), whose row i is the sum
    of the states before token i, each less the centre: a sum that grew with the batch would leave
    few digits to its differences."""

    centre: Tensor
    total: Tensor


class PairHead(PairView):
    """One hidden layer over a pair. A teacher's has a second view of it: the same mentions in the
    text of what it knows."""

    def __init__(
        self,
        width: int,
        n_types: int,
        n_labels: int,
        *,
        hidden: int = 256,
        dropout: float = 0.2,
        context: Context = "between",
        knowledge_width: int = 0,
        view_dropout: float = 0.0,
    ):
        view: dict[str, Any] = {"hidden": hidden, "dropout": dropout, "context": context}
        super().__init__(width, n_types, **view)
        self.knowledge = PairView(knowledge_width, n_types, **view) if knowledge_width else None
        self.view_dropout = view_dropout
        self.output = nn.Linear(hidden, n_labels)

    def forward(
        self, states: Tensor, index: PairIndex, known: tuple[Tensor, PairIndex] | None = None
    ) -> Tensor:
        """Logits, (pairs, labels).

        states: (tokens, width) of all docs, one after the other; known: the states of the
        knowledge texts, and the same pairs in them.
        """
        summed = self.view(states, index)
        if self.knowledge is not None and known is not None:
            other = self.knowledge.view(*known)
            if self.training and self.view_dropout:
                # One view at most is missing, so that neither is learned through the other alone.
                draw = torch.rand(len(summed), 1, device=summed.device)
                summed = summed * (draw >= self.view_dropout)
                other = other * (draw <= 1 - self.view_dropout)
            summed = summed + other
        return self.output(self.dropout(torch.relu(summed)))


def _running_sums(states: Tensor) -> _Sums:
    # No gradient: what the centre takes from a span's sum it gives back to its mean.
    centre = states.detach().sum(0) / max(1, len(states))
    total = (states - centre).cumsum(0)
    return _Sums(centre, torch.cat([states.new_zeros(1, states.shape[1]), total]))


def _means(sums: _Sums, spans: Tensor) -> Tensor:
    """(spans, width): the mean state of each span, 0 where it is empty."""
    start, end = spans[:, 0], spans[:, 1]
    length = (end - start).unsqueeze(1)
    mean = (sums.total[end] - sums.total[start]) / length.clamp(min=1) + sums.centre
    return mean.where(length > 0, 0.0)


def _between(heads: Tensor, tails: Tensor) -> Tensor:
    """(pairs, 2): the tokens between two mentions, an empty span where there are none."""
    start = torch.minimum(heads[:, 1], tails[:, 1])
    end = torch.maximum(heads[:, 0], tails[:, 0])
    return torch.stack([start, torch.maximum(start, end)], dim=1)


def _distances(heads: Tensor, tails: Tensor) -> Tensor:
    """(pairs,): the bucket of the number of tokens between, and of the order."""
    between = _between(heads, tails)
    gap = between[:, 1] - between[:, 0]
    bounds = torch.tensor(_DISTANCES, device=gap.device)
    bucket = torch.bucketize(gap, bounds, right=True) - 1
    return bucket + len(_DISTANCES) * (heads[:, 0] > tails[:, 0]).long()

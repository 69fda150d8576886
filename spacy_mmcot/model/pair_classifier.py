"""The mention pairs of a Doc that are to be scored.

What an LLM wrote about a Doc as a Doc of its own, with the same mentions found in it.

The torch module that scores relation labels for ordered pairs of mentions.

PairHead as a thinc model over a batch of Docs and the pairs of mentions to score in each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, cast

import numpy
import torch
from numpy.typing import NDArray
from spacy.tokens import Doc
from thinc.api import Model, torch2xp, xp2torch
from thinc.types import Floats2d
from torch import Tensor, nn

from .bridge import Settings, TorchShim, set_mode, split_by_counts, torch_shim
from .knowledge import TAG_ROWS, concluded_relations, hashed_rows, segment_text


class DocPairs(NamedTuple):
    """A Doc, its mentions as (start token, end token, label), end exclusive, and the pairs to
    score: an int array (pairs, 2) of head and tail, indexes into the mentions."""

    doc: Doc
    mentions: Sequence[tuple[int, int, str]]
    pairs: NDArray[numpy.int64]


_ANY_WORD = re.compile(r"\w+|[^\w\s]")


def knowledge_doc(entry: DocPairs) -> DocPairs:
    """The Doc's knowledge segment as a Doc, and the entry's mentions and pairs in it.

    A mention stands where the text names it last, since an LLM states its conclusion at the end;
    one that the text does not name in full stands where its last word does, and one that is not
    named at all covers the whole text.
    """
    words = _ANY_WORD.findall(segment_text(entry.doc))
    lowered = [word.lower() for word in words]
    mentions = []
    for start, end, label in entry.mentions:
        surface = [w.lower() for w in _ANY_WORD.findall(entry.doc[start:end].text) if w not in "#@"]
        place = _last(lowered, surface) or _last(lowered, surface[-1:]) or (0, len(words))
        mentions.append((*place, label))
    return DocPairs(Doc(entry.doc.vocab, words=words), mentions, entry.pairs)


# Rows of embeddings that a pair has at most: one where relations were asked for, two for the
# conclusion on it, one for its second choice, two for the conclusion on the pair the other way.
ROWS_PER_PAIR = 6


def concluded_rows(entry: DocPairs) -> NDArray[numpy.int64]:
    """(pairs, ROWS_PER_PAIR): the rows of the embeddings of what an LLM concludes on each pair, by
    label and sureness, 0 for none. A mention is the one that a conclusion begins in."""
    rows = numpy.zeros((len(entry.pairs), ROWS_PER_PAIR), dtype="int64")
    concluded = concluded_relations(entry.doc) if len(entry.pairs) else None
    if concluded is None:
        return rows
    rows[:, 0] = hashed_rows("asked")[0]
    mention_at = {
        token: i for i, (start, end, _) in enumerate(entry.mentions) for token in range(start, end)
    }
    row_of = {pair: row for row, pair in enumerate(map(tuple, entry.pairs.tolist()))}
    for c in concluded:
        head, tail = mention_at.get(c.head, -1), mention_at.get(c.tail, -1)
        if (row := row_of.get((head, tail))) is not None:
            rows[row, 1:3] = hashed_rows(f"{c.label} {c.sure}")
            if c.or_label is not None:
                rows[row, 3] = hashed_rows(f"or {c.or_label}")[0]
        if (row := row_of.get((tail, head))) is not None:
            rows[row, 4:6] = hashed_rows(f"reverse {c.label} {c.sure}")
    return rows


def _last(words: Sequence[str], wanted: Sequence[str]) -> tuple[int, int] | None:
    n = len(wanted)
    for start in range(len(words) - n, -1, -1) if n else ():
        if words[start : start + n] == wanted:
            return start, start + n
    return None


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
        conclusions: bool = False,
    ):
        view: dict[str, Any] = {"hidden": hidden, "dropout": dropout, "context": context}
        super().__init__(width, n_types, **view)
        self.knowledge = PairView(knowledge_width, n_types, **view) if knowledge_width else None
        self.view_dropout = view_dropout
        self.concluded = None
        if conclusions:
            self.concluded = nn.Embedding(TAG_ROWS, hidden, padding_idx=0)
            nn.init.zeros_(self.concluded.weight)
        self.output = nn.Linear(hidden, n_labels)

    def forward(
        self,
        states: Tensor,
        index: PairIndex,
        known: tuple[Tensor, PairIndex] | None = None,
        concluded: Tensor | None = None,
    ) -> Tensor:
        """Logits, (pairs, labels).

        states: (tokens, width) of all docs, one after the other; known: the states of the
        knowledge texts, and the same pairs in them. concluded: (pairs, ROWS_PER_PAIR), rows of
        the embeddings of what an LLM concludes on each pair, 0 for none.
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
        if self.concluded is not None and concluded is not None:
            summed = summed + self.concluded(concluded).sum(-2)
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
    rows = None
    if module.concluded is not None:
        rows = torch.from_numpy(numpy.concatenate([concluded_rows(entry) for entry in X]))
        rows = rows.to(pairs.device)
    size = max(1, len(pairs)) if is_train else CHUNK
    with torch.set_grad_enabled(is_train):
        logits = torch.cat(
            [
                module(
                    *texts.of_pairs(part),
                    known and known.of_pairs(part),
                    None if rows is None else rows[i * size : (i + 1) * size],
                )
                for i, part in enumerate(torch.split(pairs, size))
            ]
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

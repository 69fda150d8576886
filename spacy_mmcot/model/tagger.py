"""The tagger of `mmcot_ner`: a torch module that scores BIO tags, as a thinc model over a batch of
Docs, and the linear-chain conditional random field over them as training needs it, with gradients:
partition, marginals, spans. `components/decoding.py` decodes what is trained.

The functions of the field take `emissions` (batch, tokens, tags), `lengths` (batch,) and one score
matrix `transitions` (tags + 1, tags + 1) in log space, whose last row and column stand for the
boundary of the sequence: transitions[-1, j] starts in tag j, transitions[i, -1] ends in tag i.
Illegal steps score ILLEGAL, so no path, marginal or span score gives them weight.

Sources: Lafferty, McCallum and Pereira (2001) for the model; Rabiner (1989) for forward-backward.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from spacy.tokens import Doc
from thinc.api import Model, chain, torch2xp, xp2torch
from thinc.types import Floats2d
from torch import Tensor, nn

from .bridge import Settings, TorchShim, prepare_module, split_by_counts, torch_shim
from .knowledge import compute_tag_priors

# No postponed annotations here: spaCy reads those of architectures at run time.


# Low enough to forbid a step, high enough that sums of several stay finite in fp32.
ILLEGAL = -1e4

# From the scores of one token's tags, (batch, tags), to those of its neighbour's.
Step = Callable[[Tensor], Tensor]


class Lattice(NamedTuple):
    """Forward and backward scores, (batch, tokens, tags) each, and log Z, (batch,).

    `forward` holds the emission of its own token, `backward` does not.
    """

    forward: Tensor
    backward: Tensor
    log_z: Tensor


def find_legal_steps(tags: Sequence[str]) -> Tensor:
    """Boolean (tags + 1, tags + 1): which BIO steps are legal, boundary last."""
    names = [*tags, ""]
    legal = torch.ones(len(names), len(names), dtype=torch.bool)
    for j, after in enumerate(names):
        if after.startswith("I-"):
            for i, before in enumerate(names):
                legal[i, j] = before[:2] in ("B-", "I-") and before[2:] == after[2:]
    return legal


def compute_forward(
    emissions: Tensor, lengths: Tensor, transitions: Tensor
) -> tuple[Tensor, Tensor]:
    """Forward scores (batch, tokens, tags) and log Z (batch,). Lengths must be at least 1."""
    field, steps = (emissions, lengths, transitions), transitions[:-1, :-1]
    return _sum_forward(*field, lambda alpha: torch.logsumexp(alpha.unsqueeze(2) + steps, dim=1))


def compute_lattice(emissions: Tensor, lengths: Tensor, transitions: Tensor) -> Lattice:
    """Forward and backward scores. Positions past a sequence's length have no meaning."""
    field, steps = (emissions, lengths, transitions), transitions[:-1, :-1]
    forward, log_z = compute_forward(*field)
    backward = _sum_backward(*field, lambda b: torch.logsumexp(steps + b.unsqueeze(1), dim=2))
    return Lattice(forward, backward, log_z)


def _sum_forward(
    emissions: Tensor, lengths: Tensor, transitions: Tensor, step: Step
) -> tuple[Tensor, Tensor]:
    """Forward scores (batch, tokens, tags) and log Z (batch,). step: from the forward scores of one
    token to the next one's, without its emission."""
    alpha = transitions[-1, :-1] + emissions[:, 0]
    rows = [alpha]
    for t in range(1, emissions.shape[1]):
        alpha = step(alpha) + emissions[:, t]
        rows.append(alpha)
    forward = torch.stack(rows, dim=1)
    last = forward[torch.arange(len(lengths)), lengths - 1]
    return forward, torch.logsumexp(last + transitions[:-1, -1], dim=1)


def _sum_backward(emissions: Tensor, lengths: Tensor, transitions: Tensor, step: Step) -> Tensor:
    """Backward scores (batch, tokens, tags). step: from the backward scores of a token, with its
    emission, to those of the one before."""
    ends = transitions[:-1, -1]
    beta = ends.expand(len(emissions), -1)
    rows = [beta]
    for t in range(emissions.shape[1] - 2, -1, -1):
        inner = step(emissions[:, t + 1] + beta)
        beta = torch.where((lengths - 1 <= t).unsqueeze(1), ends, inner)
        rows.append(beta)
    return torch.stack(rows[::-1], dim=1)


def compute_log_marginals(scores: Lattice) -> Tensor:
    """log P(tag of token t | sentence), (batch, tokens, tags)."""
    return scores.forward + scores.backward - scores.log_z.view(-1, 1, 1)


def score_spans(
    scores: Lattice,
    emissions: Tensor,
    lengths: Tensor,
    transitions: Tensor,
    spans: Sequence[tuple[int, int, int, int]],
) -> Tensor:
    """log P(the tokens [start, end) form exactly one mention | sentence) of each span, (spans,),
    summed over all tag sequences that agree.

    spans: (sentence, start, end, index of the label's B- tag) each. Its I- tag comes next.
    """
    columns = torch.tensor(spans, device=emissions.device, dtype=torch.long).reshape(-1, 4)
    row, start, end, begin = columns.unbind(dim=1)
    inside = begin + 1
    longer = end - start - 1
    # In double precision, since differences of long sums lose digits.
    sums = emissions.double().cumsum(dim=1)
    emitted = sums[row, end - 1, inside] - sums[row, start, inside]
    steps = (longer > 0) * transitions[begin, inside]
    steps = steps + (longer - 1).clamp(min=0) * transitions[inside, inside]
    last = torch.where(longer > 0, inside, begin)
    # What may follow: the end, or any tag but the one that continues the mention.
    after = end.clamp(max=emissions.shape[1] - 1)
    exits = transitions[last, :-1] + emissions[row, after] + scores.backward[row, after]
    exits = exits.scatter(1, inside.unsqueeze(1), -torch.inf)
    ends = end == lengths[row]
    closed = torch.where(ends, transitions[last, -1], torch.logsumexp(exits, dim=1))
    total = scores.forward[row, start, begin] + emitted + steps + closed - scores.log_z[row]
    return total.clamp(max=0.0)


class TagHead(nn.Module):
    """Emission scores from one linear layer, and a transition matrix that forbids illegal steps.
    Its other entries are parameters with `learn_transitions` and 0 without. With `priors` the last
    columns of its input are scores of the tags, which are added to the emissions."""

    legal: Tensor

    def __init__(
        self,
        width: int,
        tags: Sequence[str],
        *,
        dropout: float,
        learn_transitions: bool,
        priors: bool = False,
    ):
        super().__init__()
        self.n_priors = len(tags) if priors else 0
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, len(tags))
        n = len(tags) + 1
        self.steps = nn.Parameter(torch.zeros(n, n), requires_grad=learn_transitions)
        self.register_buffer("legal", find_legal_steps(tags), persistent=False)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """states: (tokens, width), with priors (tokens, width + tags), of all Docs of a batch, one
        after the other. Returns emissions (tokens, tags) and transitions (tags + 1, tags + 1) as
        the field reads them."""
        width = self.linear.in_features
        emissions = self.linear(self.dropout(states[:, :width]))
        if self.n_priors:
            emissions = emissions + states[:, width:]
        return emissions, self.steps.masked_fill(~self.legal, ILLEGAL)


@dataclass
class TagScores:
    """A batch's scores, or their gradients: emissions, (tokens, tags) for each Doc, and
    transitions, (tags + 1, tags + 1), for all."""

    emissions: list[Floats2d]
    transitions: Floats2d


def Tagger(
    tok2vec: Model[list[Doc], list[Floats2d]],
    dropout: float = 0.2,
    crf: bool = True,
    conclusions: bool = False,
) -> Model[list[Doc], TagScores]:
    """`spacy_mmcot.Tagger.v1`: BIO tag scores of each token for `mmcot_ner`. `set_tags` must be
    called before `initialize`.

    tok2vec: token vectors, usually `spacy-transformers.TransformerListener.v1` with
        `reduce_first.v1` pooling, or any other tok2vec.
    dropout: dropout of the token vectors in training.
    crf: learn transition scores (a conditional random field); without, each token has a softmax of
        its own. Decoded sequences are legal either way.
    conclusions: for a teacher, start from what the LLM concludes on the tokens: an untrained tagger
        predicts its entities.
    """
    head: Model = Model(
        "tag_head",
        _forward,
        init=_init,
        dims={"nI": None, "nO": None},
        shims=[TorchShim(TagHead)],
        attrs={"dropout": dropout, "learn_transitions": crf, "priors": conclusions},
    )
    read = tok2vec
    if conclusions:
        read = Model("with_priors", _add_priors, init=_init_priors, layers=[tok2vec])
    model: Model = chain(read, head)
    model.set_ref("head", head)
    model.set_ref("tok2vec", tok2vec)
    return model


def set_tags(model: Model, tags: Sequence[str]) -> None:
    """Set the tags that `initialize` builds a tagger for, "O" among them."""
    for layer in model.walk():
        if layer.name in ("tag_head", "with_priors"):
            layer.attrs["tags"] = list(tags)
    model.set_dim("nO", len(tags), force=True)


def _init_priors(model: Model, X: Any = None, Y: Any = None) -> None:
    model.layers[0].initialize(X=X, Y=Y)


def _add_priors(
    model: Model, docs: list[Doc], is_train: bool
) -> tuple[list[Floats2d], Callable[[list[Floats2d]], Any]]:
    """Each Doc's vectors with what its conclusion says on its tokens behind them, (tokens, width +
    tags); those of a Doc without tokens as they come."""
    arrays, back = model.layers[0](docs, is_train)
    xp, tags = model.ops.xp, model.attrs["tags"]
    priors: list[Any] = [compute_tag_priors(doc, tags) for doc in docs]
    wide = [
        xp.hstack([array, model.ops.asarray(prior)]) if len(array) else array
        for array, prior in zip(arrays, priors, strict=True)
    ]

    def backprop(d_wide: list[Floats2d]) -> Any:
        return back([model.ops.as_contig(d[:, : d.shape[1] - len(tags)]) for d in d_wide])

    return wide, backprop


def _init(model: Model, X: Any = None, Y: Any = None) -> None:
    names = ("tags", "dropout", "learn_transitions", "priors")
    settings: Settings = {name: model.attrs[name] for name in names}
    settings["width"] = X[0].shape[1] - len(settings["tags"]) * settings["priors"]
    # A new module each time: a second initialisation starts from scratch.
    torch_shim(model).set_module(TagHead(**settings), settings)
    model.set_dim("nI", X[0].shape[1], force=True)
    model.set_dim("nO", len(settings["tags"]), force=True)


def _forward(
    model: Model, X: list[Floats2d], is_train: bool
) -> tuple[TagScores, Callable[[TagScores], list[Floats2d]]]:
    module: TagHead = prepare_module(model, is_train)
    counts = [len(x) for x in X]
    # Zero-length Docs come without a width.
    empty = model.ops.alloc2f(0, module.linear.in_features + module.n_priors)
    flat = model.ops.xp.concatenate([empty, *(x for x in X if len(x))])
    states = xp2torch(flat, requires_grad=is_train)
    with torch.set_grad_enabled(is_train):
        emissions, transitions = module(states)

    def backprop(d_scores: TagScores) -> list[Floats2d]:
        d_flat = xp2torch(model.ops.xp.concatenate(d_scores.emissions))
        tensors, gradients = [emissions], [d_flat]
        if transitions.requires_grad:
            tensors.append(transitions)
            gradients.append(xp2torch(d_scores.transitions))
        torch.autograd.backward(tensors, gradients)
        return split_by_counts(torch2xp(cast(Any, states.grad)), counts)

    scores = TagScores(
        split_by_counts(torch2xp(emissions.detach()), counts),
        cast(Floats2d, torch2xp(transitions.detach())),
    )
    return scores, backprop

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
from typing import Any, cast

import torch
from spacy.tokens import Doc
from thinc.api import Model, chain, torch2xp, xp2torch
from thinc.types import Floats2d
from torch import Tensor, nn

from .bridge import Settings, TorchShim, prepare_module, torch_shim
from .knowledge import compute_tag_priors

# No postponed annotations here: spaCy reads those of architectures at run time.


# Low enough to forbid a step, high enough that sums of several stay finite in fp32.
ILLEGAL = -1e4


def find_legal_steps(tags: Sequence[str]) -> Tensor:
    """Boolean (tags + 1, tags + 1): which BIO steps are legal, boundary last."""
    names = [*tags, ""]
    rows = [
        [not after.startswith("I-") or before in ("B" + after[1:], after) for after in names]
        for before in names
    ]
    return torch.tensor(rows)


def compute_forward(
    emissions: Tensor, lengths: Tensor, transitions: Tensor
) -> tuple[Tensor, Tensor]:
    """Forward scores (batch, tokens, tags), which hold the emission of their own token, and log Z
    (batch,). Lengths must be at least 1."""
    steps = transitions[:-1, :-1]
    rows = [transitions[-1, :-1] + emissions[:, 0]]
    for t in range(1, emissions.shape[1]):
        rows.append(torch.logsumexp(rows[-1].unsqueeze(2) + steps, dim=1) + emissions[:, t])
    forward = torch.stack(rows, dim=1)
    last = forward[torch.arange(len(lengths)), lengths - 1]
    return forward, torch.logsumexp(last + transitions[:-1, -1], dim=1)


def compute_log_marginals(
    emissions: Tensor, lengths: Tensor, transitions: Tensor
) -> tuple[Tensor, Tensor]:
    """log P(tag of token t | sentence), (batch, tokens, tags), without meaning past a sequence's
    length, and log Z (batch,)."""
    steps = transitions[:-1, :-1]
    forward, log_z = compute_forward(emissions, lengths, transitions)
    ends = transitions[:-1, -1]
    rows = [ends.expand(len(emissions), -1)]
    for t in range(emissions.shape[1] - 2, -1, -1):
        after = emissions[:, t + 1] + rows[-1]
        inner = torch.logsumexp(steps + after.unsqueeze(1), dim=2)
        rows.append(torch.where((lengths - 1 <= t).unsqueeze(1), ends, inner))
    return forward + torch.stack(rows[::-1], dim=1) - log_z.view(-1, 1, 1), log_z


def score_spans(
    emissions: Tensor,
    lengths: Tensor,
    transitions: Tensor,
    log_z: Tensor,
    spans: Sequence[tuple[int, int, int, int]],
) -> Tensor:
    """log P(the tokens [start, end) form exactly one mention | sentence) of each span, (spans,):
    what is left of Z when no other tags are allowed there.

    spans: (sentence, start, end, index of the label's B- tag) each, at least one. Its I- tag comes
    next.
    """
    rows = [row for row, *_ in spans]
    barred = torch.zeros(len(spans), *emissions.shape[1:], dtype=torch.bool)
    for one, (_, start, end, begin) in zip(barred, spans, strict=True):
        one[start:end] = True
        one[start, begin] = False
        one[start + 1 : end, begin + 1] = False
        one[end : end + 1, begin + 1] = True  # a mention that goes on is another one
    agreeing = emissions[rows].masked_fill(barred.to(emissions.device), ILLEGAL)
    _, agreeing_log_z = compute_forward(agreeing, lengths[rows], transitions)
    return (agreeing_log_z - log_z[rows]).clamp(max=0.0)


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
        return [cast(Any, torch2xp(part)) for part in cast(Tensor, states.grad).split(counts)]

    scores = TagScores(
        [cast(Any, torch2xp(part)) for part in emissions.detach().split(counts)],
        cast(Floats2d, torch2xp(transitions.detach())),
    )
    return scores, backprop

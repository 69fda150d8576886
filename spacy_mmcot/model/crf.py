"""A linear-chain conditional random field over BIO tags: partition, marginals, best path.

Everything here is a function of `emissions` (batch, tokens, tags), `lengths` (batch,) and one
score matrix `transitions` (tags + 1, tags + 1) in log space, whose last row and column stand for
the boundary of the sequence: transitions[-1, j] starts in tag j, transitions[i, -1] ends in tag i.
Illegal steps score ILLEGAL, so no path, marginal or span score gives them weight.

Sources: Lafferty, McCallum and Pereira (2001) for the model; Rabiner (1989) for
forward-backward and Viterbi.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Low enough to forbid a step, high enough that sums of several stay finite in fp32.
ILLEGAL = -1e4
# The largest difference of log scores whose probabilities still add up in double precision.
_MAX_SPREAD = 700.0

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
    return _forward(*field, lambda alpha: torch.logsumexp(alpha.unsqueeze(2) + steps, dim=1))


def compute_lattice(emissions: Tensor, lengths: Tensor, transitions: Tensor) -> Lattice:
    """Forward and backward scores. Positions past a sequence's length have no meaning.

    Without gradients a step is a matrix product of probabilities, relative to the best tag of the
    token, in double precision: 2 to 20 times as fast, the more with many tags. What no path reaches
    then scores -inf.
    """
    learning = emissions.requires_grad or transitions.requires_grad
    if learning or _spread(emissions, transitions) >= _MAX_SPREAD:
        field, steps = (emissions, lengths, transitions), transitions[:-1, :-1]
        forward, log_z = compute_forward(*field)
        backward = _backward(*field, lambda b: torch.logsumexp(steps + b.unsqueeze(1), dim=2))
        return Lattice(forward, backward, log_z)
    field = emissions.double(), lengths, transitions.double()
    chances = field[2][:-1, :-1].exp()
    forward, log_z = _forward(*field, lambda alpha: _log_product(alpha, chances))
    backward = _backward(*field, lambda beta: _log_product(beta, chances.T))
    return Lattice(*(part.to(emissions.dtype) for part in (forward, backward, log_z)))


def _forward(
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


def _backward(emissions: Tensor, lengths: Tensor, transitions: Tensor, step: Step) -> Tensor:
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


def _log_product(scores: Tensor, steps: Tensor) -> Tensor:
    """log(exp(scores) @ steps), (batch, tags). scores: (batch, tags); steps: (tags, tags)."""
    top = scores.amax(dim=1, keepdim=True)
    return torch.log((scores - top).exp() @ steps) + top


def _spread(emissions: Tensor, transitions: Tensor) -> float:
    """An upper bound on the difference of the forward or backward scores of two tags of one token
    that a path can reach. Two steps connect any tags: an I tag follows its B tag alone, which
    follows all."""
    legal = transitions[transitions > ILLEGAL / 2]
    tokens = emissions.amax(dim=2) - emissions.amin(dim=2)
    return 2 * float(tokens.max() + legal.max() - legal.min())


def compute_log_marginals(scores: Lattice) -> Tensor:
    """log P(tag of token t | sentence), (batch, tokens, tags)."""
    return scores.forward + scores.backward - scores.log_z.view(-1, 1, 1)


def find_best_paths(emissions: Tensor, lengths: Tensor, transitions: Tensor) -> list[list[int]]:
    """Viterbi: the best tag sequence of each sentence, always a legal one."""
    # Tags first: the maximum over the first dimension is several times faster.
    emitted = emissions.permute(1, 2, 0).contiguous()
    steps = transitions[:-1, :-1].unsqueeze(2)
    score = transitions[-1, :-1].unsqueeze(1) + emitted[0]
    scores = [score]
    for row in emitted[1:]:
        score = (score.unsqueeze(1) + steps).amax(dim=0) + row
        scores.append(score)
    table = torch.stack(scores).permute(0, 2, 1).contiguous()
    last = table[lengths - 1, torch.arange(len(lengths))] + transitions[:-1, -1]
    tag = last.argmax(dim=1)
    # Backwards from the batch's last token; a shorter sentence starts at its own last token.
    into = transitions[:-1, :-1].T.contiguous()
    tags = [tag]
    for t in range(len(table) - 2, -1, -1):
        before = (table[t] + into[tag]).argmax(dim=1)
        tag = torch.where(t < lengths - 1, before, tag)
        tags.append(tag)
    paths = torch.stack(tags[::-1], dim=1).cpu().numpy()
    return [path[:n].tolist() for path, n in zip(paths, lengths.cpu().numpy(), strict=True)]


def score_paths(
    emissions: Tensor, lengths: Tensor, transitions: Tensor, paths: Sequence[Sequence[int]]
) -> Tensor:
    """The score of one tag sequence of each sentence, (batch,); minus log Z it is the sequence's
    log probability."""
    boundary, n_tokens = len(transitions) - 1, emissions.shape[1]
    rows = [[*path, *[boundary] * (n_tokens - len(path))] for path in paths]
    tags = torch.tensor(rows, device=emissions.device)
    edge = tags.new_full((len(rows), 1), boundary)
    steps = transitions[torch.cat([edge, tags], dim=1), torch.cat([tags, edge], dim=1)]
    position = torch.arange(n_tokens + 1, device=emissions.device)
    inside = position[:-1] < lengths.unsqueeze(1)
    emitted = emissions.gather(2, (tags * inside).unsqueeze(2)).squeeze(2)
    return (emitted * inside).sum(dim=1) + (steps * (position <= lengths.unsqueeze(1))).sum(dim=1)


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


def score_stretches(
    scores: Lattice,
    emissions: Tensor,
    lengths: Tensor,
    transitions: Tensor,
    paths: Sequence[Sequence[int]],
    stretches: Sequence[tuple[int, int, int]],
) -> Tensor:
    """log P(the tokens [start, end) have the path's tags | sentence) of each stretch, (stretches,),
    summed over all tag sequences that agree with the path there.

    paths: one of each sentence. stretches: (sentence, start, end) each.
    """
    n_tokens = emissions.shape[1]
    rows = [[*path, *[0] * (n_tokens - len(path))] for path in paths]
    tags = torch.tensor(rows, device=emissions.device)
    # In double precision, since differences of long sums lose digits.
    sums = emissions.double().gather(2, tags.unsqueeze(2)).squeeze(2)
    sums[:, 1:] += transitions[tags[:, :-1], tags[:, 1:]]
    sums = sums.cumsum(dim=1)
    columns = torch.tensor(stretches, device=emissions.device, dtype=torch.long).reshape(-1, 3)
    row, start, end = columns.unbind(dim=1)
    last = end - 1
    inside = sums[row, last] - sums[row, start]
    before = scores.forward[row, start, tags[row, start]] - scores.log_z[row]
    return (before + inside + scores.backward[row, last, tags[row, last]]).clamp(max=0.0)

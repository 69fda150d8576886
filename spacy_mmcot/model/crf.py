"""A linear-chain conditional random field over BIO tags: partition, marginals, best path.

Everything here is a function of `emissions` (batch, tokens, tags), `lengths` (batch,) and one
score matrix `transitions` (tags + 1, tags + 1) in log space, whose last row and column stand for
the boundary of the sequence: transitions[-1, j] starts in tag j, transitions[i, -1] ends in tag i.
Illegal steps score ILLEGAL, so no path, marginal or span score gives them weight.

Sources: Lafferty, McCallum and Pereira (2001) for the model; Rabiner (1989) for
forward-backward and Viterbi.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Low enough to bar a step, high enough that sums of a few stay finite in fp32.
ILLEGAL = -1e4


class Lattice(NamedTuple):
    """Forward and backward scores, (batch, tokens, tags) each, and log Z, (batch,).

    `forward` holds the emission of its own token, `backward` does not.
    """

    forward: Tensor
    backward: Tensor
    log_z: Tensor


def legal_steps(tags: Sequence[str]) -> Tensor:
    """Boolean (tags + 1, tags + 1): which BIO steps are legal, boundary last."""
    names = [*tags, ""]
    legal = torch.ones(len(names), len(names), dtype=torch.bool)
    for j, after in enumerate(names):
        if after.startswith("I-"):
            for i, before in enumerate(names):
                legal[i, j] = before[:2] in ("B-", "I-") and before[2:] == after[2:]
    return legal


def forward_scores(
    emissions: Tensor, lengths: Tensor, transitions: Tensor
) -> tuple[Tensor, Tensor]:
    """Forward scores (batch, tokens, tags) and log Z (batch,). Lengths must be at least 1."""
    steps = transitions[:-1, :-1]
    alpha = transitions[-1, :-1] + emissions[:, 0]
    rows = [alpha]
    for t in range(1, emissions.shape[1]):
        alpha = torch.logsumexp(alpha.unsqueeze(2) + steps, dim=1) + emissions[:, t]
        rows.append(alpha)
    forward = torch.stack(rows, dim=1)
    last = forward[torch.arange(len(lengths)), lengths - 1]
    return forward, torch.logsumexp(last + transitions[:-1, -1], dim=1)


def lattice(emissions: Tensor, lengths: Tensor, transitions: Tensor) -> Lattice:
    """Forward and backward scores. Positions past a sequence's length hold no meaning."""
    forward, log_z = forward_scores(emissions, lengths, transitions)
    steps, ends = transitions[:-1, :-1], transitions[:-1, -1]
    n_tokens = emissions.shape[1]
    beta = ends.expand(len(emissions), -1)
    rows = [beta]
    for t in range(n_tokens - 2, -1, -1):
        inner = torch.logsumexp(steps + (emissions[:, t + 1] + beta).unsqueeze(1), dim=2)
        beta = torch.where((lengths - 1 <= t).unsqueeze(1), ends, inner)
        rows.append(beta)
    return Lattice(forward, torch.stack(rows[::-1], dim=1), log_z)


def log_marginals(scores: Lattice) -> Tensor:
    """log P(tag of token t | sentence), (batch, tokens, tags)."""
    return scores.forward + scores.backward - scores.log_z.view(-1, 1, 1)


def best_paths(emissions: Tensor, lengths: Tensor, transitions: Tensor) -> list[list[int]]:
    """Viterbi: the best tag sequence of each sentence, always a legal one."""
    steps = transitions[:-1, :-1]
    score = transitions[-1, :-1] + emissions[:, 0]
    scores, pointers = [score], []
    for t in range(1, emissions.shape[1]):
        best, pointer = (score.unsqueeze(2) + steps).max(dim=1)
        score = best + emissions[:, t]
        scores.append(score)
        pointers.append(pointer)
    table = torch.stack(scores, dim=1)
    last = table[torch.arange(len(lengths)), lengths - 1] + transitions[:-1, -1]
    tag = last.argmax(dim=1)
    # From the batch's last token backwards; a shorter sentence joins at its own last token.
    tags = [tag]
    for t in range(len(pointers) - 1, -1, -1):
        before = pointers[t].gather(1, tag.unsqueeze(1)).squeeze(1)
        tag = torch.where(t < lengths - 1, before, tag)
        tags.append(tag)
    paths = torch.stack(tags[::-1], dim=1).cpu().numpy()
    return [path[:n].tolist() for path, n in zip(paths, lengths.cpu().numpy(), strict=True)]


def path_scores(
    emissions: Tensor, lengths: Tensor, transitions: Tensor, paths: Sequence[Sequence[int]]
) -> Tensor:
    """The score of one tag sequence of each sentence, (batch,); less log Z it is the sequence's
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


def span_log_probabilities(
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
    # In double precision: the difference of two long sums is short.
    sums = emissions.double().cumsum(dim=1)
    emitted = sums[row, end - 1, inside] - sums[row, start, inside]
    steps = (longer > 0) * transitions[begin, inside]
    steps = steps + (longer - 1).clamp(min=0) * transitions[inside, inside]
    last = torch.where(longer > 0, inside, begin)
    # What may follow: any tag but the one that would make the mention longer, or the end.
    after = end.clamp(max=emissions.shape[1] - 1)
    exits = transitions[last, :-1] + emissions[row, after] + scores.backward[row, after]
    exits = exits.scatter(1, inside.unsqueeze(1), -torch.inf)
    ends = end == lengths[row]
    closed = torch.where(ends, transitions[last, -1], torch.logsumexp(exits, dim=1))
    total = scores.forward[row, start, begin] + emitted + steps + closed - scores.log_z[row]
    return total.clamp(max=0.0)

"""What the student learns from: gold labels, complete or not, and a teacher's distributions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..model.crf import ILLEGAL, forward_scores, lattice, log_marginals


class Losses(NamedTuple):
    """Scalars: the two losses, not yet weighed."""

    gold: Tensor
    soft: Tensor


def tag_losses(
    emissions: Tensor,
    lengths: Tensor,
    transitions: Tensor,
    allowed: Tensor,
    labelled: Tensor,
    soft: Tensor,
    taught: Tensor,
    *,
    crf: bool,
) -> Losses:
    """The losses of a padded batch.

    emissions: (batch, tokens, tags); lengths: (batch,); transitions: (tags + 1, tags + 1).
    allowed: boolean (batch, tokens, tags), the tags that the gold annotation leaves open: one for
        a labelled token, all of them for one whose annotation is missing.
    labelled: boolean (batch, tokens), where the annotation is not missing.
    soft: (batch, tokens, tags), the teacher's distributions; taught: boolean (batch, tokens),
        where there are any.

    gold is the negative log likelihood of all tag sequences that the annotation leaves open, a
    labelled token (for a softmax head: the cross-entropy of each labelled token). soft is the
    mean over taught tokens of the cross-entropy between the teacher's distribution and the
    student's marginal (posterior distillation: Wang et al., ACL 2020, "Structure-level knowledge
    distillation for multilingual sequence labeling"). Both are 0 where there is nothing to learn
    from.
    """
    n_labelled = labelled.sum().clamp(min=1)
    if not crf:
        log_probabilities = torch.log_softmax(emissions, dim=-1)
        picked = log_probabilities.masked_fill(~allowed, ILLEGAL).logsumexp(-1)
        gold = -(picked * labelled).sum() / n_labelled
    else:
        scores = lattice(emissions, lengths, transitions)
        open_emissions = emissions.masked_fill(~allowed, ILLEGAL)
        _, open_log_z = forward_scores(open_emissions, lengths, transitions)
        any_labelled = labelled.any(dim=1)
        gold = ((scores.log_z - open_log_z) * any_labelled).sum() / n_labelled
        log_probabilities = log_marginals(scores)
    # The teacher's mass on a tag that the structure rules out is rounding noise, and must not drown
    # the rest.
    possible = log_probabilities > ILLEGAL / 2
    cross_entropy = -(soft * log_probabilities.where(possible, 0.0)).sum(-1)
    return Losses(gold, (cross_entropy * taught).sum() / taught.sum().clamp(min=1))


def pair_losses(
    logits: Tensor,
    gold: Tensor,
    soft: Tensor,
    taught: Tensor,
    *,
    log_prior: Tensor | None = None,
) -> Losses:
    """The losses of a batch's pairs.

    logits: (pairs, labels), -inf where a label is illegal. gold: (pairs,), the label's index, -1
    where nobody judged the pair. soft: (pairs, labels), the teacher's distributions; taught:
    boolean (pairs,), where there are any. log_prior: (labels,), added to the logits for the gold
    loss, so that they need not learn how frequent a label is; a teacher's distributions come from
    logits without it.

    Both are means of cross-entropies over the pairs that they speak of, 0 where there are none.
    """
    judged = gold >= 0
    adjusted = logits if log_prior is None else logits + log_prior
    index = gold.clamp(min=0).unsqueeze(1)
    picked = torch.log_softmax(adjusted, dim=-1).gather(1, index).squeeze(1)
    gold_loss = -picked.where(judged, 0.0).sum() / judged.sum().clamp(min=1)
    log_probabilities = torch.log_softmax(logits, dim=-1)
    possible = log_probabilities.isfinite()
    cross_entropy = -(soft * log_probabilities.where(possible, 0.0)).sum(-1)
    return Losses(gold_loss, cross_entropy.where(taught, 0.0).sum() / taught.sum().clamp(min=1))

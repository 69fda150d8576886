"""Losses against gold labels, complete or partial, and against soft labels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..model.crf import ILLEGAL, compute_forward, compute_lattice, compute_log_marginals


class Losses(NamedTuple):
    """Scalar tensors: the two losses, not yet weighted; 0 where there is nothing to learn from."""

    gold: Tensor
    soft: Tensor


def tag_losses(
    emissions: Tensor,
    lengths: Tensor,
    transitions: Tensor,
    allowed: Tensor,
    has_gold: Tensor,
    soft: Tensor,
    has_soft: Tensor,
    *,
    crf: bool,
) -> Losses:
    """The losses of a padded batch.

    emissions: (docs, tokens, tags); lengths: (docs,); transitions: (tags + 1, tags + 1).
    allowed: bool (docs, tokens, tags), the tags that agree with the gold annotation: one for an
        annotated token, all for one whose annotation is missing.
    has_gold: bool (docs, tokens), where a token is annotated.
    soft: (docs, tokens, tags), soft labels; has_soft: bool (docs, tokens), where there are any.

    gold is the negative log likelihood of all tag sequences that agree with the annotation, per
    annotated token (for a softmax head: the mean cross-entropy of annotated tokens). soft is the
    mean cross-entropy between soft labels and the student's marginals over the tokens that have
    soft labels (posterior distillation: Wang et al., ACL 2020, "Structure-level knowledge
    distillation for multilingual sequence labeling").
    """
    n_gold = has_gold.sum().clamp(min=1)
    if not crf:
        log_probabilities = torch.log_softmax(emissions, dim=-1)
        picked = log_probabilities.masked_fill(~allowed, ILLEGAL).logsumexp(-1)
        gold = -(picked * has_gold).sum() / n_gold
    else:
        scores = compute_lattice(emissions, lengths, transitions)
        agreeing = emissions.masked_fill(~allowed, ILLEGAL)
        _, agreeing_log_z = compute_forward(agreeing, lengths, transitions)
        gold = ((scores.log_z - agreeing_log_z) * has_gold.any(dim=1)).sum() / n_gold
        log_probabilities = compute_log_marginals(scores)
    # A teacher's mass on a tag that the structure rules out is rounding noise; times a log
    # probability of ILLEGAL it would outweigh all other terms.
    possible = log_probabilities > ILLEGAL / 2
    cross_entropy = -(soft * log_probabilities.where(possible, 0.0)).sum(-1)
    return Losses(gold, (cross_entropy * has_soft).sum() / has_soft.sum().clamp(min=1))


def pair_losses(
    logits: Tensor,
    gold: Tensor,
    soft: Tensor,
    has_soft: Tensor,
    *,
    log_prior: Tensor | None = None,
) -> Losses:
    """The losses of a batch's mention pairs: mean cross-entropies over the pairs that have gold or
    soft labels.

    logits: (pairs, labels), -inf where a label is illegal.
    gold: int (pairs,), the label's index, -1 where nobody judged the pair.
    soft: (pairs, labels), soft labels; has_soft: bool (pairs,), where there are any.
    log_prior: (labels,), added to the logits for the gold loss, so that they do not learn how
        frequent a label is. Not for the soft loss: a teacher predicts without it.
    """
    judged = gold >= 0
    adjusted = logits if log_prior is None else logits + log_prior
    index = gold.clamp(min=0).unsqueeze(1)
    picked = torch.log_softmax(adjusted, dim=-1).gather(1, index).squeeze(1)
    gold_loss = -picked.where(judged, 0.0).sum() / judged.sum().clamp(min=1)
    log_probabilities = torch.log_softmax(logits, dim=-1)
    possible = log_probabilities.isfinite()
    cross_entropy = -(soft * log_probabilities.where(possible, 0.0)).sum(-1)
    soft_loss = cross_entropy.where(has_soft, 0.0).sum() / has_soft.sum().clamp(min=1)
    return Losses(gold_loss, soft_loss)

"""Soft labels on a Doc, probabilities of the BIO tags of each token and of the relation labels of
each pair of mentions, and the losses that learn from them and from gold labels.

Training reads them from here, whoever wrote them: `teach` does, and anything else may that knows
probabilities. All values serialise with msgpack.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from spacy.tokens import Doc
from torch import Tensor

from ..errors import Errors, MMCoTError
from ..model.tagger import ILLEGAL, compute_forward, compute_log_marginals, score_spans
from ..types import NO_RELATION, SOFT_LABELS_KEY, SOFT_RELATIONS_KEY, digest_text


class SoftTags(NamedTuple):
    """The tag probabilities of one Doc's tokens: (tokens, tags)."""

    tags: list[str]
    probabilities: NDArray[numpy.float32]


def list_tags(labels: Iterable[str]) -> list[str]:
    """The BIO tags of the labels: O, then B and I of each label in alphabetical order."""
    return ["O", *(f"{prefix}-{label}" for label in sorted(labels) for prefix in "BI")]


def set_soft_labels(doc: Doc, tags: Sequence[str], probabilities: NDArray) -> None:
    """Write tag probabilities, (tokens, tags), onto the Doc as 16-bit floats: 18 bytes a token for
    four labels, and far less once a DocBin has compressed the near one-hot rows."""
    doc.user_data[SOFT_LABELS_KEY] = {
        "tags": list(tags),
        "text": digest_text(doc.text),
        "probabilities": numpy.asarray(probabilities, dtype="float16").tobytes(),
    }


def get_soft_tags(doc: Doc) -> list[str]:
    """The tags of the Doc's soft labels, [] where it has none."""
    entry = doc.user_data.get(SOFT_LABELS_KEY)
    return list(entry["tags"]) if entry else []


def get_soft_labels(doc: Doc, tags: Sequence[str]) -> NDArray[numpy.float32] | None:
    """The Doc's tag probabilities, (tokens, tags), in the order of `tags`; each row sums to 1,
    or is 0 for a token that nothing is known of. None where it has none.

    Raises MMCoTError where they cover a tag that is not in `tags`, or another text or number of
    tokens.
    """
    entry: dict[str, Any] | None = doc.user_data.get(SOFT_LABELS_KEY)
    if not entry:
        return None
    known = list(entry["tags"])
    stored = numpy.frombuffer(entry["probabilities"], dtype="float16")
    if stored.size != len(doc) * len(known):
        rows = stored.size // max(1, len(known))
        raise MMCoTError(Errors.E501.format(rows=rows, tokens=len(doc)))
    _check_text(entry, doc)
    return _reorder(stored, known, tags)


class SoftRelations(NamedTuple):
    """The label probabilities of a Doc's mention pairs."""

    labels: list[str]  # without that of no relation
    mentions: list[tuple[int, int, str]]  # start, end, label, in characters, end exclusive
    pairs: NDArray[numpy.int64]  # (pairs, 2): head and tail, indexes into mentions
    probabilities: NDArray[numpy.float32]  # (pairs, 1 + labels): the first column is no relation

    def index_rows(self) -> dict[tuple[int, int, int, int], int]:
        """The row of each pair, by the character offsets of head and tail."""
        return {
            (*self.mentions[head][:2], *self.mentions[tail][:2]): row
            for row, (head, tail) in enumerate(self.pairs.tolist())
        }


def set_soft_relations(doc: Doc, soft: SoftRelations) -> None:
    """Write the pairs' probabilities onto the Doc, as 16-bit floats."""
    doc.user_data[SOFT_RELATIONS_KEY] = {
        "labels": list(soft.labels),
        "text": digest_text(doc.text),
        "mentions": [list(mention) for mention in soft.mentions],
        "pairs": soft.pairs.astype("int32").tobytes(),
        "probabilities": numpy.asarray(soft.probabilities, dtype="float16").tobytes(),
    }


def get_soft_relations(doc: Doc, labels: Sequence[str] | None = None) -> SoftRelations | None:
    """The Doc's soft relations, columns in the order of `labels` (None: as stored); each row sums
    to 1. None where it has none.

    Raises MMCoTError where they cover a label that is not in `labels`, or another text.
    """
    entry: dict[str, Any] | None = doc.user_data.get(SOFT_RELATIONS_KEY)
    if not entry:
        return None
    _check_text(entry, doc)
    known = list(entry["labels"])
    labels = known if labels is None else list(labels)
    pairs = numpy.frombuffer(entry["pairs"], dtype="int32").reshape(-1, 2).astype("int64")
    stored = numpy.frombuffer(entry["probabilities"], dtype="float16")
    probabilities = _reorder(stored, [NO_RELATION, *known], [NO_RELATION, *labels])
    mentions = [(start, end, label) for start, end, label in entry["mentions"]]
    return SoftRelations(labels, mentions, pairs, probabilities)


def _check_text(entry: dict[str, Any], doc: Doc) -> None:
    """Raises MMCoTError for soft labels of another text, such as one that this was cut from."""
    if entry["text"] != digest_text(doc.text):
        raise MMCoTError(Errors.E514.format(text=doc.text[:60]))


def _reorder(
    stored: NDArray[numpy.float16], known: Sequence[str], wanted: Sequence[str]
) -> NDArray[numpy.float32]:
    """(rows, wanted): flat probabilities of the `known` columns in the order of `wanted`, 0 for
    columns that are not stored; rows sum to 1 again, which 16-bit floats had rounded away. Raises
    MMCoTError for a known column that is not wanted."""
    if unknown := sorted(set(known) - set(wanted)):
        allowed = [name for name in wanted if name != NO_RELATION]
        raise MMCoTError(Errors.E500.format(unknown=unknown, allowed=allowed))
    rows = stored.astype("float32").reshape(-1, len(known))
    probabilities = numpy.zeros((len(rows), len(wanted)), dtype="float32")
    probabilities[:, [wanted.index(column) for column in known]] = rows
    return probabilities / probabilities.sum(axis=1, keepdims=True).clip(min=1e-6)


class Losses(NamedTuple):
    """Scalar tensors: the two losses, not yet weighted; 0 where there is nothing to learn from."""

    gold: Tensor
    soft: Tensor


def tag_losses(
    emissions: Tensor,
    lengths: Tensor,
    transitions: Tensor,
    allowed: Tensor,
    soft: Tensor,
    *,
    rejected: Sequence[tuple[int, int, int, int]] = (),
    crf: bool,
) -> Losses:
    """The losses of a padded batch.

    emissions: (docs, tokens, tags); lengths: (docs,); transitions: (tags + 1, tags + 1).
    allowed: bool (docs, tokens, tags), the tags that agree with the gold annotation: one for an
        annotated token, all for one whose annotation is missing.
    soft: (docs, tokens, tags), soft labels, 0 for a token without.
    rejected: (doc, start, end, index of the B tag) of each span that is no mention of that label.

    gold is the negative log likelihood of all tag sequences that agree with the annotation, per
    annotated token (for a softmax head: the mean cross-entropy of annotated tokens). A rejected
    span adds minus the log probability that it is none, and counts as one token. soft is the
    mean cross-entropy between soft labels and the student's marginals over the tokens that have
    soft labels (posterior distillation: Wang et al., ACL 2020, "Structure-level knowledge
    distillation for multilingual sequence labeling").
    """
    has_gold = ~allowed.all(dim=-1)
    if crf:
        log_probabilities, log_z = compute_log_marginals(emissions, lengths, transitions)
    else:
        log_probabilities = torch.log_softmax(emissions, dim=-1)
    agreeing = emissions.masked_fill(~allowed, ILLEGAL)
    if crf or rejected:
        _, agreeing_log_z = compute_forward(agreeing, lengths, transitions)
    if crf:
        gold = ((log_z - agreeing_log_z) * has_gold.any(dim=1)).sum()
    else:
        picked = log_probabilities.masked_fill(~allowed, ILLEGAL).logsumexp(-1)
        gold = -(picked * has_gold).sum()
    if rejected:
        chances = score_spans(agreeing, lengths, transitions, agreeing_log_z, rejected).exp()
        gold = gold - torch.log1p(-chances.clamp(max=1 - 1e-6)).sum()
    n_gold = (has_gold.sum() + len(rejected)).clamp(min=1)
    return Losses(gold / n_gold, _soft_loss(log_probabilities, soft))


def pair_losses(
    logits: Tensor, gold: Tensor, soft: Tensor, *, log_prior: Tensor | None = None
) -> Losses:
    """The losses of a batch's mention pairs: mean cross-entropies over the pairs that have gold or
    soft labels.

    logits: (pairs, labels), -inf where a label is illegal.
    gold: int (pairs,), the label's index, -1 where nobody judged the pair.
    soft: (pairs, labels), soft labels, 0 for a pair without.
    log_prior: (labels,), added to the logits for the gold loss, so that they do not learn how
        frequent a label is. Not for the soft loss: a teacher predicts without it.
    """
    judged = gold >= 0
    adjusted = logits if log_prior is None else logits + log_prior
    picked = torch.log_softmax(adjusted, dim=-1).gather(1, gold.clamp(min=0).unsqueeze(1))
    gold_loss = -picked.squeeze(1).where(judged, 0.0).sum() / judged.sum().clamp(min=1)
    return Losses(gold_loss, _soft_loss(torch.log_softmax(logits, dim=-1), soft))


def _soft_loss(log_probabilities: Tensor, soft: Tensor) -> Tensor:
    """The mean cross-entropy over what has soft labels. Both: (..., labels)."""
    # A teacher's mass on an illegal label is rounding noise; times the label's log probability it
    # would outweigh all other terms.
    possible = log_probabilities > ILLEGAL / 2
    cross_entropy = -(soft * log_probabilities.where(possible, 0.0)).sum(-1)
    return cross_entropy.sum() / soft.any(dim=-1).sum().clamp(min=1)

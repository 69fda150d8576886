"""Prompt vectors that an encoder reads before its word pieces.

A static prompt is learned, a conditional one is computed from the text; either can be trained
towards what the teacher knows (the prompt's regression). A visual prompt is computed from the
text and a picture; its attention over the picture's patches is kept on the Doc on request. The
words of a picture are a prompt of their own.

Sources: conditional prompt distillation and visual-text alignment, arXiv 2306.14122. The form of
the alignment is our own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy
import torch
from spacy.tokens import Doc
from spacy_transformers.data_classes import FullTransformerBatch, TransformerData
from torch import Tensor, nn
from torch.nn import functional

from ..errors import Errors, MMCoTError
from ..types import ALIGNMENT_KEY, PROMPT_TARGET_KEY, digest_text
from .bridge import list_starts

PromptKind = Literal["none", "static", "conditional"]
# Units of the conditional prompt's bottleneck.
HIDDEN = 128


class ConditionalPrompt(nn.Module):
    """`length` prompt vectors from the mean of the text's word embeddings, through a bottleneck."""

    def __init__(self, width: int, length: int):
        super().__init__()
        self.down = nn.Linear(width, HIDDEN)
        self.up = nn.Linear(HIDDEN, length * width)
        nn.init.normal_(self.up.weight, std=0.02)
        nn.init.normal_(self.up.bias, std=0.02)

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """embeddings: (windows, pieces, width), word embeddings; mask: (windows, pieces), 1 at the
        text's pieces. Returns (windows, length, width)."""
        prompt = self.up(torch.tanh(self.down(_masked_mean(embeddings, mask))))
        return prompt.unflatten(1, (-1, embeddings.shape[-1]))


class StaticPrompt(nn.Module):
    """`length` learned vectors, the same for every text: the control for ConditionalPrompt."""

    def __init__(self, width: int, length: int):
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(length, width) * 0.02)

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Shapes as in ConditionalPrompt."""
        return self.vectors.expand(len(embeddings), -1, -1)


def compute_regression_loss(prompts: Sequence[Tensor], docs: Sequence[Doc]) -> Tensor | None:
    """Mean of 1 - cosine between prompts and knowledge targets over all windows whose Doc has a
    target (see distillation/teach.py); None without any.

    prompts: a window's (length, width), projected from its last-layer states; docs: its Doc.
    Raises MMCoTError for a target of another size.
    """
    losses = []
    for prompt, doc in zip(prompts, docs, strict=True):
        entry: Any = doc.user_data.get(PROMPT_TARGET_KEY)
        if entry is None or entry["text"] != digest_text(doc.text):
            continue  # no target, or that of the Doc from which this one was cut
        target = numpy.frombuffer(entry["vectors"], dtype="float16").astype("float32")
        if target.size != prompt.numel():
            length, width = prompt.shape
            raise MMCoTError(Errors.E503.format(found=target.size, length=length, width=width))
        vectors = torch.from_numpy(target).to(prompt.device).view(prompt.shape)
        losses.append(1 - torch.cosine_similarity(prompt, vectors, dim=-1).mean())
    return torch.stack(losses).mean() if losses else None


class VisualPrompts(NamedTuple):
    """Visual prompts of windows, and what a second look at their pictures needs."""

    vectors: Tensor  # (windows, length, width): the prompts, multiplied by the gate
    gate: Tensor  # (windows,): 0 to 1, how much the picture counts
    keys: Tensor  # (windows, patches + 1, hidden): attention keys; the last stands for no patch
    values: Tensor  # (windows, patches, hidden): attention values


class PatchNorm(nn.BatchNorm1d):
    """Standardises each feature over the pictures of a batch, in training, and by running means at
    inference. A norm of each patch by itself would keep what all pictures have in common, which
    grows first in training and then hides how they differ.
    """

    def forward(self, patches: Tensor) -> Tensor:
        """patches: (pictures, patches, width). Returns the same shape."""
        features = patches.transpose(1, 2)
        if len(patches) > 1:
            return super().forward(features).transpose(1, 2)
        # A single picture has no batch statistics.
        known = functional.batch_norm(features, self.running_mean, self.running_var, eps=self.eps)
        return known.transpose(1, 2)


class Matching(nn.Module):
    """How well a text and a picture match, and the gate that it opens.

    text_width, picture_width: of the vectors of word pieces and of pictures. hidden: units in which
    they are compared. dropout: of the pictures' vectors.
    """

    def __init__(self, text_width: int, picture_width: int, hidden: int, dropout: float):
        super().__init__()
        # Which pieces tell what the text is about: names do, most other words do not.
        self.pool = nn.Linear(text_width, 1, bias=False)
        nn.init.zeros_(self.pool.weight)
        self.text = _make_projection(text_width, hidden)
        self.picture = _make_projection(picture_width, hidden, dropout)
        # From the cosine of text and picture to a logit.
        self.scale = nn.Parameter(torch.tensor([2.0]))
        self.bias = nn.Parameter(torch.zeros(1))
        # The gate starts open. Its slope is stored as a logarithm and so stays positive: a better
        # match never closes the gate.
        self.gate_scale = nn.Parameter(torch.zeros(1))
        self.gate_bias = nn.Parameter(torch.tensor([2.0]))

    def forward(self, text: Tensor, mask: Tensor, pictures: Tensor) -> Tensor:
        """text: (windows, pieces, text width); mask: (windows, pieces), 1 at the text; pictures:
        (windows, picture width). Returns the gates, (windows,)."""
        match = self._project_text(text, mask) * self._project_pictures(pictures)
        logits = self.scale * match.sum(-1) + self.bias
        # Detached, so that the task's loss does not change what counts as a match.
        return (self.gate_scale.exp() * logits.detach() + self.gate_bias).sigmoid()

    def compute_loss(self, text: Tensor, mask: Tensor, pictures: Tensor, own: Tensor) -> Tensor:
        """Binary cross-entropy of telling which texts and pictures belong together, over all
        pairs; those that do weigh as much as those that do not.

        text, mask: as in forward. pictures: (pictures, picture width), each once, at least two.
        own: (windows,), the index of each text's own.
        """
        texts = self._project_text(text, mask)
        logits = self.scale * texts @ self._project_pictures(pictures).T + self.bias
        pairs = functional.one_hot(own, len(pictures)).to(logits.dtype)
        losses = functional.binary_cross_entropy_with_logits(logits, pairs, reduction="none")
        apart = 1 - pairs
        return ((losses * pairs).sum() / pairs.sum() + (losses * apart).sum() / apart.sum()) / 2

    def _project_text(self, text: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors, (windows, hidden)."""
        scores = self.pool(text).squeeze(-1)
        weights = scores.masked_fill(mask == 0, torch.finfo(scores.dtype).min).softmax(1)
        return functional.normalize(self.text((text * weights.unsqueeze(-1)).sum(1)), dim=-1)

    def _project_pictures(self, pictures: Tensor) -> Tensor:
        """Unit vectors, (pictures, hidden)."""
        return functional.normalize(self.picture(pictures), dim=-1)


class WordPrompt(nn.Module):
    """The word pieces that a picture shows, as prompt vectors: their embeddings, marked by a
    learned vector and scaled by a gate, as in VisualPrompt.

    width: of the word embeddings. length: most pieces of a picture.
    """

    def __init__(self, width: int, length: int, hidden: int = 128):
        super().__init__()
        self.length = length
        self.norm = nn.LayerNorm(width)
        self.mark = nn.Parameter(torch.randn(width) * 0.02)
        self.matching = Matching(width, width, hidden, dropout=0.3)

    def forward(
        self, embeddings: Tensor, mask: Tensor, shown: Tensor, shown_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """embeddings, mask: as in VisualPrompt. shown: (windows, length, width), the embeddings of
        the pictures' pieces; shown_mask: (windows, length), 1 at pieces. Returns the prompts,
        (windows, length, width), and the gates, (windows,)."""
        means = _masked_mean(self.norm(shown), shown_mask)
        gate = self.matching(self.norm(embeddings), mask, means)
        return (shown + self.mark) * gate[:, None, None], gate

    def compute_matching_loss(
        self, embeddings: Tensor, mask: Tensor, shown: Tensor, shown_mask: Tensor, own: Tensor
    ) -> Tensor:
        """As in Matching; shown, shown_mask: (pictures, length, ...)."""
        means = _masked_mean(self.norm(shown), shown_mask)
        return self.matching.compute_loss(self.norm(embeddings), mask, means, own)


class VisualPrompt(nn.Module):
    """`length` prompt vectors from a picture's patches.

    Every word piece attends to the patches and to a learned key that stands for no patch. The
    prompts are weighted means of what the pieces attended to. After the encoder its states attend
    to the patches once more: `attend_again`. A gate scales both results by how well text and
    picture match, which `compute_matching_loss` trains.

    width, state_width, patch_width: of word embeddings, of the encoder's states, and of patches.
    hidden: units of attention.
    """

    def __init__(
        self, width: int, state_width: int, patch_width: int, length: int = 4, hidden: int = 128
    ):
        super().__init__()
        self.length = length
        self.text_norm = nn.LayerNorm(width)
        self.patch_norm = PatchNorm(patch_width, affine=False)
        self.query = nn.Linear(width, hidden)
        self.key = nn.Linear(patch_width, hidden)
        self.value = nn.Linear(patch_width, hidden)
        self.nothing = nn.Parameter(torch.zeros(hidden))
        self.slots = nn.Linear(2 * hidden, length, bias=False)
        self.out = nn.Linear(hidden, width)
        self.slot_bias = nn.Parameter(torch.randn(length, width) * 0.02)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)
        self.state_query = nn.Linear(state_width, hidden)
        self.state_out = nn.Linear(hidden, state_width)
        self.matching = Matching(width, patch_width, hidden, dropout=0.3)

    def forward(self, embeddings: Tensor, mask: Tensor, patches: Tensor) -> VisualPrompts:
        """embeddings: (windows, pieces, width), word embeddings; mask: (windows, pieces), 1 at the
        text's pieces; patches: (windows, patches, patch width)."""
        text = self.text_norm(embeddings)
        seen = self.patch_norm(patches)
        keys = torch.cat([self.key(seen), self.nothing.expand(len(seen), 1, -1)], dim=1)
        values = self.value(seen)
        query = self.query(text)
        views = _attention(query, keys) @ values
        slots = self.slots(torch.cat([query, views], dim=-1).tanh())
        slots = slots.masked_fill(mask.unsqueeze(-1) == 0, torch.finfo(slots.dtype).min)
        vectors = self.out(slots.softmax(1).transpose(1, 2) @ views) + self.slot_bias
        gate = self.matching(text, mask, seen.mean(1))
        return VisualPrompts(vectors * gate[:, None, None], gate, keys, values)

    def attend_again(self, states: Tensor, visual: VisualPrompts) -> tuple[Tensor, Tensor]:
        """states: (windows, pieces, state width), the encoder's. Returns what to add to them, of
        the same shape, and the attention of each piece, (windows, pieces, patches), which sums to
        at most 1 over the patches."""
        attention = _attention(self.state_query(states), visual.keys)
        return self.state_out(attention @ visual.values) * visual.gate[:, None, None], attention

    def compute_matching_loss(
        self, embeddings: Tensor, mask: Tensor, patches: Tensor, own: Tensor
    ) -> Tensor:
        """As in Matching. embeddings, mask: as in forward. patches: (pictures, patches, patch
        width), each picture once."""
        pictures = self.patch_norm(patches).mean(1)
        return self.matching.compute_loss(self.text_norm(embeddings), mask, pictures, own)


def _masked_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """The mean of the vectors where mask is 1. vectors: (windows, pieces, width); mask: (windows,
    pieces). Returns (windows, width)."""
    weights = mask.unsqueeze(-1).to(vectors.dtype)
    return (vectors * weights).sum(1) / weights.sum(1).clamp(min=1.0)


def _make_projection(width: int, hidden: int, dropout: float = 0.0) -> nn.Module:
    """Two layers from vectors of `width` to vectors of `hidden`."""
    layers = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden)
    return nn.Sequential(nn.Dropout(dropout), *layers)


def _attention(query: Tensor, keys: Tensor) -> Tensor:
    """query: (windows, pieces, hidden); keys: (windows, patches + 1, hidden). Returns the attention
    to each key but the last, (windows, pieces, patches)."""
    scores = query @ keys.transpose(1, 2) / query.shape[-1] ** 0.5
    return scores.softmax(-1)[..., :-1]


# A window's gate, 0 to 1, and its attention to its picture, (own pieces, patches).
View = tuple[float, Tensor]


@dataclass
class PromptedBatch(FullTransformerBatch):
    """A FullTransformerBatch with the attention of its windows to their pictures. The parts for
    each Doc have `token_starts`, by which `check_states` knows the tokens again.

    views: one a window, in order, None without a picture. grid: rows and columns of the patches.
    """

    views: Sequence[View | None] = ()
    grid: tuple[int, int] = (0, 0)

    def split_by_doc(self) -> list[TransformerData]:
        parts = super().split_by_doc()
        for part, spans in zip(parts, self.spans, strict=True):
            if spans:
                part.token_starts = list_starts(spans[0].doc)  # type: ignore[attr-defined]
        return parts


def make_alignment_setter() -> Callable[[list[Doc], FullTransformerBatch], None]:
    """`spacy_mmcot.alignment_setter.v1`, for `set_extra_annotations` of the `transformer`
    component: sets `doc._.mmcot_alignment` of Docs with a picture."""
    return set_alignment


def set_alignment(docs: list[Doc], batch: FullTransformerBatch) -> None:
    """Store the attention of each token to the patches on its Doc, where it has a picture."""
    if not isinstance(batch, PromptedBatch):
        return
    all_views, all_counts = iter(batch.views), iter(batch.align.lengths.tolist())
    for doc, windows in zip(docs, batch.spans, strict=True):
        counts = list(itertools.islice(all_counts, len(doc)))
        seen = [view for view in itertools.islice(all_views, len(windows)) if view is not None]
        if seen:
            gates, attentions = zip(*seen, strict=True)
            attention = torch.cat(attentions).cpu().numpy()
            starts = numpy.concatenate([[0], numpy.cumsum(counts)[:-1]])
            means = numpy.add.reduceat(attention, starts, axis=0) / numpy.array(counts)[:, None]
            doc.user_data[ALIGNMENT_KEY] = {
                "gate": float(numpy.mean(gates)),
                "grid": list(batch.grid),
                "text": digest_text(doc.text),
                "tokens": means.astype("float16").tobytes(),
            }
        else:
            doc.user_data.pop(ALIGNMENT_KEY, None)

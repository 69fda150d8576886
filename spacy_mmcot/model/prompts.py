"""Prompt vectors that stand before the word pieces, where a teacher has its knowledge.

Source of the method: conditional prompt distillation, arXiv 2306.14122.

Visual prompts: what a text sees in its picture, as vectors before the word pieces.

The attention from a text's own states to a picture's patches is the visual-text alignment named in
arXiv 2306.14122; the form it has here is our own.

Where each token looked in its doc's picture, kept with the states and, on demand, on the Doc.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy
import torch
from numpy.typing import NDArray
from spacy.tokens import Doc
from spacy_transformers.data_classes import FullTransformerBatch, TransformerData
from thinc.api import torch2xp
from thinc.types import Ragged
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutput

from ..types import ALIGNMENT_KEY


class ConditionalPrompt(nn.Module):
    """`length` prompt vectors computed from the text's own word embeddings.

    The text's mean embedding goes through a bottleneck of `hidden` units.
    """

    def __init__(self, width: int, length: int, hidden: int):
        super().__init__()
        self.length = length
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, length * width)
        nn.init.normal_(self.up.weight, std=0.02)
        nn.init.normal_(self.up.bias, std=0.02)

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """embeddings: (batch, pieces, width), the text's word embeddings; mask: (batch, pieces),
        1 at the text's pieces. Returns (batch, length, width)."""
        weights = mask.unsqueeze(-1).to(embeddings.dtype)
        mean = (embeddings * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        prompt = self.up(torch.tanh(self.down(mean)))
        return prompt.view(len(embeddings), self.length, -1)


class StaticPrompt(nn.Module):
    """`length` learned vectors, the same for every text: the control for ConditionalPrompt."""

    def __init__(self, width: int, length: int):
        super().__init__()
        self.length = length
        self.vectors = nn.Parameter(torch.randn(length, width) * 0.02)

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Shapes as in ConditionalPrompt."""
        return self.vectors.expand(len(embeddings), -1, -1)


class VisualPrompts(NamedTuple):
    """What VisualPrompt found for some windows of text and their pictures."""

    vectors: Tensor  # (windows, length, width): the prompts, the gate already applied
    gate: Tensor  # (windows,): 0 to 1, how far the picture bears on the text
    keys: Tensor  # (windows, patches + 1, hidden): what the attention compares, "nothing" last
    values: Tensor  # (windows, patches, hidden): what it takes


class PatchNorm(nn.Module):
    """Centres and scales each feature over the pictures seen in training.

    A norm of each patch by itself would keep what all pictures share, which grows first, when the
    encoder could as well do with a bias, and then hides how they differ.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False)

    def forward(self, patches: Tensor) -> Tensor:
        """patches: (pictures, patches, width). Returns the same shape."""
        # One picture says nothing of how pictures differ: it is seen as at inference.
        norm = self.norm if len(patches) > 1 else self.settled
        return norm(patches.transpose(1, 2)).transpose(1, 2)

    def settled(self, features: Tensor) -> Tensor:
        norm = self.norm
        return functional.batch_norm(features, norm.running_mean, norm.running_var, eps=norm.eps)


class VisualPrompt(nn.Module):
    """`length` prompt vectors from a picture's patches, as the text asks for them.

    Every word piece attends to the patches, or to none of them: a learned nothing takes part. The
    prompts are weighted means of what the pieces saw. After the encoder the pieces look once more,
    by then knowing their context: `look_again`. A gate scales both: it follows how well text and
    picture match, which `matching_loss` teaches.

    width: of the text's word embeddings. state_width: of the encoder's states. patch_width: of the
    patches. hidden: units of attention.
    """

    def __init__(
        self, width: int, state_width: int, patch_width: int, length: int, hidden: int = 128
    ):
        super().__init__()
        self.length = length
        self.text_norm = nn.LayerNorm(width)
        self.patch_norm = PatchNorm(patch_width)
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
        self.text_match = nn.Linear(width, hidden)
        self.patch_match = nn.Linear(patch_width, hidden)
        # Of the cosine of text and picture, to a logit.
        self.match_scale = nn.Parameter(torch.tensor([5.0]))
        self.match_bias = nn.Parameter(torch.zeros(1))
        # Open until training closes it: a picture is taken at its word. A positive slope, by its
        # logarithm: a better match never closes the gate.
        self.gate_scale = nn.Parameter(torch.zeros(1))
        self.gate_bias = nn.Parameter(torch.tensor([2.0]))

    def forward(self, embeddings: Tensor, mask: Tensor, patches: Tensor) -> VisualPrompts:
        """embeddings: (windows, pieces, width), the text's word embeddings; mask: (windows,
        pieces), 1 at the text's pieces; patches: (windows, patches, patch width)."""
        text = self.text_norm(embeddings)
        seen = self.patch_norm(patches)
        keys = torch.cat([self.key(seen), self.nothing.expand(len(seen), 1, -1)], dim=1)
        values = self.value(seen)
        query = self.query(text)
        views = _attention(query, keys) @ values
        slots = self.slots(torch.cat([query, views], dim=-1).tanh())
        slots = slots.masked_fill(mask.unsqueeze(-1) == 0, torch.finfo(slots.dtype).min)
        vectors = self.out(slots.softmax(1).transpose(1, 2) @ views) + self.slot_bias
        match = self._match(text, mask) * self._look(seen)
        logits = self.match_scale * match.sum(-1) + self.match_bias
        # The gate must not bend the match to the task's needs.
        gate = (self.gate_scale.exp() * logits.detach() + self.gate_bias).sigmoid()
        return VisualPrompts(vectors * gate[:, None, None], gate, keys, values)

    def look_again(self, states: Tensor, visual: VisualPrompts) -> tuple[Tensor, Tensor]:
        """states: (windows, pieces, state width), the encoder's. Returns what to add to them, of
        the same shape, and where each piece looked, (windows, pieces, patches), which sums to at
        most 1 over the patches."""
        attention = _attention(self.state_query(states), visual.keys)
        return self.state_out(attention @ visual.values) * visual.gate[:, None, None], attention

    def matching_loss(
        self, embeddings: Tensor, mask: Tensor, patches: Tensor, picture: Tensor
    ) -> Tensor:
        """How badly texts and pictures of a batch are told to belong together, as a binary
        cross-entropy over all pairs in which both answers weigh alike.

        embeddings, mask: as in forward. patches: (pictures, patches, patch width), each picture
        once. picture: (windows,), the index of each text's own. At least two pictures.
        """
        text = self._match(self.text_norm(embeddings), mask)
        logits = self.match_scale * text @ self._look(self.patch_norm(patches)).T + self.match_bias
        own = functional.one_hot(picture, len(patches)).to(logits.dtype)
        losses = functional.binary_cross_entropy_with_logits(logits, own, reduction="none")
        return ((losses * own).sum() / own.sum() + (losses * (1 - own)).sum() / (1 - own).sum()) / 2

    def _match(self, text: Tensor, mask: Tensor) -> Tensor:
        weights = mask.unsqueeze(-1).to(text.dtype)
        mean = (text * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return functional.normalize(self.text_match(mean), dim=-1)

    def _look(self, seen: Tensor) -> Tensor:
        return functional.normalize(self.patch_match(seen.mean(1)), dim=-1)


def _attention(query: Tensor, keys: Tensor) -> Tensor:
    """The share of each key but the last, which stands for nothing: (windows, pieces, patches)."""
    scores = query @ keys.transpose(1, 2) / query.shape[-1] ** 0.5
    return scores.softmax(-1)[..., :-1]


@dataclass
class View:
    """What one window saw in its picture."""

    gate: float  # 0 to 1, how far the picture bears on the text
    attention: Tensor  # (own pieces, patches)


@dataclass
class PromptedBatch(FullTransformerBatch):
    """A FullTransformerBatch that remembers what its windows saw.

    views: one a window, in order, None without a picture. doc_windows: how many windows a Doc
    has. token_pieces: how many word pieces a token has, Doc by Doc. grid: rows and columns of the
    patches.
    """

    views: Sequence[View | None] = ()
    doc_windows: Sequence[int] = ()
    token_pieces: Sequence[Sequence[int]] = ()
    grid: tuple[int, int] = (0, 0)

    def split_by_doc(self) -> list[TransformerData]:
        """What each Doc keeps. The base class finds each Doc's tokens by asking spaCy for every
        one of them; here their numbers are known."""
        states = torch2xp(cast(Any, self.model_output).last_hidden_state)
        result = []
        window = token = piece = 0
        for n_windows, pieces in zip(self.doc_windows, self.token_pieces, strict=True):
            if not n_windows:
                result.append(TransformerData.empty())
                continue
            windows = slice(window, window + n_windows)
            align = self.align[token : token + len(pieces)]
            wordpieces = self.wordpieces[windows]
            result.append(
                TransformerData(
                    wordpieces=wordpieces,
                    model_output=BaseModelOutput(last_hidden_state=cast(Any, states[windows])),
                    align=Ragged(align.dataXd - piece, align.lengths),
                )
            )
            window, token = windows.stop, token + len(pieces)
            piece += wordpieces.input_ids.size
        return result


def make_alignment_setter() -> Callable[[list[Doc], FullTransformerBatch], None]:
    """`spacy_mmcot.alignment_setter.v1`, for `set_extra_annotations` of the `transformer`
    component: keeps `doc._.mmcot_alignment` of docs with a picture."""
    return set_alignment


def set_alignment(docs: list[Doc], batch: FullTransformerBatch) -> None:
    """Write the attention of each token over the patches onto its Doc, where it has a picture."""
    if not isinstance(batch, PromptedBatch):
        return
    start = 0
    for doc, n_windows, pieces in zip(docs, batch.doc_windows, batch.token_pieces, strict=True):
        views = batch.views[start : start + n_windows]
        start += n_windows
        seen = [view for view in views if view is not None]
        if seen and len(seen) == len(views):
            attention = numpy.concatenate([view.attention.cpu().numpy() for view in seen])
            doc.user_data[ALIGNMENT_KEY] = {
                "gate": float(numpy.mean([view.gate for view in seen])),
                "grid": list(batch.grid),
                "tokens": _token_means(attention, pieces).astype("float16").tobytes(),
            }
        else:
            doc.user_data.pop(ALIGNMENT_KEY, None)


def _token_means(
    attention: NDArray[numpy.float32], pieces: Sequence[int]
) -> NDArray[numpy.float32]:
    """Of the pieces of each token: (tokens, patches)."""
    counts = numpy.asarray(pieces)
    starts = numpy.concatenate([[0], numpy.cumsum(counts)[:-1]])
    sums: NDArray[numpy.float32] = numpy.add.reduceat(attention, starts, axis=0)
    return sums / counts[:, None]

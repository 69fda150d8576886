"""The torch module of an encoder: a Hugging Face encoder with knowledge tags, prompts and visual
prompts at its input, and layers that skip padding on a CPU.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.activations import GELUActivation

from .knowledge import TAG_ROWS
from .picture_input import PictureSettings
from .prompts import (
    ConditionalPrompt,
    PromptKind,
    StaticPrompt,
    VisualPrompt,
    VisualPrompts,
    WordPrompt,
)
from .wordpieces import CASES, Row, WordPieceTokenizer

# At inference a picture whose gate is below this is ignored.
MIN_GATE = 0.5
# How often training hides the letter case of a window, so that texts without any are read as well.
HIDDEN_CASES = 0.15

# What runs an encoder's layers: takes states (pieces, width), the windows in order of length and
# without padding, and the lengths (windows,), ascending; returns the last layer's states.
Layers = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class EncoderSettings:
    """The settings of `spacy_mmcot.PromptedTransformer.v1` that hold for a loaded encoder."""

    prompt: PromptKind = "none"
    prompt_length: int = 4
    prompt_regression: float = 0.0
    knowledge_tags: bool = False
    segment_length: int = 0
    max_length: int = 512
    stride: int = 64
    embedding_dropout: float = 0.1
    freeze_word_embeddings: bool = True
    pictures: PictureSettings = field(default_factory=PictureSettings)


class PieceBatch(NamedTuple):
    """Padded word pieces of windows, int64 (windows, pieces), of tags (windows, pieces, tags)."""

    ids: Tensor
    mask: Tensor  # 1 at real pieces
    types: Tensor  # 1 at the knowledge segment
    text: Tensor  # 1 at the window's own text, special pieces and segment excluded
    cases: Tensor  # how the pieces' tokens are written
    tags: Tensor | None  # rows of tag embeddings; None where the encoder reads none


class PictureBatch(NamedTuple):
    """The pictures of a batch of windows."""

    patches: Tensor  # (pictures, patches, patch width)
    words: Tensor  # (pictures, most pieces): ids of the pieces that are read in each
    words_mask: Tensor  # the same shape, 1 at pieces
    rows: Tensor  # (windows,): each window's index into the pictures, -1 without one


class Encoded(NamedTuple):
    """The encoder's output for a batch; the last three are of the windows with a picture."""

    states: Tensor  # (windows, pieces, width): the last layer's, of the pieces
    prompt: Tensor | None  # (windows, prompt length, width): the prompt's, projected to knowledge
    seen: Tensor | None = None  # (seen,): indexes of the windows
    gate: Tensor | None = None  # (seen,): 0 to 1, how much the picture counts
    attention: Tensor | None = None  # (seen, pieces, patches)


class PromptedEncoder(nn.Module):
    """An encoder that reads prompt vectors before its word pieces, and adds embeddings of the
    knowledge tags to them, and of the tokens' letter case where its tokenizer ignores that.

    Prompts come first, with position ids after the text's, so that the pieces keep the positions
    of pretraining; families whose forward takes no position ids (DistilBERT) see the text shifted.
    A window with a picture has visual prompts too; those of the others are masked.

    patch_width: features of a picture's patch; 0 for an encoder without them. word_pieces: most
    pieces of a picture's words; 0 for an encoder that does not read them.
    """

    def __init__(
        self,
        encoder: Any,
        tokenizer: Any,
        settings: EncoderSettings,
        patch_width: int = 0,
        word_pieces: int = 0,
    ):
        super().__init__()
        self.encoder = encoder
        self.pieces = WordPieceTokenizer(tokenizer)
        if settings.freeze_word_embeddings:
            self.word_embeddings.weight.requires_grad_(False)
        word_width = self.word_embeddings.embedding_dim
        self.width: int = encoder.config.hidden_size
        self.tags: nn.Embedding | None = None
        if settings.knowledge_tags:
            self.tags = nn.Embedding(TAG_ROWS, word_width, padding_idx=0)
            nn.init.zeros_(self.tags.weight)
        self.cases: nn.Embedding | None = None
        if self.pieces.ignores_case:
            self.cases = nn.Embedding(CASES, word_width, padding_idx=0)
            nn.init.zeros_(self.cases.weight)
        self.prompt: ConditionalPrompt | StaticPrompt | None = None
        self.prompt_length = 0
        if settings.prompt != "none":
            kind = ConditionalPrompt if settings.prompt == "conditional" else StaticPrompt
            self.prompt_length = settings.prompt_length
            self.prompt = kind(word_width, self.prompt_length)
        self.visual: VisualPrompt | None = None
        if patch_width:
            self.visual = VisualPrompt(word_width, self.width, patch_width)
        self.shown_words: WordPrompt | None = None
        if word_pieces:
            self.shown_words = WordPrompt(word_width, word_pieces)
        self.to_knowledge: nn.Linear | None = None
        if self.prompt_length and settings.prompt_regression > 0:
            self.to_knowledge = nn.Linear(self.width, self.width)
        for module in getattr(encoder, "embeddings", nn.Module()).modules():
            if isinstance(module, nn.Dropout):
                module.p = settings.embedding_dropout
        accepted = inspect.signature(encoder.forward).parameters
        self.layers: Layers | None = None  # what runs in place of the encoder's own layers
        self._can_pack = can_pack(encoder)
        self._takes_positions = "position_ids" in accepted
        n_types = getattr(encoder.config, "type_vocab_size", 0) or 0
        self._takes_types = "token_type_ids" in accepted and n_types > 1
        # RoBERTa-like encoders count positions from the padding id on.
        offset = getattr(getattr(encoder, "embeddings", None), "padding_idx", None)
        self._first_position = 0 if offset is None else offset + 1

    @property
    def word_embeddings(self) -> nn.Embedding:
        # Not an attribute, which would register the encoder's weights a second time.
        return self.encoder.get_input_embeddings()

    @property
    def device(self) -> torch.device:
        return self.word_embeddings.weight.device

    @property
    def packs(self) -> bool:
        """Whether the layers skip padding. On a GPU many small attentions would be slower."""
        return self.layers is not None or (self._can_pack and self.device.type == "cpu")

    @property
    def max_pieces(self) -> int:
        """How many pieces the encoder's positions allow beside the prompts."""
        positions = getattr(self.encoder.config, "max_position_embeddings", 512)
        visual = sum(part.length for part in (self.visual, self.shown_words) if part is not None)
        return int(positions) - self._first_position - self.prompt_length - visual

    def pad_rows(self, rows: Sequence[Row]) -> PieceBatch:
        """The rows as one batch, padded to the longest."""
        shape = len(rows), max(len(row.ids) for row in rows)
        n_tags = len(rows[0].tags[0]) if rows[0].tags else 0
        ids = numpy.full(shape, self.pieces.pad_id)
        mask, types, text, cases = (numpy.zeros(shape, dtype="int64") for _ in range(4))
        tags = numpy.zeros((*shape, n_tags), dtype="int64")
        for i, row in enumerate(rows):
            n_pieces = len(row.ids)
            ids[i, :n_pieces] = row.ids
            mask[i, :n_pieces] = 1
            types[i, row.segment_start : n_pieces] = 1
            text[i, slice(*row.text)] = 1
            cases[i, :n_pieces] = row.cases
            if row.tags:
                tags[i, : len(row.tags)] = row.tags
        arrays = (ids, mask, types, text, cases, tags)
        batch = PieceBatch(*(torch.from_numpy(array).to(self.device) for array in arrays))
        return batch if n_tags else batch._replace(tags=None)

    def forward(self, batch: PieceBatch, pictures: PictureBatch | None = None) -> Encoded:
        """Read a batch of windows, some of them with pictures."""
        words = self.word_embeddings(batch.ids)
        read = words if self.cases is None else words + self.cases(self._hide_cases(batch.cases))
        if self.tags is not None and batch.tags is not None:
            read = read + self.tags(batch.tags).sum(-2)
        parts, masks = [read], [batch.mask]
        shown = self._make_word_prompts(words, batch.text, pictures)
        if shown is not None:
            parts.insert(0, shown[0])
            masks.insert(0, shown[1].to(batch.mask.dtype))
        visual: VisualPrompts | None = None
        if self.visual is not None and pictures is not None and pictures.rows.max() >= 0:
            seen = (pictures.rows >= 0).nonzero().squeeze(1)
            patches = pictures.patches[pictures.rows[seen]]
            visual = self.visual(words[seen], batch.text[seen], patches)
            used = torch.ones_like(visual.gate) if self.training else visual.gate >= MIN_GATE
            vectors = words.new_zeros(len(words), *visual.vectors.shape[1:])
            parts.insert(0, vectors.index_copy(0, seen, visual.vectors))
            mask = batch.mask.new_zeros(vectors.shape[:2])
            mask[seen] = used.to(mask.dtype).unsqueeze(1)
            masks.insert(0, mask)
        if self.prompt is not None:
            prompt = self.prompt(words, batch.text)
            parts.insert(0, prompt)
            masks.insert(0, batch.mask.new_ones(prompt.shape[:2]))
        mask = torch.cat(masks, dim=1)
        n_prompts = mask.shape[1] - batch.mask.shape[1]
        kwargs = {"inputs_embeds": torch.cat(parts, dim=1), "attention_mask": mask}
        if self._takes_positions:
            kwargs["position_ids"] = self._positions(batch.mask, n_prompts)
        if self._takes_types:
            kwargs["token_type_ids"] = torch.nn.functional.pad(batch.types, (n_prompts, 0))
        if self.packs:
            states = run_packed(self.encoder, self.layers, **kwargs)
        else:
            states = self.encoder(**kwargs).last_hidden_state
        prompt_states = None
        if self.to_knowledge is not None:
            prompt_states = self.to_knowledge(states[:, : self.prompt_length])
        states = states[:, n_prompts:]
        if self.visual is None or visual is None:
            return Encoded(states, prompt_states)
        added, attention = self.visual.attend_again(states[seen], visual)
        states = states.index_add(0, seen, added * used[:, None, None])
        return Encoded(states, prompt_states, seen, visual.gate, attention)

    def _hide_cases(self, cases: Tensor) -> Tensor:
        """(windows, pieces): in training some windows as if they were in small letters."""
        if not self.training:
            return cases
        hidden = torch.rand(len(cases), 1, device=cases.device) < HIDDEN_CASES
        return torch.where(hidden, cases.clamp(max=1), cases)

    def _make_word_prompts(
        self, words: Tensor, text: Tensor, pictures: PictureBatch | None
    ) -> tuple[Tensor, Tensor] | None:
        """The embeddings of the words that the windows' pictures show, (windows, most pieces,
        width), and the mask of those that count, (windows, most pieces); None where there are none.
        words, text: as above."""
        if self.shown_words is None or pictures is None:
            return None
        rows = pictures.rows.clamp(min=0)
        mask = pictures.words_mask[rows] * (pictures.rows >= 0).unsqueeze(1)
        if not mask.any():
            return None
        shown = self.word_embeddings(pictures.words[rows])
        vectors, gate = self.shown_words(words, text, shown, mask)
        return vectors, mask if self.training else mask * (gate >= MIN_GATE).unsqueeze(1)

    def _positions(self, mask: Tensor, n_prompts: int) -> Tensor:
        """Position ids, (windows, prompts + pieces): the pieces' from the family's first position
        on, the prompts' after the last real piece of their window. mask: (windows, pieces)."""
        pieces = torch.arange(mask.shape[1], device=mask.device).expand(len(mask), -1)
        after = mask.sum(1, keepdim=True).long()
        prompt = after + torch.arange(n_prompts, device=mask.device)
        return torch.cat([prompt, pieces], dim=1) + self._first_position


# Model types with BERT's layers: attention over the layer's input, and norms after each part.
FAMILIES = frozenset({"bert", "camembert", "electra", "roberta", "xlm-roberta"})


def can_pack(encoder: Any) -> bool:
    """Whether `run_packed` can run the encoder."""
    config = encoder.config
    positions = getattr(config, "position_embedding_type", "absolute")
    is_decoder = getattr(config, "is_decoder", False)
    return config.model_type in FAMILIES and positions == "absolute" and not is_decoder


def run_packed(
    encoder: Any,
    layers: Layers | None,
    *,
    inputs_embeds: Tensor,
    attention_mask: Tensor,
    position_ids: Tensor | None = None,
    token_type_ids: Tensor | None = None,
) -> Tensor:
    """The last layer's states, (windows, pieces, width), 0 at padding, computed for the real pieces
    alone; up to rounding what the encoder itself returns for the same arguments.

    Nearly all of an encoder's time goes into linear layers, where a padded piece costs as much as a
    real one. Attention runs once for each length, over all windows of that length, without a mask.

    inputs_embeds: (windows, pieces, width of the word embeddings); the others: (windows, pieces),
    with at least one real piece in each window. layers: what runs in place of the encoder's own.
    """
    embedded = encoder.embeddings(
        inputs_embeds=inputs_embeds, position_ids=position_ids, token_type_ids=token_type_ids
    )
    project = getattr(encoder, "embeddings_project", None)  # ELECTRA's narrow embeddings
    embedded = embedded if project is None else project(embedded)
    lengths = attention_mask.sum(1)
    order = torch.argsort(lengths)
    windows, pieces = attention_mask[order].nonzero(as_tuple=True)
    # The index of each packed piece among all, padding included.
    places = order[windows] * attention_mask.shape[1] + pieces
    packed, lengths = embedded.flatten(0, 1)[places], lengths[order]
    packed = layers(packed, lengths) if layers else _run_layers(encoder, packed, lengths)
    states = embedded.new_zeros(attention_mask.numel(), packed.shape[-1])
    return states.index_copy(0, places, packed).unflatten(0, attention_mask.shape)


def _run_layers(encoder: Any, packed: Tensor, lengths: Tensor) -> Tensor:
    """packed and result: (pieces, width), as in `Layers`; lengths: (windows,), ascending."""
    runs = []  # start and end among the packed pieces, and length, of windows of one length
    start = 0
    for length, windows in itertools.groupby(lengths.tolist()):
        runs.append((start, start + sum(windows), length))
        start = runs[-1][1]
    for layer in encoder.encoder.layer:
        packed = _run_layer(layer, packed, runs)
    return packed


def _run_layer(layer: Any, packed: Tensor, runs: Sequence[tuple[int, int, int]]) -> Tensor:
    """packed: (pieces, width); returns the same shape."""
    attention = layer.attention.self
    projections = [part(packed) for part in (attention.query, attention.key, attention.value)]
    heads = attention.num_attention_heads
    dropout = attention.dropout.p if attention.training else 0.0
    mixed = []
    for start, end, length in runs:
        shape = (-1, length, heads, packed.shape[1] // heads)
        query, key, value = (p[start:end].view(shape).transpose(1, 2) for p in projections)
        context = scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        mixed.append(context.transpose(1, 2).reshape(end - start, -1))
    attended = layer.attention.output(torch.cat(mixed), packed)
    wide = layer.intermediate.dense(attended)
    activate = layer.intermediate.intermediate_act_fn
    # In place, without a gradient, since this is the layer's largest array: 6 to 13% faster.
    in_place = isinstance(activate, GELUActivation) and not wide.requires_grad
    return layer.output(torch.ops.aten.gelu_(wide) if in_place else activate(wide), attended)

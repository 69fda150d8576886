"""The torch module: a Hugging Face encoder with knowledge tags and prompts at its input, visual
prompts of a picture among them.
"""

from __future__ import annotations

import inspect
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from .knowledge import TAG_ROWS
from .packed import Layers, can_pack, packed_states
from .prompts import ConditionalPrompt, StaticPrompt, VisualPrompt, VisualPrompts
from .wordpieces import WordPieceTokenizer

PromptKind = Literal["none", "static", "conditional"]

# A picture that the gate closes this far has no part in the answer, rather than a faint one.
MIN_GATE = 0.5


class PieceBatch(NamedTuple):
    """Padded word pieces of a batch of windows; all tensors have the shape (windows, pieces)."""

    ids: Tensor
    mask: Tensor  # 1 at real pieces
    types: Tensor  # 1 at the knowledge segment
    text: Tensor  # 1 at the window's own text, special pieces and segment excluded
    tags: Tensor | None  # (windows, pieces, TAGS_PER_TOKEN), None where the encoder reads none


class PictureBatch(NamedTuple):
    """The pictures of a batch of windows."""

    patches: Tensor  # (pictures, patches, patch width)
    rows: Tensor  # (windows,): each window's index into the pictures, -1 without one


class Encoded(NamedTuple):
    """What the encoder makes of a batch."""

    states: Tensor  # (windows, pieces, width): the last layer's, of the pieces
    prompt: Tensor | None  # (windows, prompt length, width): the prompt's, towards the knowledge
    pictured: Tensor | None  # (windows with pictures,): their indexes; None where none has one
    gate: Tensor | None  # (windows with pictures,): how far the picture bears on the text, 0 to 1
    attention: Tensor | None  # (windows with pictures, pieces, patches)


class PromptedEncoder(nn.Module):
    """An encoder that reads prompt vectors before its word pieces and tags on top of them.

    Prompts stand at the front with position ids past the text, so that the pieces keep the
    positions they were pretrained with. Families whose forward takes no position ids (DistilBERT)
    see the text shifted by the prompt instead.

    A window with a picture reads visual prompts too; to one without, theirs are masked. At
    inference a picture whose gate stays below `MIN_GATE` counts as none.
    """

    def __init__(
        self,
        encoder: Any,
        tokenizer: Any,
        *,
        prompt: PromptKind = "none",
        prompt_length: int = 4,
        prompt_hidden: int = 128,
        knowledge_tags: bool = False,
        regression: bool = False,
        embedding_dropout: float = 0.1,
        freeze_word_embeddings: bool = True,
        visual_prompts: int = 0,
        patch_width: int = 0,
    ):
        super().__init__()
        self.encoder = encoder
        self.pieces = WordPieceTokenizer(tokenizer)
        if freeze_word_embeddings:
            self.word_embeddings.weight.requires_grad_(False)
        embedding_width = self.word_embeddings.embedding_dim
        self.width: int = encoder.config.hidden_size
        self.tags = (
            nn.Embedding(TAG_ROWS, embedding_width, padding_idx=0) if knowledge_tags else None
        )
        if self.tags is not None:
            nn.init.zeros_(self.tags.weight)
        self.prompt: ConditionalPrompt | StaticPrompt | None = None
        if prompt == "conditional":
            self.prompt = ConditionalPrompt(embedding_width, prompt_length, prompt_hidden)
        elif prompt == "static":
            self.prompt = StaticPrompt(embedding_width, prompt_length)
        self.visual: VisualPrompt | None = None
        if visual_prompts:
            self.visual = VisualPrompt(embedding_width, self.width, patch_width, visual_prompts)
        has_regression = regression and self.prompt is not None
        self.to_knowledge = nn.Linear(self.width, self.width) if has_regression else None
        self._set_embedding_dropout(embedding_dropout)
        accepted = inspect.signature(encoder.forward).parameters
        self.layers: Layers | None = None  # what runs in place of the encoder's own
        self._can_pack = can_pack(encoder)
        self._takes_positions = "position_ids" in accepted
        self._takes_types = "token_type_ids" in accepted
        self._n_types: int = getattr(encoder.config, "type_vocab_size", 0) or 0
        # RoBERTa-like encoders count positions from the padding id on.
        offset = getattr(getattr(encoder, "embeddings", None), "padding_idx", None)
        self._first_position = 0 if offset is None else offset + 1

    @property
    def word_embeddings(self) -> nn.Embedding:
        # Looked up, not registered: the encoder owns these weights.
        return self.encoder.get_input_embeddings()

    @property
    def prompt_length(self) -> int:
        return self.prompt.length if self.prompt is not None else 0

    @property
    def packs(self) -> bool:
        """Whether the layers see no padding. A GPU would wait for the many small attentions."""
        if self.layers is not None:
            return True
        return self._can_pack and self.word_embeddings.weight.is_cpu

    @property
    def max_pieces(self) -> int:
        """How many pieces the encoder's positions allow beside the prompts."""
        positions = getattr(self.encoder.config, "max_position_embeddings", 512)
        visual = self.visual.length if self.visual is not None else 0
        return int(positions) - self._first_position - self.prompt_length - visual

    def forward(self, batch: PieceBatch, pictures: PictureBatch | None = None) -> Encoded:
        words = self.word_embeddings(batch.ids)
        embeddings = words
        if self.tags is not None and batch.tags is not None:
            embeddings = embeddings + self.tags(batch.tags).sum(-2)
        parts, masks = [embeddings], [batch.mask]
        pictured, visual = self._look(words, batch.text, pictures)
        used = None
        if pictured is not None and visual is not None:
            used = torch.ones_like(visual.gate) if self.training else visual.gate >= MIN_GATE
            vectors = words.new_zeros(len(words), *visual.vectors.shape[1:])
            parts.insert(0, vectors.index_copy(0, pictured, visual.vectors))
            seen = batch.mask.new_zeros(vectors.shape[:2])
            seen[pictured] = used.to(seen.dtype).unsqueeze(1)
            masks.insert(0, seen)
        if self.prompt is not None:
            prompt = self.prompt(words, batch.text)
            parts.insert(0, prompt)
            masks.insert(0, batch.mask.new_ones(prompt.shape[:2]))
        mask = torch.cat(masks, dim=1)
        n_prompts = mask.shape[1] - batch.mask.shape[1]
        kwargs: dict[str, Any] = {
            "inputs_embeds": torch.cat(parts, dim=1),
            "attention_mask": mask,
        }
        if self._takes_positions:
            kwargs["position_ids"] = self._positions(batch.mask, n_prompts)
        if self._takes_types and self._n_types > 1:
            kwargs["token_type_ids"] = torch.nn.functional.pad(batch.types, (n_prompts, 0))
        if self.packs:
            states = packed_states(self.encoder, self.layers, **kwargs)
        else:
            states = self.encoder(**kwargs).last_hidden_state
        prompt_states = None
        if self.to_knowledge is not None:
            prompt_states = self.to_knowledge(states[:, : self.prompt_length])
        states = states[:, n_prompts:]
        gate = attention = None
        seeing = self.visual
        if seeing is not None and visual is not None and pictured is not None and used is not None:
            added, attention = seeing.look_again(states[pictured], visual)
            states = states.index_add(0, pictured, added * used[:, None, None])
            gate = visual.gate
        return Encoded(states, prompt_states, pictured, gate, attention)

    def _look(
        self, words: Tensor, text: Tensor, pictures: PictureBatch | None
    ) -> tuple[Tensor | None, VisualPrompts | None]:
        """Which windows have pictures, and what they see in them."""
        if self.visual is None or pictures is None:
            return None, None
        pictured = (pictures.rows >= 0).nonzero().squeeze(1)
        if not len(pictured):
            return None, None
        patches = pictures.patches[pictures.rows[pictured]]
        return pictured, self.visual(words[pictured], text[pictured], patches)

    def _positions(self, mask: Tensor, n_prompts: int) -> Tensor:
        """Position ids, (windows, prompts + pieces): pieces count from the family's first
        position, prompts go on after the last real piece of their own window."""
        n_windows, n_pieces = mask.shape
        pieces = torch.arange(n_pieces, device=mask.device).expand(n_windows, -1)
        if not n_prompts:
            return pieces + self._first_position
        after = mask.sum(1, keepdim=True).long()
        prompt = after + torch.arange(n_prompts, device=mask.device)
        return torch.cat([prompt, pieces], dim=1) + self._first_position

    def _set_embedding_dropout(self, rate: float) -> None:
        embeddings = getattr(self.encoder, "embeddings", None)
        if embeddings is None:
            return
        for module in embeddings.modules():
            if isinstance(module, nn.Dropout):
                module.p = rate

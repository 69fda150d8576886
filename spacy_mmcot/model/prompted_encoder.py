"""The torch module: a Hugging Face encoder with knowledge tags and prompts at its input."""

from __future__ import annotations

import inspect
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from .conditional_prompt import ConditionalPrompt, StaticPrompt
from .knowledge import N_TAGS
from .wordpieces import WordPieceTokenizer

PromptKind = Literal["none", "static", "conditional"]


class PieceBatch(NamedTuple):
    """Padded word pieces of a batch of windows; all tensors have the shape (windows, pieces)."""

    ids: Tensor
    mask: Tensor  # 1 at real pieces
    types: Tensor  # 1 at the knowledge segment
    text: Tensor  # 1 at the window's own text, special pieces and segment excluded
    tags: Tensor | None  # knowledge tags, None where the encoder reads none


class PromptedEncoder(nn.Module):
    """An encoder that reads prompt vectors before its word pieces and tags on top of them.

    Prompts stand at the front with position ids past the text, so that the pieces keep the
    positions they were pretrained with. Families whose forward takes no position ids (DistilBERT)
    see the text shifted by the prompt instead.
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
    ):
        super().__init__()
        self.encoder = encoder
        self.pieces = WordPieceTokenizer(tokenizer)
        if freeze_word_embeddings:
            self.word_embeddings.weight.requires_grad_(False)
        embedding_width = self.word_embeddings.embedding_dim
        self.width: int = encoder.config.hidden_size
        self.tags = nn.Embedding(N_TAGS, embedding_width, padding_idx=0) if knowledge_tags else None
        if self.tags is not None:
            nn.init.zeros_(self.tags.weight)
        self.prompt: ConditionalPrompt | StaticPrompt | None = None
        if prompt == "conditional":
            self.prompt = ConditionalPrompt(embedding_width, prompt_length, prompt_hidden)
        elif prompt == "static":
            self.prompt = StaticPrompt(embedding_width, prompt_length)
        has_regression = regression and self.prompt is not None
        self.to_knowledge = nn.Linear(self.width, self.width) if has_regression else None
        self._set_embedding_dropout(embedding_dropout)
        accepted = inspect.signature(encoder.forward).parameters
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
    def max_pieces(self) -> int:
        """How many pieces the encoder's positions allow beside the prompt."""
        positions = getattr(self.encoder.config, "max_position_embeddings", 512)
        return int(positions) - self._first_position - self.prompt_length

    def forward(self, batch: PieceBatch) -> tuple[Tensor, Tensor | None]:
        """Returns the last layer's states of the pieces, (windows, pieces, width), and of the
        prompt, projected towards the knowledge where regression is on: (windows, length, width)
        or None."""
        embeddings = self.word_embeddings(batch.ids)
        mask, types = batch.mask, batch.types
        prompt = None
        if self.prompt is not None:
            prompt = self.prompt(embeddings, batch.text)
        if self.tags is not None and batch.tags is not None:
            embeddings = embeddings + self.tags(batch.tags)
        if prompt is not None:
            embeddings = torch.cat([prompt, embeddings], dim=1)
            ones = mask.new_ones(len(mask), self.prompt_length)
            mask = torch.cat([ones, mask], dim=1)
            types = torch.cat([torch.zeros_like(ones), types], dim=1)
        kwargs: dict[str, Any] = {"inputs_embeds": embeddings, "attention_mask": mask}
        if self._takes_positions:
            kwargs["position_ids"] = self._positions(batch.mask)
        if self._takes_types and self._n_types > 1:
            kwargs["token_type_ids"] = types
        states = self.encoder(**kwargs).last_hidden_state
        k = self.prompt_length
        prompt_states = None
        if self.to_knowledge is not None:
            prompt_states = self.to_knowledge(states[:, :k])
        return states[:, k:], prompt_states

    def _positions(self, mask: Tensor) -> Tensor:
        """Position ids, (windows, prompt + pieces): pieces count from the family's first
        position, prompts go on after the last real piece of their own window."""
        n_windows, n_pieces = mask.shape
        pieces = torch.arange(n_pieces, device=mask.device).expand(n_windows, -1)
        if not self.prompt_length:
            return pieces + self._first_position
        after = mask.sum(1, keepdim=True).long()
        prompt = after + torch.arange(self.prompt_length, device=mask.device)
        return torch.cat([prompt, pieces], dim=1) + self._first_position

    def _set_embedding_dropout(self, rate: float) -> None:
        embeddings = getattr(self.encoder, "embeddings", None)
        if embeddings is None:
            return
        for module in embeddings.modules():
            if isinstance(module, nn.Dropout):
                module.p = rate

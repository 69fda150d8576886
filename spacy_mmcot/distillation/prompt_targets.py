"""Targets for a student's prompt: what the frozen encoder makes of each Doc's knowledge."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import minibatch

from ..errors import Errors, MMCoTError
from ..model.knowledge import get_full_text
from ..model.sources import load_pretrained
from ..types import PROMPT_TARGET_KEY


class KnowledgeEncoder:
    """A frozen encoder that turns a knowledge text into target vectors: its last-layer states are
    cut into `length` slices of equal size, and the mean of each slice is one target vector."""

    def __init__(self, source: str, length: int, max_pieces: int = 128):
        """source: an encoder source. length: prompt vectors a text. max_pieces: word pieces that
        are read of a text. Raises MMCoTError where the encoder cannot be loaded."""
        self.tokenizer, self.encoder = load_pretrained(source)
        self.length = length
        self.max_pieces = max_pieces

    def encode(self, texts: Sequence[str]) -> NDArray[numpy.float32]:
        """(texts, length, width), not yet centred."""
        batch: Any = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.max_pieces,
            return_tensors="pt",
        )
        with torch.no_grad():
            states = self.encoder(**batch).last_hidden_state.numpy()
        targets = numpy.empty((len(states), self.length, states.shape[2]), dtype="float32")
        for i, n_pieces in enumerate(batch["attention_mask"].sum(1).tolist()):
            cuts = numpy.linspace(0, n_pieces, self.length + 1).astype(int)
            for k, (start, end) in enumerate(itertools.pairwise(cuts)):
                targets[i, k] = states[i, start : max(end, start + 1)].mean(axis=0)
        return targets


def set_prompt_targets(docs: Sequence[Doc], encoder: KnowledgeEncoder, batch_size: int = 64) -> int:
    """Write prompt targets onto the Docs that have knowledge, centred by the corpus mean of each
    slice so that what is common to all texts is no target. Returns how many Docs have one.

    A target is stored as 16-bit floats, 768 bytes a prompt vector at width 384.
    """
    known = [(doc, text) for doc in docs if (text := get_full_text(doc))]
    # Texts of similar length share a batch, since padding would cost more than the sort.
    known.sort(key=lambda pair: len(pair[1]))
    batches = [
        encoder.encode([text for _, text in batch]) for batch in minibatch(known, batch_size)
    ]
    if not batches:
        return 0
    targets = numpy.concatenate(batches)
    targets -= targets.mean(axis=0)
    for (doc, _), target in zip(known, targets, strict=True):
        doc.user_data[PROMPT_TARGET_KEY] = target.astype("float16").tobytes()
    return len(known)


def get_encoder_source(nlp: Language) -> str:
    """The encoder source of a pipeline's transformer. Raises MMCoTError where it has none."""
    try:
        return nlp.config["components"]["transformer"]["model"]["source"]
    except KeyError:
        raise MMCoTError(Errors.E504.format(pipeline=nlp.pipe_names)) from None

"""A teacher's view of a corpus, computed once and written onto its Docs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import minibatch

from ..errors import Errors, MMCoTError
from ..model.encoder import load_pretrained
from ..model.knowledge import full_text
from ..types import PROMPT_TARGET_KEY
from .soft_labels import set_soft_labels


class Teacher(Protocol):
    """What a component must offer to teach: `mmcot_ner` does."""

    tags: list[str]

    def marginals(self, docs: Sequence[Doc]) -> list[NDArray[numpy.float32]]: ...


def teach(nlp: Language, docs: Iterable[Doc], batch_size: int = 64) -> Iterator[Doc]:
    """Write the teacher's tag distributions onto each Doc, in order.

    nlp: a trained pipeline with an `mmcot_ner` component.
    docs: with the knowledge that the teacher reads; labelled or not, their entities stay as they
        are.

    Raises MMCoTError if the pipeline has no component that can teach.
    """
    for batch in minibatch(docs, batch_size):
        copies = [_bare_copy(doc) for doc in batch]
        component = _run_up_to_teacher(nlp, copies)
        for doc, probabilities in zip(batch, component.marginals(copies), strict=True):
            set_soft_labels(doc, component.tags, probabilities)
            yield doc


def _run_up_to_teacher(nlp: Language, docs: list[Doc]) -> Teacher:
    for name, component in nlp.pipeline:
        if nlp.get_pipe_meta(name).factory == "mmcot_ner":
            return component  # type: ignore[return-value]
        docs[:] = list(component.pipe(docs))  # type: ignore[attr-defined]
    raise MMCoTError(Errors.E502.format(pipeline=nlp.pipe_names))


def _bare_copy(doc: Doc) -> Doc:
    """The tokens and user data, without gold annotation and without what the teacher leaves
    behind (its encoder states would triple the corpus)."""
    copy = Doc(
        doc.vocab,
        words=[token.text for token in doc],
        spaces=[bool(token.whitespace_) for token in doc],
    )
    copy.user_data.update(doc.user_data)
    return copy


class KnowledgeEncoder:
    """Targets for a student's prompt: the frozen encoder's view of each Doc's knowledge.

    A knowledge text's last-layer states are cut into `length` slices of equal size, and the
    mean of each slice is one target vector.
    """

    def __init__(self, source: str, length: int, max_pieces: int = 128):
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
        targets = []
        for row, n_pieces in zip(states, batch["attention_mask"].sum(1).tolist(), strict=True):
            cuts = numpy.linspace(0, n_pieces, self.length + 1).astype(int)
            targets.append(
                [
                    row[start : max(end, start + 1)].mean(axis=0)
                    for start, end in itertools.pairwise(cuts)
                ]
            )
        return numpy.array(targets, dtype="float32")


def set_prompt_targets(docs: Sequence[Doc], encoder: KnowledgeEncoder, batch_size: int = 64) -> int:
    """Write prompt targets onto the Docs that have knowledge, centred by the corpus mean of each
    slice so that what is common to all texts is no target. Returns how many Docs have one.

    A target is stored as 16-bit floats, 768 bytes a prompt vector at width 384.
    """
    known = [(doc, text) for doc in docs if (text := full_text(doc))]
    # Long texts with long texts: padding would cost more than the sort.
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

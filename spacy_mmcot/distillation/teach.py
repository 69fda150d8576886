"""A teacher's view of a corpus, computed once and written onto its Docs.

Several teachers as one: the mean of what each says of a Doc.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import minibatch

from ..docs import bare_copy
from ..errors import Errors, MMCoTError
from ..model.knowledge import full_text
from ..model.sources import load_pretrained
from ..types import PROMPT_TARGET_KEY, SOFT_LABELS_KEY, SOFT_RELATIONS_KEY
from .soft_labels import (
    SoftRelations,
    get_soft_labels,
    get_soft_relations,
    set_soft_labels,
    set_soft_relations,
    soft_tags,
)

TEACHERS = ("mmcot_ner", "mmcot_rel")


class TagTeacher(Protocol):
    """What `mmcot_ner` offers to teach."""

    tags: list[str]

    def marginals(self, docs: Sequence[Doc]) -> list[NDArray[numpy.float32]]: ...


class PairTeacher(Protocol):
    """What `mmcot_rel` offers to teach."""

    def soft_relations(self, docs: Sequence[Doc]) -> list[SoftRelations]: ...


def teach(nlp: Language, docs: Iterable[Doc], batch_size: int = 64) -> Iterator[Doc]:
    """Write the teacher's distributions onto each Doc, in order: of the tags of its tokens and of
    the labels of its mention pairs, as far as the pipeline has components for them. The mentions
    are the Doc's own entities where it is labelled, otherwise those that the teacher finds.

    nlp: a trained pipeline with an `mmcot_ner` or `mmcot_rel` component.
    docs: with the knowledge that the teacher reads; labelled or not, their entities and relations
        stay as they are.

    Raises MMCoTError if the pipeline has no component that can teach.
    """
    factories = [nlp.get_pipe_meta(name).factory for name in nlp.pipe_names]
    teachers = [i for i, factory in enumerate(factories) if factory in TEACHERS]
    if not teachers:
        raise MMCoTError(Errors.E502.format(pipeline=nlp.pipe_names))
    components = [component for _, component in nlp.pipeline]
    for batch in minibatch(docs, batch_size):
        copies = [bare_copy(doc) for doc in batch]
        for i in range(teachers[-1] + 1):
            _teach_from(factories[i], components[i], batch, copies)
            # What the last teacher finds nobody reads, and what stands behind it is none of our
            # business.
            if i < teachers[-1]:
                copies = list(components[i].pipe(copies))  # type: ignore[attr-defined]
        yield from batch


def _teach_from(factory: str, component: Any, docs: Sequence[Doc], copies: Sequence[Doc]) -> None:
    """Write what a component has to say of the copies, if it teaches, onto the Docs."""
    if factory == "mmcot_ner":
        tagger: TagTeacher = component
        for doc, probabilities in zip(docs, tagger.marginals(copies), strict=True):
            set_soft_labels(doc, tagger.tags, probabilities)
    if factory == "mmcot_rel":
        classifier: PairTeacher = component
        _give_gold_mentions(docs, copies)
        for doc, soft in zip(docs, classifier.soft_relations(copies), strict=True):
            set_soft_relations(doc, soft)


def _give_gold_mentions(docs: Sequence[Doc], copies: Sequence[Doc]) -> None:
    for doc, copy in zip(docs, copies, strict=True):
        if doc.has_annotation("ENT_IOB"):
            spans = [Span(copy, ent.start, ent.end, label=ent.label) for ent in doc.ents]
            copy.set_ents(spans, default="outside")


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


def teach_together(
    teachers: Sequence[Language], docs: Iterable[Doc], batch_size: int = 64
) -> Iterator[Doc]:
    """As `teach`, with the mean of the teachers' distributions (an ensemble's soft labels: Hinton
    et al., 2015, "Distilling the knowledge in a neural network"). Of a pair of mentions it is the
    mean over the teachers that judged the pair, among the pairs that the first one judged.

    teachers: trained pipelines with the same labels, on one vocab.

    Raises MMCoTError where the teachers' labels differ, and as `teach` does.
    """
    if len(teachers) == 1:
        yield from teach(teachers[0], docs, batch_size)
        return
    for batch in minibatch(docs, batch_size):
        tags, relations = [], []
        for teacher in teachers:
            for doc in batch:
                # What one teacher leaves unsaid is not what the one before it said.
                doc.user_data.pop(SOFT_LABELS_KEY, None)
                doc.user_data.pop(SOFT_RELATIONS_KEY, None)
            batch = list(teach(teacher, batch, batch_size))
            tags.append([_tags_of(doc) for doc in batch])
            relations.append([get_soft_relations(doc) for doc in batch])
        for doc, *each in zip(batch, *tags, strict=True):
            _set_mean_tags(doc, [one for one in each if one is not None])
        for doc, *judged in zip(batch, *relations, strict=True):
            _set_mean_relations(doc, [soft for soft in judged if soft is not None])
        yield from batch


def _tags_of(doc: Doc) -> tuple[list[str], numpy.ndarray] | None:
    tags = soft_tags(doc)
    probabilities = get_soft_labels(doc, tags) if tags else None
    return None if probabilities is None else (tags, probabilities)


def _set_mean_tags(doc: Doc, known: Sequence[tuple[list[str], numpy.ndarray]]) -> None:
    if known:
        tags = _shared("tags", [tags for tags, _ in known])
        set_soft_labels(doc, tags, numpy.mean([array for _, array in known], axis=0))


def _set_mean_relations(doc: Doc, known: Sequence[SoftRelations]) -> None:
    if not known:
        return
    _shared("relation labels", [soft.labels for soft in known])
    first = known[0]
    rows = [(soft.probabilities, soft.rows()) for soft in known]
    means = [
        numpy.mean([array[at[pair]] for array, at in rows if pair in at], axis=0)
        for pair in first.rows()
    ]
    mean = numpy.array(means, dtype="float32").reshape(first.probabilities.shape)
    set_soft_relations(doc, first._replace(probabilities=mean))


def _shared(what: str, each: Sequence[list[str]]) -> list[str]:
    for other in each[1:]:
        if other != each[0]:
            raise MMCoTError(Errors.E505.format(what=what, first=each[0], other=other))
    return each[0]

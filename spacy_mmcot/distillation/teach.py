"""Trained pipelines as teachers: their label probabilities, computed once and written onto Docs,
and targets for a student's prompt from the Docs' knowledge.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import minibatch

from ..corpus.extensions import copy_entities, copy_tokens, register_extensions
from ..errors import Errors, MMCoTError
from ..model.knowledge import get_concluded_entities, get_concluded_relations, get_full_text
from ..model.sources import load_pretrained
from ..types import IMAGE_KEY, PROMPT_TARGET_KEY, digest_text
from .entity_teachers import EntityTeacher, check_label_table, predict_mapped_tags
from .soft_labels import SoftRelations, SoftTags, set_soft_labels, set_soft_relations


class KnowledgeEncoder:
    """A frozen encoder that turns a knowledge text into target vectors: its last-layer states are
    cut into `length` slices of equal size, and the mean of each slice is one target vector."""

    def __init__(self, source: str, length: int, max_pieces: int = 128):
        """source: an encoder source. length: prompt vectors a text. max_pieces: word pieces that
        are read of a text. Raises MMCoTError where the encoder cannot be loaded."""
        self.tokenizer, self.encoder = load_pretrained(source)
        self.length, self.max_pieces = length, max_pieces

    def encode(self, texts: Sequence[str]) -> NDArray[numpy.float32]:
        """(texts, length, width), not yet centred."""
        cut = {"padding": True, "truncation": True, "max_length": self.max_pieces}
        batch: Any = self.tokenizer(list(texts), return_tensors="pt", **cut)
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
        doc.user_data[PROMPT_TARGET_KEY] = {
            "text": digest_text(doc.text),
            "vectors": target.astype("float16").tobytes(),
        }
    return len(known)


def get_encoder_source(nlp: Language) -> str:
    """The encoder source of a pipeline's transformer. Raises MMCoTError where it has none."""
    try:
        return nlp.config["components"]["transformer"]["model"]["source"]
    except KeyError:
        raise MMCoTError(Errors.E504.format(pipeline=nlp.pipe_names)) from None


# Factories whose components give probabilities.
TEACHERS = ("mmcot_ner", "mmcot_rel")
# The tag and the relation probabilities of a Doc; None where a teacher has no component for them.
Prediction = tuple[SoftTags | None, SoftRelations | None]


def teach(
    teachers: EntityTeacher | Sequence[EntityTeacher],
    docs: Iterable[Doc],
    *,
    labels: Mapping[str, str] | None = None,
    dropped: Counter[str] | None = None,
    pictures: bool = True,
    batch_size: int = 64,
) -> Iterator[Doc]:
    """Write the teachers' label probabilities onto each Doc, in order: of the tags of its tokens
    and of the labels of its mention pairs, as far as the pipelines have components for them.
    Mentions are the Doc's own entities where it is labelled, otherwise those that each teacher
    finds.

    A teacher that learned to start from an LLM's conclusions says nothing about Docs without one,
    such as augmentations: they get no soft labels of it.

    Of several teachers the mean is written (an ensemble's soft labels: Hinton et al., 2015,
    "Distilling the knowledge in a neural network"). For a pair of mentions it is the mean over the
    teachers that judged the pair, among the pairs that the first one judged.

    teachers: a trained pipeline with an `mmcot_ner` or `mmcot_rel` component, or several with the
        same labels, on one vocab. With `labels`, any pipelines that find entities.
    docs: with the knowledge that the teachers read. Labelled or not, their entities and relations
        stay as they are.
    labels: the label to write for each label of the teachers' entities, such as
        `{"ORGANIZATION": "ORG"}`. An entity's `span._.mmcot_score` is its probability, or else
        0.95. No relations are written.
    dropped: counts the entities whose label is not in `labels`, and those of GLiNER that overlap
        others.
    pictures: whether the teachers see the Docs' pictures.

    Raises MMCoTError for a pipeline without such a component, where the labels differ, and where
    `labels` has no label of a teacher.
    """
    teachers = list(teachers) if isinstance(teachers, Sequence) else [teachers]
    dropped = Counter() if dropped is None else dropped
    if labels is not None:
        register_extensions()
        for teacher in teachers:
            check_label_table(teacher, labels)
    hidden = set() if pictures else {IMAGE_KEY}
    for batch in minibatch(docs, batch_size):
        predictions: list[list[Prediction]] = []
        for teacher in teachers:
            vocab = None if labels is None else teacher.vocab
            copies = [copy_tokens(doc, set(doc.user_data) - hidden, vocab) for doc in batch]
            if labels is not None:
                mapped = predict_mapped_tags(teacher, copies, labels, dropped)
                predictions.append([(tags, None) for tags in mapped])
            elif isinstance(teacher, Language):
                predictions.append(_predict(teacher, batch, copies))
            else:
                raise MMCoTError(Errors.E513.format(source="The teacher"))
        for doc, *each in zip(batch, *predictions, strict=True):
            if tags := [tags for tags, _ in each if tags is not None]:
                set_soft_labels(doc, *_mean_tags(tags))
            if relations := [relations for _, relations in each if relations is not None]:
                set_soft_relations(doc, _mean_relations(relations))
        yield from batch


def _predict(teacher: Language, docs: Sequence[Doc], copies: list[Doc]) -> list[Prediction]:
    """What one teacher predicts for each Doc. copies: of the Docs, without annotation."""
    factories = [teacher.get_pipe_meta(name).factory for name in teacher.pipe_names]
    teaching = [i for i, factory in enumerate(factories) if factory in TEACHERS]
    if not teaching:
        raise MMCoTError(Errors.E502.format(pipeline=teacher.pipe_names))
    tags: list[SoftTags | None] = [None] * len(docs)
    relations: Sequence[SoftRelations | None] = [None] * len(docs)
    # Components behind the last teaching one are not run.
    components: list[Any] = [component for _, component in teacher.pipeline]
    for i, component in enumerate(components[: teaching[-1] + 1]):
        if factories[i] == "mmcot_ner":
            marginals = component.predict_marginals(copies)
            tags = [SoftTags(component.tags, probabilities) for probabilities in marginals]
            if component.cfg.get("from_conclusions"):
                pairs = zip(docs, tags, strict=True)
                tags = [None if get_concluded_entities(doc) is None else t for doc, t in pairs]
        elif factories[i] == "mmcot_rel":
            for doc, copy in zip(docs, copies, strict=True):
                if doc.has_annotation("ENT_IOB"):
                    copy_entities(doc, copy)
            relations = component.predict_soft_relations(copies)
            if component.cfg.get("from_conclusions"):
                both = zip(docs, relations, strict=True)
                relations = [None if get_concluded_relations(doc) is None else r for doc, r in both]
        if i < teaching[-1]:
            # A component that is a function has no pipe.
            piped = component.pipe(copies) if hasattr(component, "pipe") else map(component, copies)
            copies = list(piped)
    return list(zip(tags, relations, strict=True))


def _mean_tags(each: Sequence[SoftTags]) -> SoftTags:
    _check_same("tags", [soft.tags for soft in each])
    return SoftTags(each[0].tags, numpy.mean([soft.probabilities for soft in each], axis=0))


def _mean_relations(each: Sequence[SoftRelations]) -> SoftRelations:
    if len(each) == 1:
        return each[0]
    _check_same("relation labels", [soft.labels for soft in each])
    rows = [(soft.probabilities, soft.index_rows()) for soft in each]
    means = [
        numpy.mean([array[index[pair]] for array, index in rows if pair in index], axis=0)
        for pair in each[0].index_rows()
    ]
    mean = numpy.array(means, dtype="float32").reshape(each[0].probabilities.shape)
    return each[0]._replace(probabilities=mean)


def _check_same(what: str, each: Sequence[list[str]]) -> None:
    if other := [names for names in each if names != each[0]]:
        raise MMCoTError(Errors.E505.format(what=what, first=each[0], other=other[0]))

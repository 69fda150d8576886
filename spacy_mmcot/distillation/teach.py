"""Trained pipelines as teachers: their label probabilities, computed once and written onto Docs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import minibatch
from spacy.vocab import Vocab

from ..corpus.extensions import copy_tokens, register
from ..errors import Errors, MMCoTError
from ..types import IMAGE_KEY
from .entity_teachers import EntityTeacher, check_label_table, predict_mapped_tags
from .soft_labels import SoftRelations, SoftTags, set_soft_labels, set_soft_relations

# Factories whose components give probabilities, by `predict_marginals` and
# `predict_soft_relations`.
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

    Of several teachers the mean is written (an ensemble's soft labels: Hinton et al., 2015,
    "Distilling the knowledge in a neural network"). For a pair of mentions it is the mean over the
    teachers that judged the pair, among the pairs that the first one judged.

    teachers: a trained pipeline with an `mmcot_ner` or `mmcot_rel` component, or several with the
        same labels, on one vocab. With `labels`, any pipelines that find entities.
    docs: with the knowledge that the teachers read. Labelled or not, their entities and relations
        stay as they are.
    labels: the label to write for each label of the teachers' entities, such as
        `{"ORGANIZATION": "ORG"}`. An entity's `span._.mmcot_score` is its probability, or the score
        of its span group, or else 0.95. No relations are written.
    dropped: counts the entities whose label is not in `labels`.
    pictures: whether the teachers see the Docs' pictures.

    Raises MMCoTError for a pipeline without such a component, where the labels differ, and where
    `labels` has no label of a teacher.
    """
    teachers = list(teachers) if isinstance(teachers, Sequence) else [teachers]
    dropped = Counter() if dropped is None else dropped
    if labels is not None:
        register()
        for teacher in teachers:
            check_label_table(teacher, labels)
    for batch in minibatch(docs, batch_size):
        predictions: list[list[Prediction]] = []
        for teacher in teachers:
            copies = [
                _copy(doc, pictures, None if labels is None else teacher.vocab) for doc in batch
            ]
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
        elif factories[i] == "mmcot_rel":
            _set_gold_mentions(docs, copies)
            relations = component.predict_soft_relations(copies)
        if i < teaching[-1]:
            # A component that is a function has no pipe.
            piped = component.pipe(copies) if hasattr(component, "pipe") else map(component, copies)
            copies = list(piped)
    return list(zip(tags, relations, strict=True))


def _copy(doc: Doc, pictures: bool, vocab: Vocab | None) -> Doc:
    keys = [key for key in doc.user_data if pictures or key != IMAGE_KEY]
    return copy_tokens(doc, keys, vocab)


def _set_gold_mentions(docs: Sequence[Doc], copies: Sequence[Doc]) -> None:
    for doc, copy in zip(docs, copies, strict=True):
        if doc.has_annotation("ENT_IOB"):
            spans = [Span(copy, ent.start, ent.end, label=ent.label) for ent in doc.ents]
            copy.set_ents(spans, default="outside")


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

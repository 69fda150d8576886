"""Several teachers as one: the mean of what each says of a Doc."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import minibatch

from ..errors import Errors, MMCoTError
from ..types import SOFT_LABELS_KEY, SOFT_RELATIONS_KEY
from .soft_labels import get_soft_labels, set_soft_labels, soft_tags
from .soft_relations import SoftRelations, get_soft_relations, set_soft_relations
from .teach import teach


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

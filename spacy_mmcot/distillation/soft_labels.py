"""A teacher's tag distributions as a Doc keeps them: msgpack-plain and compact.

A teacher's label distributions of mention pairs as a Doc keeps them: msgpack-plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..errors import Errors, MMCoTError
from ..types import SOFT_LABELS_KEY, SOFT_RELATIONS_KEY


def set_soft_labels(doc: Doc, tags: Sequence[str], probabilities: NDArray) -> None:
    """Write (tokens, tags) probabilities onto the Doc as 16-bit floats: 18 bytes a token for
    four labels, and far less once a DocBin has compressed the near one-hot rows."""
    doc.user_data[SOFT_LABELS_KEY] = {
        "tags": list(tags),
        "probabilities": numpy.asarray(probabilities, dtype="float16").tobytes(),
    }


def soft_tags(doc: Doc) -> list[str]:
    """The tags that the Doc's soft labels speak of, [] where it has none."""
    entry = doc.user_data.get(SOFT_LABELS_KEY)
    return list(entry["tags"]) if entry else []


def get_soft_labels(doc: Doc, tags: Sequence[str]) -> NDArray[numpy.float32] | None:
    """The Doc's soft labels as (tokens, tags) rows that sum to 1, in the order of `tags`; None
    where it has none.

    Raises MMCoTError if the teacher knew other tags than `tags` holds, or another tokenization.
    """
    entry: dict[str, Any] | None = doc.user_data.get(SOFT_LABELS_KEY)
    if not entry:
        return None
    known = list(entry["tags"])
    unknown = sorted(set(known) - set(tags))
    if unknown:
        raise MMCoTError(Errors.E500.format(unknown=unknown, allowed=list(tags)))
    stored = numpy.frombuffer(entry["probabilities"], dtype="float16").astype("float32")
    if stored.size != len(doc) * len(known):
        raise MMCoTError(
            Errors.E501.format(rows=stored.size // max(1, len(known)), tokens=len(doc))
        )
    probabilities = numpy.zeros((len(doc), len(tags)), dtype="float32")
    probabilities[:, [tags.index(tag) for tag in known]] = stored.reshape(-1, len(known))
    return probabilities / probabilities.sum(axis=1, keepdims=True).clip(min=1e-6)


class SoftRelations(NamedTuple):
    """mentions: (start, end, label), character offsets, end exclusive; pairs: int array (pairs, 2)
    of head and tail, indexes into mentions; probabilities: (pairs, 1 + labels), the first of them
    that of no relation."""

    labels: list[str]
    mentions: list[tuple[int, int, str]]
    pairs: NDArray[numpy.int64]
    probabilities: NDArray[numpy.float32]

    def rows(self) -> dict[tuple[int, int, int, int], int]:
        """Where each pair's distribution is, by the characters of head and tail."""
        return {
            (*self.mentions[head][:2], *self.mentions[tail][:2]): row
            for row, (head, tail) in enumerate(self.pairs.tolist())
        }


def set_soft_relations(doc: Doc, soft: SoftRelations) -> None:
    """Write the distributions onto the Doc, probabilities as 16-bit floats."""
    doc.user_data[SOFT_RELATIONS_KEY] = {
        "labels": list(soft.labels),
        "mentions": [list(mention) for mention in soft.mentions],
        "pairs": soft.pairs.astype("int32").tobytes(),
        "probabilities": numpy.asarray(soft.probabilities, dtype="float16").tobytes(),
    }


def get_soft_relations(doc: Doc, labels: Sequence[str] | None = None) -> SoftRelations | None:
    """The Doc's soft relations, rows that sum to 1 in the order of `labels` (by default the
    teacher's own); None where it has none.

    Raises MMCoTError if the teacher knew other labels than `labels` holds.
    """
    entry: dict[str, Any] | None = doc.user_data.get(SOFT_RELATIONS_KEY)
    if not entry:
        return None
    known = list(entry["labels"])
    labels = known if labels is None else list(labels)
    unknown = sorted(set(known) - set(labels))
    if unknown:
        raise MMCoTError(Errors.E500.format(unknown=unknown, allowed=labels))
    pairs = numpy.frombuffer(entry["pairs"], dtype="int32").reshape(-1, 2).astype("int64")
    stored = numpy.frombuffer(entry["probabilities"], dtype="float16").astype("float32")
    probabilities = numpy.zeros((len(pairs), 1 + len(labels)), dtype="float32")
    columns = [0, *(1 + labels.index(label) for label in known)]
    probabilities[:, columns] = stored.reshape(len(pairs), 1 + len(known))
    probabilities /= probabilities.sum(axis=1, keepdims=True).clip(min=1e-6)
    mentions = [(start, end, label) for start, end, label in entry["mentions"]]
    return SoftRelations(labels, mentions, pairs, probabilities)

"""Soft labels on a Doc: probabilities of the BIO tags of each token, and of the relation labels of
each pair of mentions.

Training reads them from here, whoever wrote them: `teach` does, and anything else may that knows
probabilities. All values serialise with msgpack.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..errors import Errors, MMCoTError
from ..types import NO_RELATION, SOFT_LABELS_KEY, SOFT_RELATIONS_KEY


class SoftTags(NamedTuple):
    """The tag probabilities of one Doc's tokens: (tokens, tags)."""

    tags: list[str]
    probabilities: NDArray[numpy.float32]


def list_tags(labels: Iterable[str]) -> list[str]:
    """The BIO tags of the labels: O, then B and I of each label in alphabetical order."""
    return ["O", *(f"{prefix}-{label}" for label in sorted(labels) for prefix in "BI")]


def make_tag_probabilities(
    n_tokens: int, tags: Sequence[str], spans: Iterable[tuple[int, int, str, float]]
) -> NDArray[numpy.float32]:
    """(tokens, tags): the probability of each span on its tags, the rest on O, the first tag.

    spans: (start, end, label, probability), token offsets, end exclusive.
    """
    probabilities = numpy.zeros((n_tokens, len(tags)), dtype="float32")
    probabilities[:, 0] = 1.0
    for start, end, label, probability in spans:
        probabilities[start:end] = 0.0
        probabilities[start:end, 0] = 1 - probability
        probabilities[start, tags.index(f"B-{label}")] = probability
        probabilities[start + 1 : end, tags.index(f"I-{label}")] = probability
    return probabilities


def set_soft_labels(doc: Doc, tags: Sequence[str], probabilities: NDArray) -> None:
    """Write tag probabilities, (tokens, tags), onto the Doc as 16-bit floats: 18 bytes a token for
    four labels, and far less once a DocBin has compressed the near one-hot rows."""
    doc.user_data[SOFT_LABELS_KEY] = {
        "tags": list(tags),
        "probabilities": numpy.asarray(probabilities, dtype="float16").tobytes(),
    }


def get_soft_tags(doc: Doc) -> list[str]:
    """The tags of the Doc's soft labels, [] where it has none."""
    entry = doc.user_data.get(SOFT_LABELS_KEY)
    return list(entry["tags"]) if entry else []


def get_soft_labels(doc: Doc, tags: Sequence[str]) -> NDArray[numpy.float32] | None:
    """The Doc's tag probabilities, (tokens, tags), in the order of `tags`; each row sums to 1.
    None where it has none.

    Raises MMCoTError where they cover a tag that is not in `tags`, or another number of tokens.
    """
    entry: dict[str, Any] | None = doc.user_data.get(SOFT_LABELS_KEY)
    if not entry:
        return None
    known = list(entry["tags"])
    stored = numpy.frombuffer(entry["probabilities"], dtype="float16")
    if stored.size != len(doc) * len(known):
        raise MMCoTError(
            Errors.E501.format(rows=stored.size // max(1, len(known)), tokens=len(doc))
        )
    return _reorder(stored, known, tags)


class SoftRelations(NamedTuple):
    """The label probabilities of a Doc's mention pairs.

    labels: without that of no relation.
    mentions: (start, end, label), character offsets, end exclusive.
    pairs: (pairs, 2), head and tail as indexes into mentions.
    probabilities: (pairs, 1 + labels), the first column is no relation.
    """

    labels: list[str]
    mentions: list[tuple[int, int, str]]
    pairs: NDArray[numpy.int64]
    probabilities: NDArray[numpy.float32]

    def index_rows(self) -> dict[tuple[int, int, int, int], int]:
        """The row of each pair, by the character offsets of head and tail."""
        return {
            (*self.mentions[head][:2], *self.mentions[tail][:2]): row
            for row, (head, tail) in enumerate(self.pairs.tolist())
        }


def set_soft_relations(doc: Doc, soft: SoftRelations) -> None:
    """Write the pairs' probabilities onto the Doc, as 16-bit floats."""
    doc.user_data[SOFT_RELATIONS_KEY] = {
        "labels": list(soft.labels),
        "mentions": [list(mention) for mention in soft.mentions],
        "pairs": soft.pairs.astype("int32").tobytes(),
        "probabilities": numpy.asarray(soft.probabilities, dtype="float16").tobytes(),
    }


def get_soft_relations(doc: Doc, labels: Sequence[str] | None = None) -> SoftRelations | None:
    """The Doc's soft relations, columns in the order of `labels` (None: as stored); each row sums
    to 1. None where it has none.

    Raises MMCoTError where they cover a label that is not in `labels`.
    """
    entry: dict[str, Any] | None = doc.user_data.get(SOFT_RELATIONS_KEY)
    if not entry:
        return None
    known = list(entry["labels"])
    labels = known if labels is None else list(labels)
    pairs = numpy.frombuffer(entry["pairs"], dtype="int32").reshape(-1, 2).astype("int64")
    stored = numpy.frombuffer(entry["probabilities"], dtype="float16")
    probabilities = _reorder(stored, [NO_RELATION, *known], [NO_RELATION, *labels])
    mentions = [(start, end, label) for start, end, label in entry["mentions"]]
    return SoftRelations(labels, mentions, pairs, probabilities)


def _reorder(
    stored: NDArray[numpy.float16], known: Sequence[str], wanted: Sequence[str]
) -> NDArray[numpy.float32]:
    """(rows, wanted): flat probabilities of the `known` columns in the order of `wanted`, 0 for
    columns that are not stored; rows sum to 1 again, which 16-bit floats had rounded away. Raises
    MMCoTError for a known column that is not wanted."""
    if unknown := sorted(set(known) - set(wanted)):
        allowed = [name for name in wanted if name != NO_RELATION]
        raise MMCoTError(Errors.E500.format(unknown=unknown, allowed=allowed))
    rows = stored.astype("float32").reshape(-1, len(known))
    probabilities = numpy.zeros((len(rows), len(wanted)), dtype="float32")
    probabilities[:, [wanted.index(column) for column in known]] = rows
    return probabilities / probabilities.sum(axis=1, keepdims=True).clip(min=1e-6)

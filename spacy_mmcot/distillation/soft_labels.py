"""A teacher's tag distributions as a Doc keeps them: msgpack-plain and compact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..errors import Errors, MMCoTError
from ..types import SOFT_LABELS_KEY


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

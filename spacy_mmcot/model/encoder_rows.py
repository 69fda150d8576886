"""Windows of Docs as rows of word pieces, and rows as padded batches.

The pictures of a batch of Docs on their way into the encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy
import torch
from spacy.tokens import Doc
from torch import Tensor

from ..docs import get_image
from ..errors import Errors, MMCoTError
from .encoder import PieceBatch, PromptedEncoder
from .knowledge import TAGS_PER_TOKEN
from .vision import VisionModel
from .wordpieces import Window, like_length

# Windows are run in groups of like length: at most this many padded pieces a group, and a
# window joins a group only while at least this share of its padded length is text; where padding
# is free, the second share.
MAX_GROUP_PIECES = 4096
MIN_GROUP_FILL = 0.8
MIN_FREE_FILL = 0.3


class Row(NamedTuple):
    """One window, ready for padding. `text` and `own` bound all its text pieces, and those that it
    answers for, within `ids`; `doc` is the index of its Doc."""

    ids: list[int]
    text: tuple[int, int]
    segment_start: int
    own: tuple[int, int]
    tags: list[list[int]] | None
    doc: int


def make_row(
    pieces: Any, words: list[Any], window: Window, segment: list[int], tags: Any, doc: int
) -> Row:
    ids = list(pieces.prefix)
    own = [0, 0]
    row_tags = [[0] * TAGS_PER_TOKEN] * len(ids) if tags is not None else None
    for i in range(window.start, window.end):
        if i == window.own_start:
            own[0] = len(ids)
        ids.extend(words[i])
        if row_tags is not None:
            row_tags.extend([tags[i]] * len(words[i]))
        if i == window.own_end - 1:
            own[1] = len(ids)
    text = (len(pieces.prefix), len(ids))
    if segment:
        ids += pieces.middle
        segment_start = len(ids)
        ids += [*segment, *pieces.pair_suffix]
    else:
        ids += pieces.suffix
        segment_start = len(ids)
    return Row(ids, text, segment_start, (own[0], own[1]), row_tags, doc)


def groups(rows: list[Row], padding_is_free: bool = False) -> list[list[int]]:
    """Indexes of rows, longest first, in groups that waste little on padding."""
    fill = MIN_FREE_FILL if padding_is_free else MIN_GROUP_FILL
    return like_length([len(row.ids) for row in rows], MAX_GROUP_PIECES, fill)


def pad(rows: Sequence[Row], module: PromptedEncoder, device: Any) -> PieceBatch:
    length = max(len(row.ids) for row in rows)
    ids = numpy.full((len(rows), length), module.pieces.tokenizer.pad_token_id or 0)
    mask, types, text = (numpy.zeros((len(rows), length), dtype="int64") for _ in range(3))
    tags = numpy.zeros((len(rows), length, TAGS_PER_TOKEN), dtype="int64")
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = row.ids
        mask[i, : len(row.ids)] = 1
        types[i, row.segment_start : len(row.ids)] = 1
        text[i, row.text[0] : row.text[1]] = 1
        if row.tags is not None:
            tags[i, : len(row.tags)] = row.tags
    tensors = [torch.from_numpy(array).to(device) for array in (ids, mask, types, text, tags)]
    if module.tags is None:
        tensors[4] = None  # type: ignore[call-overload]
    return PieceBatch(*tensors)


class PictureTraining:
    """How often training hides a picture, and shows that of another doc instead, both from 0 to
    1, and the weight of learning what belongs together."""

    def __init__(self, dropout: float, swap: float, matching: float):
        for name, rate in (("picture_dropout", dropout), ("picture_swap", swap)):
            if not 0.0 <= rate <= 1.0:
                allowed = "a share from 0 to 1"
                raise MMCoTError(Errors.E409.format(name=name, received=rate, allowed=allowed))
        if matching < 0.0:
            name, allowed = "picture_matching", "a weight of at least 0"
            raise MMCoTError(Errors.E409.format(name=name, received=matching, allowed=allowed))
        self.dropout, self.swap, self.matching = dropout, swap, matching


class DocPictures(NamedTuple):
    """The pictures that a batch of Docs is read with."""

    patches: Tensor  # (pictures, patches, patch width), each distinct picture once
    own: list[int]  # a Doc's index into them, -1 without a picture
    shown: list[int]  # the same, as training swaps them
    backprop: Callable[[Tensor], Any]


def see(
    vision: VisionModel, docs: Sequence[Doc], is_train: bool, training: PictureTraining
) -> DocPictures | None:
    """The patch features of the Docs' pictures; None where no Doc has one, or training hides
    all."""
    indexes = [i for i, doc in enumerate(docs) if get_image(doc) is not None]
    if is_train and indexes:
        kept = (torch.rand(len(indexes)) >= training.dropout).tolist()
        indexes = [i for i, keep in zip(indexes, kept, strict=True) if keep]
    if not indexes:
        return None
    features, backprop = vision([docs[i] for i in indexes], is_train)
    if not len(features.patches):
        return None
    own = [-1] * len(docs)
    for i, row in zip(indexes, features.rows, strict=True):
        own[i] = row
    shown = list(own)
    n_pictures = len(features.patches)
    if is_train and n_pictures > 1:
        swapped = (torch.rand(len(docs)) < training.swap).tolist()
        others = torch.randint(1, n_pictures, (len(docs),)).tolist()
        shown = [
            (row + other) % n_pictures if swap and row >= 0 else row
            for row, swap, other in zip(own, swapped, others, strict=True)
        ]
    return DocPictures(features.patches.requires_grad_(is_train), own, shown, backprop)


def matching_loss(
    module: PromptedEncoder, rows: Sequence[Row], pictures: DocPictures, device: Any
) -> Tensor | None:
    """How badly the Docs' texts and their own pictures are told to belong together. None where
    the batch has fewer than two pictures."""
    if module.visual is None or len(pictures.patches) < 2:
        return None
    # A long doc speaks once, by its first window.
    first = {row.doc: row for row in reversed(rows) if pictures.own[row.doc] >= 0}
    batch = pad(list(first.values()), module, device)
    index = torch.tensor([pictures.own[doc] for doc in first], device=device)
    return module.visual.matching_loss(
        module.word_embeddings(batch.ids), batch.text, pictures.patches, index
    )

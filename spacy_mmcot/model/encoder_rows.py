"""Windows of Docs as rows of word pieces, and rows as padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy
import torch

from .like_length import like_length
from .prompted_encoder import PieceBatch, PromptedEncoder
from .wordpieces import Window

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
    tags: list[int] | None
    doc: int


def make_row(
    pieces: Any, words: list[Any], window: Window, segment: list[int], tags: Any, doc: int
) -> Row:
    ids = list(pieces.prefix)
    own = [0, 0]
    row_tags = [0] * len(ids) if tags is not None else None
    for i in range(window.start, window.end):
        if i == window.own_start:
            own[0] = len(ids)
        ids.extend(words[i])
        if row_tags is not None:
            row_tags.extend([int(tags[i])] * len(words[i]))
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
    mask, types, text, tags = (numpy.zeros((len(rows), length), dtype="int64") for _ in range(4))
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

"""Where each token looked in its doc's picture, kept with the states and, on demand, on the Doc."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc
from spacy_transformers.data_classes import FullTransformerBatch, TransformerData
from thinc.api import torch2xp
from thinc.types import Ragged
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from ..types import ALIGNMENT_KEY


@dataclass
class View:
    """What one window saw in its picture."""

    gate: float  # 0 to 1, how far the picture bears on the text
    attention: Tensor  # (own pieces, patches)


@dataclass
class PromptedBatch(FullTransformerBatch):
    """A FullTransformerBatch that remembers what its windows saw.

    views: one a window, in order, None without a picture. doc_windows: how many windows a Doc
    has. token_pieces: how many word pieces a token has, Doc by Doc. grid: rows and columns of the
    patches.
    """

    views: Sequence[View | None] = ()
    doc_windows: Sequence[int] = ()
    token_pieces: Sequence[Sequence[int]] = ()
    grid: tuple[int, int] = (0, 0)

    def split_by_doc(self) -> list[TransformerData]:
        """What each Doc keeps. The base class finds each Doc's tokens by asking spaCy for every
        one of them; here their numbers are known."""
        states = torch2xp(cast(Any, self.model_output).last_hidden_state)
        result = []
        window = token = piece = 0
        for n_windows, pieces in zip(self.doc_windows, self.token_pieces, strict=True):
            if not n_windows:
                result.append(TransformerData.empty())
                continue
            windows = slice(window, window + n_windows)
            align = self.align[token : token + len(pieces)]
            wordpieces = self.wordpieces[windows]
            result.append(
                TransformerData(
                    wordpieces=wordpieces,
                    model_output=BaseModelOutput(last_hidden_state=cast(Any, states[windows])),
                    align=Ragged(align.dataXd - piece, align.lengths),
                )
            )
            window, token = windows.stop, token + len(pieces)
            piece += wordpieces.input_ids.size
        return result


def make_alignment_setter() -> Callable[[list[Doc], FullTransformerBatch], None]:
    """`spacy_mmcot.alignment_setter.v1`, for `set_extra_annotations` of the `transformer`
    component: keeps `doc._.mmcot_alignment` of docs with a picture."""
    return set_alignment


def set_alignment(docs: list[Doc], batch: FullTransformerBatch) -> None:
    """Write the attention of each token over the patches onto its Doc, where it has a picture."""
    if not isinstance(batch, PromptedBatch):
        return
    start = 0
    for doc, n_windows, pieces in zip(docs, batch.doc_windows, batch.token_pieces, strict=True):
        views = batch.views[start : start + n_windows]
        start += n_windows
        seen = [view for view in views if view is not None]
        if seen and len(seen) == len(views):
            attention = numpy.concatenate([view.attention.cpu().numpy() for view in seen])
            doc.user_data[ALIGNMENT_KEY] = {
                "gate": float(numpy.mean([view.gate for view in seen])),
                "grid": list(batch.grid),
                "tokens": _token_means(attention, pieces).astype("float16").tobytes(),
            }
        else:
            doc.user_data.pop(ALIGNMENT_KEY, None)


def _token_means(
    attention: NDArray[numpy.float32], pieces: Sequence[int]
) -> NDArray[numpy.float32]:
    """Of the pieces of each token: (tokens, patches)."""
    counts = numpy.asarray(pieces)
    starts = numpy.concatenate([[0], numpy.cumsum(counts)[:-1]])
    sums: NDArray[numpy.float32] = numpy.add.reduceat(attention, starts, axis=0)
    return sums / counts[:, None]

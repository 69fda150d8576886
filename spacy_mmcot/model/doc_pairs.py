"""The mention pairs of a Doc that are to be scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc


class DocPairs(NamedTuple):
    """A Doc, its mentions as (start token, end token, label), end exclusive, and the pairs to
    score: an int array (pairs, 2) of head and tail, indexes into the mentions."""

    doc: Doc
    mentions: Sequence[tuple[int, int, str]]
    pairs: NDArray[numpy.int64]

"""From Docs to an encoder's input: word pieces aligned to spaCy's tokens, windows over long Docs,
groups of windows of similar length, and the input of a student without an encoder.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray
from spacy.attrs import IS_LOWER, IS_SPACE, IS_TITLE, IS_UPPER, ORTH, SPACY
from spacy.ml.featureextractor import FeatureExtractor
from spacy.tokens import Doc
from thinc.api import (
    HashEmbed,
    Maxout,
    Model,
    chain,
    concatenate,
    list2ragged,
    ragged2list,
    with_array,
)
from thinc.types import Floats2d, Ragged

from ..errors import Errors, MMCoTError

# Bounds the memory of a long-running process.
MAX_CACHED_WORDS = 20_000
# How a token can be written: see `list_cases`.
CASES = 8


class Window(NamedTuple):
    """A run of a Doc's tokens that fits the encoder. It reads [start, end) and returns the states
    of [own_start, own_end): neighbours give each other context, every token has one state."""

    start: int
    own_start: int
    own_end: int
    end: int


class WordPieceTokenizer:
    """Splits spaCy tokens into a Hugging Face tokenizer's word pieces: each by itself, so that
    alignment is exact, and cached. A token for which the tokenizer returns nothing (some emoji,
    white space) becomes the unknown piece."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self._cache: dict[tuple[int, bool], tuple[int, ...]] = {}
        unknown = tokenizer.unk_token_id
        self._unknown: tuple[int, ...] = (tokenizer.pad_token_id if unknown is None else unknown,)
        self.pad_id: int = tokenizer.pad_token_id or 0
        self._spaced = self._split(["a"]) != self._split([" a"])
        # Whether it splits all words as if they were in small letters.
        self.ignores_case = self._split(["A"]) == self._split(["a"])
        self.prefix, self.suffix = self._special_pieces("a")
        _, self.middle, self.pair_suffix = self._special_pieces("a", "a")

    def split_doc(self, doc: Doc, limit: int) -> list[tuple[int, ...]]:
        """The pieces of each token: at least one, and at most the first `limit`."""
        if len(self._cache) > MAX_CACHED_WORDS:
            # A new one, since another thread may be reading the old one.
            self._cache = {}
        cache = self._cache
        orths = doc.to_array(ORTH).tolist()
        after_space = [False] * len(orths)
        if self._spaced:
            spaces: Any = doc.to_array([SPACY, IS_SPACE])
            after_space = [False, *spaces.any(axis=1).tolist()]
        keys = list(zip(orths, after_space, strict=False))
        if missing := dict.fromkeys(key for key in keys if key not in cache):
            strings = doc.vocab.strings
            words = [" " * space + strings[orth] for orth, space in missing]
            cache.update(zip(missing, self._split(words), strict=True))
        return [cache[key][:limit] for key in keys]

    def split_joined(self, texts: Sequence[Sequence[str]], limit: int) -> list[list[int]]:
        """The pieces of each group of texts, joined, without special ones, at most `limit` a group.
        The limit is shared equally; what a short text does not need goes to the others."""
        # All but the first have a space before them, which some families' pieces include.
        flat = [" " * bool(i) + text for parts in texts for i, text in enumerate(parts)]
        pieces = iter(self._encode(flat) if flat else ())
        joined = []
        for parts in texts:
            rows = [next(pieces) for _ in parts]
            shares = _share_limit([len(row) for row in rows], limit)
            joined.append([p for row, n in zip(rows, shares, strict=True) for p in row[:n]])
        return joined

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]

    def _split(self, words: list[str]) -> list[tuple[int, ...]]:
        return [tuple(row) or self._unknown for row in self._encode(words)]

    def _special_pieces(self, *texts: str) -> list[list[int]]:
        """The runs of special pieces before, between and after the texts."""
        encoded = self.tokenizer(*texts, return_special_tokens_mask=True)
        pieces = zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
        runs: list[list[int]] = [[]]
        for special, run in itertools.groupby(pieces, key=operator.itemgetter(1)):
            if special:
                runs[-1] = [piece for piece, _ in run]
            else:
                runs.append([])
        # A tokenizer may put nothing between two texts.
        while len(runs) <= len(texts):
            runs.insert(1, [])
        return runs


def list_cases(doc: Doc) -> list[int]:
    """How each token is written: the sum of 1 for small letters, 2 for capitals and 4 for a first
    capital; 0 for other mixtures, and for what has no letters of two cases."""
    flags: Any = doc.to_array([IS_LOWER, IS_UPPER, IS_TITLE])
    cases: list[int] = (flags.astype("int64") @ [1, 2, 4]).tolist()
    return cases


def make_windows(lengths: Sequence[int], budget: int, overlap: int) -> list[Window]:
    """Windows of at most `budget` pieces over tokens of the given piece counts.

    Neighbours share about `overlap` pieces; each owns up to the middle of what they share.

    Raises MMCoTError for a budget below 1.
    """
    if budget < 1:
        raise MMCoTError(Errors.E403.format(budget=budget))
    n = len(lengths)
    if sum(lengths) <= budget:
        return [Window(0, 0, n, n)] if n else []
    ends = numpy.concatenate([[0], numpy.cumsum(lengths)])
    overlap = min(overlap, budget // 2)
    runs: list[tuple[int, int]] = []
    start = 0
    while True:
        end = int(numpy.searchsorted(ends, ends[start] + budget, side="right")) - 1
        runs.append((start, end))
        if end >= n:
            break
        shared = int(numpy.searchsorted(ends, ends[end] - overlap, side="left"))
        start = max(start + 1, min(shared, end))
    inner = ((start + end + 1) // 2 for (_, end), (start, _) in itertools.pairwise(runs))
    cuts = [0, *inner, n]
    # Beside very long tokens a window may own nothing.
    return [
        Window(start, own_start, own_end, end)
        for (start, end), (own_start, own_end) in zip(runs, itertools.pairwise(cuts), strict=True)
        if own_start < own_end
    ]


def _share_limit(lengths: Sequence[int], limit: int) -> list[int]:
    """How much of `limit` each gets: all it needs, or an equal part of what the shorter leave."""
    shares = [0] * len(lengths)
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    for left, i in zip(range(len(lengths), 0, -1), by_length, strict=True):
        shares[i] = min(lengths[i], limit // left)
        limit -= shares[i]
    return shares


def group_by_length(lengths: Sequence[int], most: int, fill: float = 0.0) -> list[list[int]]:
    """Indexes of sequences, longest first, in groups to be padded together. A group has at most
    `most` items, padding included, or one sequence; its shortest has at least the share `fill` of
    its longest's length."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        group = groups[-1] if groups else [i]
        longest = lengths[group[0]]
        if groups and (len(group) + 1) * longest <= most and lengths[i] >= fill * longest:
            group.append(i)
        else:
            groups.append([i])
    return groups


class Row(NamedTuple):
    """A window's word pieces. Bounds are indexes into `ids`, ends exclusive."""

    doc: int  # index of its Doc
    ids: list[int]
    text: tuple[int, int]  # the text's pieces, special ones and segment excluded
    segment_start: int
    own: tuple[int, int]  # the pieces whose states the window returns
    own_tokens: tuple[int, int]
    counts: list[int]  # how many pieces each of these tokens has
    tags: list[list[int]] | None  # rows of tag embeddings of each piece of prefix and text
    cases: list[int]  # of each piece: that of its token, 0 for special ones and the segment


def make_rows(
    pieces: WordPieceTokenizer,
    doc: Doc,
    index: int,
    *,
    most: int,
    stride: int,
    segment: Sequence[int] = (),
    tags: NDArray[numpy.int64] | None = None,
) -> list[Row]:
    """The windows of a Doc, in text order; none of a Doc without tokens.

    index: the Doc's index. most: most pieces of a window, special ones and segment included.
    stride: pieces that neighbours share. segment: the pieces of the Doc's knowledge segment, empty
    for none. tags: (tokens, tags), the rows of its tag embeddings.

    Raises MMCoTError where `most` leaves no room for the text.
    """
    end = [*segment, *pieces.pair_suffix] if segment else []
    after = [*(pieces.middle if segment else pieces.suffix), *end]
    first = len(pieces.prefix)
    budget = most - first - len(after)
    words = pieces.split_doc(doc, max(1, budget))
    counts = [len(word) for word in words]
    # An encoder whose tokenizer keeps letter case has no embeddings of it.
    cases = list_cases(doc) if pieces.ignores_case else [0] * len(doc)
    rows = []
    for window in make_windows(counts, budget, stride):
        owners = [i for i in range(window.start, window.end) for _ in words[i]]
        text = itertools.chain.from_iterable(words[window.start : window.end])
        ids = [*pieces.prefix, *text, *after]
        own_counts = counts[window.own_start : window.own_end]
        own_start = first + sum(counts[window.start : window.own_start])
        row = Row(
            index,
            ids,
            text=(first, first + len(owners)),
            segment_start=len(ids) - len(end),
            own=(own_start, own_start + sum(own_counts)),
            own_tokens=(window.own_start, window.own_end),
            counts=own_counts,
            tags=None if tags is None else [[0] * tags.shape[1]] * first + tags[owners].tolist(),
            cases=[0] * first + [cases[i] for i in owners] + [0] * len(after),
        )
        rows.append(row)
    return rows


def make_embed(
    width: int, attrs: list[str], rows: list[int], pieces: Model[list[Doc], Ragged]
) -> Model[list[Doc], list[Floats2d]]:
    """Token vectors of hashed attributes and of word pieces, each part as wide as the output.

    attrs, rows: token attributes, and the rows of each one's hash table.
    pieces: one vector a token, (tokens, width), of all Docs.
    """
    hashes: list[Model] = [
        HashEmbed(width, n, column=column, seed=column) for column, n in enumerate(rows)
    ]
    hashed: Model = chain(FeatureExtractor(attrs), list2ragged(), with_array(concatenate(*hashes)))
    mix: Model[Floats2d, Floats2d] = Maxout(width, width * (len(rows) + 1), nP=3, normalize=True)
    return chain(concatenate(hashed, pieces), with_array(mix), ragged2list())

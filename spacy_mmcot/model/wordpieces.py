"""Docs to word pieces: ids, alignment to spaCy's tokens, and windows over long docs.

Sequences in groups of like length, so that padding them wastes little.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray
from spacy.attrs import IS_SPACE, ORTH, SPACY
from spacy.tokens import Doc

from ..errors import Errors, MMCoTError

# Bounds the memory of a long-running process that keeps meeting new words.
MAX_CACHED_WORDS = 20_000


class Window(NamedTuple):
    """A run of a Doc's tokens that fits the encoder.

    The encoder reads tokens [start, end); the window answers for [own_start, own_end) alone, so
    that neighbouring windows give each other context and every token has one state.
    """

    start: int
    own_start: int
    own_end: int
    end: int


class WordPieceTokenizer:
    """Splits spaCy tokens into a Hugging Face tokenizer's word pieces.

    Each token is split by itself and remembered, so that alignment is exact and a known word
    costs a dictionary look-up. A token that the tokenizer turns into nothing (some emoji, white
    space) becomes the unknown piece, never a gap.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self._cache: dict[tuple[int, bool], tuple[int, ...]] = {}
        unknown = tokenizer.unk_token_id
        self._unknown: tuple[int, ...] = (tokenizer.pad_token_id if unknown is None else unknown,)
        self._spaced = self._split(["a"]) != self._split([" a"])
        self.prefix, self.suffix = self._special_pieces("a")
        _, self.middle, self.pair_suffix = self._special_pieces("a", "a")

    @property
    def n_special(self) -> int:
        """Special pieces around a single text."""
        return len(self.prefix) + len(self.suffix)

    @property
    def n_special_pair(self) -> int:
        """Special pieces around a text and its segment."""
        return len(self.prefix) + len(self.middle) + len(self.pair_suffix)

    @functools.cached_property
    def strings(self) -> NDArray[numpy.object_]:
        """The piece of each id: a look-up for arrays of ids that costs no call a piece."""
        n_pieces = len(self.tokenizer)
        pieces = self.tokenizer.convert_ids_to_tokens(list(range(n_pieces)))
        return numpy.array(pieces, dtype=object)

    def pieces(self, doc: Doc, limit: int) -> list[tuple[int, ...]]:
        """The pieces of each token, at least one and at most `limit` (the rest of an overlong
        token is cut: the states of its first pieces speak for it)."""
        if len(self._cache) > MAX_CACHED_WORDS:
            # Another thread may be reading the old one.
            self._cache = {}
        cache = self._cache
        orths = doc.to_array(ORTH).tolist()
        if self._spaced:
            spaces: Any = doc.to_array([SPACY, IS_SPACE])
            after_space = [False, *spaces.any(axis=1).tolist()]
            keys = list(zip(orths, after_space, strict=False))
        else:
            keys = [(orth, False) for orth in orths]
        missing = {key: None for key in keys if key not in cache}
        if missing:
            strings = doc.vocab.strings
            words = [" " * space + strings[orth] for orth, space in missing]
            cache.update(zip(missing, self._split(words), strict=True))
        return [cache[key][:limit] for key in keys]

    def text_pieces(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        """The pieces of plain texts without special ones, cut at `limit` each; none for ""."""
        ids = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [row[:limit] if text else [] for text, row in zip(texts, ids, strict=True)]

    def joined_pieces(self, texts: Sequence[Sequence[str]], limit: int) -> list[list[int]]:
        """The pieces of several texts each, one behind the other, `limit` in all. A text that
        needs less than an equal share of the room leaves the rest to the others, so that none is
        crowded out."""
        # Further words of a text have a space before them, which some families' pieces hold.
        flat = [" " * bool(i) + text for parts in texts for i, text in enumerate(parts)]
        pieces = iter(self.text_pieces(flat, limit) if flat else ())
        joined = []
        for parts in texts:
            rows = [next(pieces) for _ in parts]
            room = zip(rows, _shares([len(row) for row in rows], limit), strict=True)
            joined.append([piece for row, share in room for piece in row[:share]])
        return joined

    def _split(self, words: list[str]) -> list[tuple[int, ...]]:
        ids = self.tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"]
        return [tuple(row) or self._unknown for row in ids]

    def _special_pieces(self, *texts: str) -> list[list[int]]:
        """The runs of special pieces before, between and after the texts."""
        encoded = self.tokenizer(*texts, return_special_tokens_mask=True)
        runs: list[list[int]] = [[]]
        in_text = False
        for piece, special in zip(
            encoded["input_ids"], encoded["special_tokens_mask"], strict=True
        ):
            if special:
                runs[-1].append(piece)
            elif not in_text:
                runs.append([])
            in_text = not special
        # A tokenizer may put nothing between two texts.
        while len(runs) <= len(texts):
            runs.insert(1, [])
        return runs


def make_windows(lengths: Sequence[int], budget: int, overlap: int) -> list[Window]:
    """Windows of at most `budget` pieces over tokens of the given piece counts.

    Neighbours share about `overlap` pieces; each owns up to the middle of what they share.
    """
    if budget < 1:
        raise MMCoTError(Errors.E403.format(budget=budget))
    n = len(lengths)
    ends = numpy.concatenate([[0], numpy.cumsum(lengths)])
    if ends[-1] <= budget:
        return [Window(0, 0, n, n)] if n else []
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
    cuts = [0]
    for (_, end), (start, _) in itertools.pairwise(runs):
        cuts.append((start + end + 1) // 2)
    cuts.append(n)
    # Beside very long tokens a window may be left with nothing to answer for.
    return [
        Window(start, own_start, own_end, end)
        for (start, end), (own_start, own_end) in zip(runs, itertools.pairwise(cuts), strict=True)
        if own_start < own_end
    ]


def _shares(lengths: Sequence[int], limit: int) -> list[int]:
    """How much of `limit` each gets: all it needs, or an equal part of what the shorter leave."""
    shares = [0] * len(lengths)
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    for left, i in zip(range(len(lengths), 0, -1), by_length, strict=True):
        shares[i] = min(lengths[i], limit // left)
        limit -= shares[i]
    return shares


def like_length(lengths: Sequence[int], most: int, fill: float = 0.0) -> list[list[int]]:
    """Indexes, longest first, in groups: padded, a group is at most `most` long in all, or one
    sequence; its shortest has at least the share `fill` of its longest's length."""
    found: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if found:
            longest = lengths[found[-1][0]]
            full = (len(found[-1]) + 1) * longest > most
            if not full and lengths[i] >= fill * longest:
                found[-1].append(i)
                continue
        found.append([i])
    return found

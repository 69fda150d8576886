"""Finding mentions again in a text that was rewritten. What is not certain is refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

Place = tuple[int, int]


class NotLocated(Exception):
    """Why a mention cannot be located; never leaves the corpus package."""


def occurrences(surface: str, text: str) -> list[Place]:
    """Where a surface stands in a text as a word or words of its own, in text order."""
    before = r"(?<!\w)" if re.match(r"\w", surface) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", surface) else ""
    return [match.span() for match in re.finditer(before + re.escape(surface) + after, text)]


def free_occurrences(surfaces: Iterable[str], text: str) -> dict[str, list[Place]]:
    """Where each surface stands, outside of the longer ones."""
    taken: list[Place] = []
    found: dict[str, list[Place]] = {}
    for surface in sorted(set(surfaces), key=lambda s: (-len(s), s)):
        found[surface] = [
            (start, end)
            for start, end in occurrences(surface, text)
            if all(end <= left or right <= start for left, right in taken)
        ]
        taken.extend(found[surface])
    return found


def locate(mentions: Sequence[tuple[str, str]], text: str) -> list[Place]:
    """Places of (surface, label) mentions in a text, in the order of the mentions: those of one
    surface take its occurrences in turn.

    Raises NotLocated where a surface occurs more or less often than it is mentioned, or is
    mentioned several times with different labels, so that it is open which is which.
    """
    counts = Counter(surface for surface, _ in mentions)
    found = free_occurrences(counts, text)
    for surface, count in counts.items():
        if not found[surface]:
            raise NotLocated("a mention is not in the new text")
        if len(found[surface]) < count:
            raise NotLocated("a mention occurs less often in the new text")
        if len(found[surface]) > count:
            raise NotLocated("a mention occurs more often in the new text than it is labelled")
    if len(counts) < len(set(mentions)):
        raise NotLocated("one surface has mentions of several labels")
    queues = {surface: iter(places) for surface, places in found.items()}
    return [next(queues[surface]) for surface, _ in mentions]


class Substitution:
    """Swaps of (old, new) surfaces applied to a text.

    An old surface that one swap names is swapped wherever it stands; one that as many swaps name
    as it has occurrences is swapped in turn. `text` is the result. Raises NotLocated where the
    number of swaps fits neither.
    """

    def __init__(self, text: str, swaps: Sequence[tuple[str, str]]) -> None:
        news: dict[str, list[str]] = {}
        for old, new in swaps:
            news.setdefault(old, []).append(new)
        # (start, end, new) in the old text, in text order.
        self._pieces: list[tuple[int, int, str]] = []
        for old, places in free_occurrences(news, text).items():
            chosen = news[old] * len(places) if len(news[old]) == 1 else news[old]
            if places and len(chosen) != len(places):
                raise NotLocated("a surface has fewer or more swaps than occurrences")
            self._pieces += [(*place, new) for place, new in zip(places, chosen, strict=False)]
        self._pieces.sort()
        self.text = self._replaced(text, 0, len(text))
        self._old = text

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def surface(self, start: int, end: int) -> str:
        """What the characters `start` to `end` of the old text have become. Raises NotLocated
        where a swap crosses one of them."""
        self._shift(start)
        self._shift(end)
        return self._replaced(self._old, start, end)

    def place(self, start: int, end: int) -> Place:
        """Where the characters `start` to `end` of the old text stand in the new one. Raises
        NotLocated where a swap crosses one of them."""
        return start + self._shift(start), end + self._shift(end)

    def _shift(self, position: int) -> int:
        shift = 0
        for start, end, new in self._pieces:
            if start < position < end:
                raise NotLocated("a swap covers a part of a mention")
            if end <= position:
                shift += len(new) - (end - start)
        return shift

    def _replaced(self, text: str, start: int, end: int) -> str:
        parts = []
        for left, right, new in self._pieces:
            if start <= left and right <= end:
                parts += [text[start:left], new]
                start = right
        return "".join([*parts, text[start:end]])

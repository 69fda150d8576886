"""Finding mentions, of which only the surface is known, in a text. What is not certain is refused.

A surface is the text of a mention as it is written. It is found as whole words only:
"Ann" does not stand in "Anna".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

Place = tuple[int, int]  # character offsets, end exclusive


class NotLocated(Exception):
    """Why a mention cannot be located. Callers in this package handle it."""


def find_surface(surface: str, text: str) -> list[Place]:
    """All places of a surface in a text, in text order."""
    before = r"(?<!\w)" if re.match(r"\w", surface) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", surface) else ""
    return [match.span() for match in re.finditer(before + re.escape(surface) + after, text)]


def find_surfaces(surfaces: Iterable[str], text: str) -> dict[str, list[Place]]:
    """The places of each surface, in text order, without those inside a longer surface."""
    taken: list[Place] = []
    found: dict[str, list[Place]] = {}
    for surface in sorted(set(surfaces), key=lambda s: (-len(s), s)):
        found[surface] = [
            (start, end)
            for start, end in find_surface(surface, text)
            if all(end <= left or right <= start for left, right in taken)
        ]
        taken.extend(found[surface])
    return found


def locate_mentions(mentions: Sequence[tuple[str, str]], text: str) -> list[Place]:
    """The places of (surface, label) mentions in a text, in the order of the mentions. Mentions of
    one surface take its places in turn.

    Raises NotLocated where a surface stands more or less often in the text than it is mentioned,
    and where its mentions have several labels, so that it is open which is which.
    """
    counts = Counter(surface for surface, _ in mentions)
    found = find_surfaces(counts, text)
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

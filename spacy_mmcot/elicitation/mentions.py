"""Where the words of an answer stand in a post, and which label they mean: as they are spelt, or
else as a reader sees them.
"""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from collections.abc import Sequence

# Categories of what a reader does not see or tell apart: white space, invisible characters, dashes
# and quotes.
_UNSEEN = {"Zs", "Zl", "Zp", "Cc", "Cf", "Pd", "Pc", "Pi", "Pf"}


def find_mention(mention: str, text: str) -> list[tuple[int, int]]:
    """Where a mention stands in a text, (start, end) characters: as it is spelt, as words of their
    own; else inside words; else as a reader sees it (`_fold`), and without a leading # or @."""
    words = mention.strip()
    if not words.strip("#@ "):
        return []
    before = r"(?<!\w)" if words[0].isalnum() else ""
    behind = r"(?!\w)" if words[-1].isalnum() else ""
    for pattern in (before + re.escape(words) + behind, re.escape(words)):
        if places := [match.span() for match in re.finditer(pattern, text)]:
            return places
    letters, (folded, origins) = fold_mention(words), _fold(text)
    places = [
        (origins[match.start()][0], origins[match.end() - 1][1])
        for match in re.finditer(re.escape(letters), folded if letters else "")
        # A letter is not found without its accent.
        if not unicodedata.combining(folded[match.end() : match.end() + 1] or " ")
    ]
    whole = [
        (start, end)
        for start, end in places
        if not any(map(str.isalnum, text[max(0, start - 1) : start] + text[end : end + 1]))
    ]
    return whole or places


def fold_mention(mention: str) -> str:
    """What two spellings of a mention share."""
    return _fold(mention)[0].lstrip("#@")


@functools.lru_cache(maxsize=256)
def _fold(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The characters by which texts are compared whatever their case, white space, dashes, quotes,
    Unicode form and HTML entities; and from which (start, end) of the text each comes."""
    characters: list[str] = []
    origins: list[tuple[int, int]] = []
    for piece in re.finditer(r"&#?\w{1,31};|.", text, re.DOTALL):
        seen = unicodedata.normalize("NFKD", html.unescape(piece[0])).casefold()
        for c in seen.replace("i\u0307", "i"):  # Turkish capitals
            if unicodedata.category(c) not in _UNSEEN and c not in "'\"`":
                characters.append(c)
                origins.append(piece.span())
    return "".join(characters), origins


def find_label(label: str, allowed: Sequence[str] | None) -> str | None:
    """The allowed label that an answer means, which may have it in another case, or with spaces."""
    if allowed is None or label in allowed:
        return label
    alike = [known for known in allowed if _fold(known)[0] == _fold(label)[0]]
    return alike[0] if len(alike) == 1 else None

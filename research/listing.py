"""Free-text entity lists, as chat models write them: 1. NAME (kind)2. NAME (kind)Reasoning: ..."""

from __future__ import annotations

import re

from spacy_mmcot.types import NounItem

_HEADING = re.compile(r"\s*(?:\w+\s+)?named entit(?:y|ies)\s*:\s*", re.IGNORECASE)
_REASONING = re.compile(r"(?:Reasoning|Explanation)\s*:\s*")
_NOTHING = re.compile(
    r"(?:1[.)]\s*)?(?:none\b|n/a\b|nothing\b|no\b|not applicable\b|unfortunately\b|"
    r"there\s+(?:are|is|do|does|were|was)\b[^.]*?\b(?:no|not|none)\b|"
    r"the\s+(?:sentence|text|post)\b[^.]*?\b(?:no|not)\b)",
    re.IGNORECASE,
)
_SEPARATORS = " \t\r\n,;.&"
_ENDS = " \t\r\n,;*\"'“”‘’`"
_UNNUMBERED = re.compile(r"(?<=\))\s*(?:[,;]|\band\b|\n)\s*(?=\S)|\s*\n\s*")
_DASH = re.compile(r"\s+[-–—]\s+|:\s+")


def parse_listing(text: str) -> tuple[list[NounItem], str]:
    """The items of a free-text answer, in its order, and its reasoning ("" where it has none).

    An item is a mention and, in its last bracket, a kind, which may hold brackets itself. Items
    without a kind are left out. An answer that says that there is nothing gives no items.
    """
    heading = _HEADING.match(text)
    body = text[heading.end() :] if heading else text
    mark = _REASONING.search(body)
    head, reasoning = (body[: mark.start()], body[mark.end() :]) if mark else (body, "")
    head = head.strip()
    if _NOTHING.match(head):
        return [], reasoning.strip() or ("" if heading else head)
    numbered = head.startswith(("1.", "1)"))
    if not (numbered or heading):
        return [], reasoning.strip() or head
    chunks = _split_numbered(head) if numbered else _UNNUMBERED.split(head)
    items = [item for chunk in chunks if (item := _item(chunk)) is not None]
    return items, reasoning.strip()


def _split_numbered(head: str) -> list[str]:
    chunks, number, start = [], 2, 2
    while (found := _next_marker(head, start, number)) is not None:
        chunks.append(head[start : found[0]])
        start, number = found[1], number + 1
    return [*chunks, head[start:]]


def _next_marker(head: str, start: int, number: int) -> tuple[int, int] | None:
    # Mentions hold numbers too ("16. August", "Area 2. 0"), so only the number that is due counts,
    # and one that follows a closed bracket before one that follows a mere blank.
    candidates = [
        match.span()
        for match in re.finditer(rf"(?<![\w.#@]){number}[.)](?!\d)\s*", head[start:])
        if match.start()
    ]
    spans = [(begin + start, end + start) for begin, end in candidates]
    outside = [s for s in spans if _depth(head[start : s[0]]) <= 0] or spans
    closed = [s for s in outside if head[start : s[0]].rstrip(_SEPARATORS).endswith(")")]
    blank = [s for s in outside if head[s[0] - 1] in _SEPARATORS]
    return next(iter(closed or blank), None)


def _depth(text: str) -> int:
    return text.count("(") - text.count(")")


def _item(chunk: str) -> NounItem | None:
    chunk = chunk.strip().lstrip("-*• ")
    close = chunk.rfind(")")
    if close < 0:
        parts = _DASH.split(chunk, maxsplit=1)
        return _made(parts[0], parts[1]) if len(parts) == 2 else None
    depth, begin = 0, close
    for begin in range(close, -1, -1):
        depth += {")": 1, "(": -1}.get(chunk[begin], 0)
        if depth == 0:
            break
    else:
        begin = chunk.find("(")
    if begin < 0:
        return None
    return _made(chunk[:begin], chunk[begin + 1 : close])


def _made(mention: str, kind: str) -> NounItem | None:
    mention, kind = mention.strip(_ENDS), kind.strip(_ENDS + ".")
    return NounItem(mention=mention, kind=kind) if mention and kind else None

"""Free-text entity lists, as chat models write them: 1. NAME (kind)2. NAME (kind)Reasoning: ...

From an LLM's raw answer to a value of `Answers`, or to a rejection that says why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import explain
from ..types import Dimension, EntityVariant, NounItem, Post
from .prompts import surfaces
from .replies import AnswerRejected

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


__all__ = ["AnswerRejected", "AnswerValue", "parse", "parse_listing"]

AnswerValue = list[NounItem] | str | EntityVariant
Item = TypeVar("Item", bound=BaseModel)
Value = TypeVar("Value")

_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
_QUOTES = {'"': '"', "“": "”", "«": "»"}
_DECODER = json.JSONDecoder()
# An answer with more JSON values than this is noise, and each one costs a pass over the text.
_MOST_VALUES = 50


def parse(
    raw: str, dimension: Dimension, post: Post, dropped: list[str] | None = None
) -> AnswerValue:
    """The value that `raw` holds for the field `dimension` of `Answers`.

    JSON may stand in a code fence or between other words. Mentions of a noun list that are not in
    the post's text, whatever their case, are left out and added to `dropped`; the others are
    spelt as the text has them. Raises AnswerRejected where the answer is empty, has another form,
    or does not keep to the post's mentions.
    """
    if not raw.strip():
        raise AnswerRejected("the answer is empty", raw)
    try:
        if dimension == "noun":
            return _noun(raw, post, dropped if dropped is not None else [])
        if dimension == "entity":
            return _entity(raw, post)
        return _text(raw, dimension, post)
    except AnswerRejected as rejected:
        rejected.raw = raw
        raise


def _noun(raw: str, post: Post, dropped: list[str]) -> list[NounItem]:
    items = []
    for item in _first_fitting(raw, _noun_items):
        spelling = _in_text(item.mention, post.text)
        if spelling is None:
            dropped.append(item.mention)
        else:
            items.append(item.model_copy(update={"mention": spelling}))
    return items


def _in_text(mention: str, text: str) -> str | None:
    # LLMs write "#FilmWeek" for the tokens "# FilmWeek", and the other way round.
    letters = "".join(mention.split()).lstrip("#@")
    if not letters:
        return None
    # The exact spelling first: "emma" and "Emma" of one text may be two things.
    if mention in text:
        return mention
    found = re.search(r"\s*".join(map(re.escape, letters)), text, re.IGNORECASE)
    return found.group() if found else None


def _noun_items(value: Any) -> list[NounItem]:
    # A JSON mode that allows objects only wraps the list; models choose the key as they like.
    if isinstance(value, dict) and not NounItem.model_fields.keys() & value.keys():
        lists = [v for v in value.values() if isinstance(v, list)]
        if len(lists) != 1:
            raise AnswerRejected(f"an object with {len(lists)} lists, expected one list of things")
        value = lists[0]
    rows = value if isinstance(value, list) else [value]
    return [_record(NounItem, row) for row in rows]


def _entity(raw: str, post: Post) -> EntityVariant:
    variant = _first_fitting(raw, _judged_variant)
    for old, new in variant.swaps:
        if old not in post.text:
            raise AnswerRejected(f"swaps {old!r}, which is not in the post")
        if new not in variant.text:
            raise AnswerRejected(f"swaps in {new!r}, which is not in the new text")
    for surface in surfaces(post):
        became = surface
        for old, new in variant.swaps:
            became = became.replace(old, new)
        if became not in variant.text and surface not in variant.text:
            raise AnswerRejected(f"does not tell what has become of {surface!r}")
    return variant


def _judged_variant(value: Any) -> EntityVariant:
    variant = _record(EntityVariant, value)
    # The field's default is for recorded answers, whose authors judged them before.
    if "possible" not in variant.model_fields_set:
        raise AnswerRejected("field possible is missing, expected true or false")
    return variant


def _text(raw: str, dimension: Dimension, post: Post) -> str:
    text = raw.strip()
    fence = _FENCE.fullmatch(text)
    text = fence[1].strip() if fence else text
    closing = _QUOTES.get(text[0]) if text else None
    if closing and len(text) > 2 and text.index(closing, 1) == len(text) - 1:
        text = text[1:-1].strip()
    if not text:
        raise AnswerRejected("the answer is empty")
    if dimension == "style":
        lost = [surface for surface in surfaces(post) if surface not in text]
        if lost:
            raise AnswerRejected(f"does not keep the mentions {', '.join(map(repr, lost))}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise AnswerRejected("the text holds half of a surrogate pair") from None
    return text


def _first_fitting(raw: str, read: Callable[[Any], Value]) -> Value:
    """The first JSON value in the answer that `read` accepts; else the first one's fault."""
    fault: AnswerRejected | None = None
    for value in _json_values(raw):
        try:
            return read(value)
        except AnswerRejected as rejected:
            fault = fault or rejected
    raise fault or AnswerRejected("the answer holds no JSON")


def _json_values(raw: str) -> Iterator[Any]:
    for text in [fence[1] for fence in _FENCE.finditer(raw)] + [raw]:
        position = 0
        for _ in range(_MOST_VALUES):
            start = re.compile(r"[\[{]").search(text, position)
            if start is None:
                break
            try:
                value, position = _DECODER.raw_decode(text, start.start())
            except (json.JSONDecodeError, RecursionError):
                position = start.end()
            else:
                yield value


def _record(model: type[Item], value: Any) -> Item:
    if isinstance(value, dict):
        # Fields beyond the asked ones are remarks of the model's, not a fault.
        value = {name: value[name] for name in model.model_fields if name in value}
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problem, expected = explain(error)
        raise AnswerRejected(f"{problem}, expected {expected}") from None

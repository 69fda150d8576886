"""From an LLM's raw answer to a value of `Answers`, or to a rejection that says why.

Reasoning is cut off first. JSON may stand in a code fence or between other words; of several
values the last that fits the dimension counts. Damaged JSON is repaired by json-repair and then
has to be whole: a list is never shortened in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, TypeVar

import json_repair

from ..scheme import Scheme
from ..types import Conclusion, Dimension, EntityVariant, NounItem, Post
from .conclusion import read_conclusion, validate
from .mentions import find_mention
from .prompts import Part, list_surfaces
from .replies import AnswerRejected

AnswerValue = list[NounItem] | str | EntityVariant | Conclusion
Value = TypeVar("Value")

_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
_QUOTES = {'"': '"', "“": "”", "«": "»"}
# Tags that models think in: <think>, [THINK], ◁think▷, <seed:think>, <think time="2 s">,
# <|START_THINKING|>, <|begin_of_thought|>, and what Gemma's medical sister has for them.
_REASONING = (
    r"(?:\w+:)?(?:think|thinking|thoughts?|thought_process|reasoning|analysis|reflection|rationale"
    r"|scratchpad|chain_of_thought|inner_(?:thoughts?|monologue))"
)
_OPENING = (
    rf"(?:[<\[◁]\s{{0,9}}(?:\|(?:start_|begin_of_))?{_REASONING}"
    r"(?:\s[^<>\[\]◁▷|]{0,60})?\|?[>\]▷]|<unused94>)"
)
# Or how gpt-oss marks its answer where a server leaves its channels in the text.
_CLOSING = (
    rf"(?:[<\[◁]\s{{0,9}}(?:/\s{{0,9}}|\|end_(?:of_)?){_REASONING}\|?\s{{0,9}}[>\]▷]|<unused95>"
    r"|<\|channel\|>\s*final\b[^{}\n]{0,40}?<\|message\|>)"
)
_REASONED = re.compile(rf"{_OPENING}(?:(?!{_OPENING}).)*?{_CLOSING}", re.DOTALL | re.IGNORECASE)
_BEFORE_END = re.compile(rf"\A(?:.*{_CLOSING}|analysis.*assistantfinal)", re.DOTALL | re.IGNORECASE)
_UNFINISHED = re.compile(
    rf"\A\s*(?:{_OPENING}|<\|channel\|>\s*(?:analysis|commentary)).*\Z", re.DOTALL | re.IGNORECASE
)
_DEEPEST_NESTING = 3
_END_TOKEN = re.compile(
    r"(?:<\|(?:return|end|im_end|eot|eot_id|endoftext|end_of_text|end_of_solution|end_response"
    r"|end_of_turn_token)\|>|<end_of_turn>|<eos>|</s>)\s*\Z",
    re.IGNORECASE,
)
# What a text may be wrapped in behind the reasoning.
_OPENER = re.compile(r"\A\s*<\|(?:start_response|begin_of_solution)\|>\s*", re.IGNORECASE)
_WRAPPED = re.compile(
    r"<(answer|final_answer|response|output|solution)>(.*)</\1>", re.DOTALL | re.IGNORECASE
)

_OPEN_BRACKET = re.compile(r"[\[{]")
_CLOSING_BRACKETS = {"[": "]", "{": "}"}
_BRACKETS = re.compile(r"[\[\]{}]")
_STRINGS_AND_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
# A bracket that opens JSON, well-formed or not, rather than an aside in prose.
_LIKE_JSON = re.compile(r"\{\s*(?:[\[{\"'“]|//|/\*|\w+\s*:)|\[\s*(?:[\[{\"'“]|//|/\*)")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_KEY = re.compile(r"[\"'“]\w+[\"'”]\s*:")
_ELISION = re.compile(r"\.\.\.|…")
# More JSON values than this are noise, and each one costs a pass over the text.
_MOST_VALUES = 200
# Characters. The time of a repair grows with the square of the length.
_LONGEST_REPAIR = 20_000


def parse_answer(
    raw: str,
    dimension: Dimension,
    post: Post,
    dropped: list[str] | None = None,
    scheme: Scheme | None = None,
    part: Part | None = None,
) -> AnswerValue:
    """The value that `raw` holds for the field `dimension` of `Answers`. part: that of the post
    which was asked about.

    Mentions of a noun list that are not in the post's text, whatever their case, are left out and
    added to `dropped`; the others are spelt as the text has them. For a conclusion see
    `read_conclusion`. Raises AnswerRejected where the answer is empty, has another form, or does
    not keep to the post's mentions.
    """
    offset = 0
    if part is not None:
        post, offset = post.cut(part.start, part.end), part.start
    try:
        answer = _cut_reasoning(raw)
        if not answer.strip():
            raise AnswerRejected(
                "the answer holds nothing but reasoning" if raw.strip() else "the answer is empty"
            )
        dropped = [] if dropped is None else dropped
        if dimension == "noun":
            return _read_noun(answer, post, dropped)
        if dimension == "entity":
            return _read_entity(answer, post)
        if dimension == "conclusion":
            value, left_out = _last_fitting(
                _find_json(answer), lambda v: read_conclusion(v, post, scheme, offset)
            )
            dropped.extend(left_out)
            return value
        text = _read_text(answer)
        lost = [surface for surface in list_surfaces(post) if surface not in text]
        if dimension == "style" and lost:
            raise AnswerRejected(f"does not keep the mentions {', '.join(map(repr, lost))}")
        return text
    except AnswerRejected as rejected:
        rejected.raw = raw
        raise


def _cut_reasoning(raw: str) -> str:
    with suppress(ValueError, RecursionError):
        json.loads(raw)
        # Tags inside its strings are the answer's own.
        return raw
    text = raw
    for _ in range(_DEEPEST_NESTING):
        text = _END_TOKEN.sub("", text)
    for _ in range(_DEEPEST_NESTING):  # from the innermost outwards
        text = _REASONED.sub("", text)
    return _UNFINISHED.sub("", _BEFORE_END.sub("", text))


def _read_noun(text: str, post: Post, dropped: list[str]) -> list[NounItem]:
    values = _find_json(text)
    # Things one by one, as in JSON Lines, are one list. A list beside them goes before it, but not
    # an empty one, which may stand for anything.
    things = [value for value in values if isinstance(value, dict) and "mention" in value]
    others = [value for value in values if value not in things and (value != [] or not things)]
    items = []
    for item in _last_fitting([things, *others] if things else others, _noun_items):
        places = find_mention(item.mention, post.text)
        if places:
            spelling = post.text[slice(*places[0])]
            items.append(item.model_copy(update={"mention": spelling}))
        else:
            dropped.append(f"the mention {item.mention!r} is not in the text")
    return items


def _noun_items(value: Any) -> list[NounItem]:
    # A JSON mode that allows objects only wraps the list; models choose the key as they like.
    if isinstance(value, dict):
        lists = [v for v in value.values() if isinstance(v, list)]
        if len(lists) != 1:
            raise AnswerRejected(f"an object with {len(lists)} lists, expected one list of things")
        value = lists[0]
    return [validate(NounItem, row) for row in value]


def read_definitions(text: str, labels: Collection[str]) -> dict[str, str]:
    """{label: definition} of an answer to the question what labels mean. Raises AnswerRejected
    where one of the labels has no definition."""

    def read(value: Any) -> dict[str, str]:
        found = value if isinstance(value, dict) else {}
        missing = [x for x in labels if not isinstance(found.get(x), str) or not found[x].strip()]
        if missing:
            raise AnswerRejected(f"no definition of {', '.join(missing)}")
        return {label: " ".join(found[label].split()) for label in labels}

    return _last_fitting(_find_json(_cut_reasoning(text)), read)


def _read_entity(text: str, post: Post) -> EntityVariant:
    def read(value: Any) -> EntityVariant:
        variant = validate(EntityVariant, value)
        # The field's default is for recorded answers, whose authors judged them before.
        if "possible" not in variant.model_fields_set:
            raise AnswerRejected("field possible is missing, expected true or false")
        return variant

    variant = _last_fitting(_find_json(text), read)
    for old, new in variant.swaps:
        if old not in post.text:
            raise AnswerRejected(f"swaps {old!r}, which is not in the post")
        if new not in variant.text:
            raise AnswerRejected(f"swaps in {new!r}, which is not in the new text")
    for surface in list_surfaces(post):
        became = surface
        for old, new in variant.swaps:
            became = became.replace(old, new)
        if became not in variant.text and surface not in variant.text:
            raise AnswerRejected(f"does not tell what has become of {surface!r}")
    return variant


def _read_text(text: str) -> str:
    text = _OPENER.sub("", text).strip()
    for wrapper, group in ((_WRAPPED, 2), (_FENCE, 1)):
        wrapped = wrapper.fullmatch(text)
        text = wrapped[group].strip() if wrapped else text
    closing = _QUOTES.get(text[:1])
    if closing and len(text) > 2 and text.index(closing, 1) == len(text) - 1:
        text = text[1:-1].strip()
    if not text:
        raise AnswerRejected("the answer is empty")
    if re.search("[\ud800-\udfff]", text):
        raise AnswerRejected("the text holds half of a surrogate pair")
    return text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # Two things may have run into one object.
        raise AnswerRejected("the JSON has a key twice in one object")
    return found


# Raw line ends within strings are allowed.
_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_unique)


def _find_json(text: str) -> list[Any]:
    """The JSON values of an answer, repaired where need be, an AnswerRejected for a broken one."""
    values: list[Any] = []
    position = 0
    for _ in range(_MOST_VALUES):
        found = _OPEN_BRACKET.search(text, position)
        if found is None:
            return values
        start = found.start()
        try:
            value, position = _DECODER.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError, AnswerRejected) as error:
            position = start + 1
            if not _LIKE_JSON.match(text, start):
                continue
            end = _find_end(text, start)
            if end is None:
                return [*values, AnswerRejected("the answer breaks off within its JSON")]
            twice = isinstance(error, AnswerRejected)
            value = error if twice else _repair_json(text[start:end])
            position = end
        values.append(value)
    return [*values, AnswerRejected(f"the answer holds over {_MOST_VALUES} JSON values")]


def _find_end(text: str, start: int) -> int | None:
    """Where the bracket at `start` is closed, None where it is not."""
    # Brackets in strings do not count, unless the quotes are so damaged that others do not match.
    for pattern in (_STRINGS_AND_BRACKETS, _BRACKETS):
        awaited: list[str] = []
        for found in pattern.finditer(text, start):
            if found[0] in _CLOSING_BRACKETS:
                awaited.append(_CLOSING_BRACKETS[found[0]])
            elif awaited and found[0] in "]}":
                if found[0] != awaited.pop():
                    break
                if not awaited:
                    return found.end()
    return None


def _repair_json(text: str) -> Any:
    """The value of damaged JSON, if everything in it is still there, else an AnswerRejected."""
    if len(text) > _LONGEST_REPAIR:
        return AnswerRejected("the JSON is damaged and too long for repair")
    if _ELISION.search(_STRING.sub("", text)):
        return AnswerRejected("the JSON leaves out a part with an ellipsis")
    try:
        value = json_repair.repair_json(
            text, return_objects=True, skip_json_loads=True, strict=True
        )
    except (ValueError, RecursionError):
        return AnswerRejected("the JSON is damaged beyond repair")
    shape = _STRING.sub("", json.dumps(value))
    whole = shape.count("{") == text.count("{") and shape.count("[") >= text.count("[")
    if not whole or shape.count(":") < len(_KEY.findall(text)):
        return AnswerRejected("the JSON is damaged, and a repair would lose a part of it")
    return value


def _last_fitting(values: list[Any], read: Callable[[Any], Value]) -> Value:
    """The last value that `read` accepts, unless a damaged one follows, else the first's fault."""
    fault: AnswerRejected | None = None
    for value in reversed(values):
        if isinstance(value, AnswerRejected):
            raise value
        try:
            return read(value)
        except AnswerRejected as rejected:
            fault = rejected
    raise fault or AnswerRejected("the answer holds no JSON")

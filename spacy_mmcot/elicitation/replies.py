"""What an endpoint sends, read and checked: the one place where bodies, status codes, token counts,
headers and lines of batches from outside become values of ours, sorted by what can be done.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import responses
from typing import Any, NamedTuple, TypeGuard

from ..errors import Errors, MMCoTError

# Names that endpoints give to faults of one post, and how the others say it.
_POST_FAULTS = {
    "content_filter",
    "content_policy_violation",
    "context_length_exceeded",
    "exceed_context_size_error",
    "json_validate_failed",
    "string_above_max_length",
}
_POST_WORDS = re.compile(
    r"context (length|size|window)|(prompt|input|message) (is|are)? ?too (long|large)"
    r"|content (filter|policy)|safety system|moderation",
    re.IGNORECASE,
)
_FORMAT_WORDS = re.compile(
    r"response.?format|json.?(schema|mode|object)|structured.?output|guided|grammar", re.IGNORECASE
)
# No waiting helps against these.
_EXHAUSTED = {"insufficient_quota", "billing_hard_limit_reached"}
_BUSY = {408, 409, 425, 429}
# What an endpoint says of itself or of the key, never of one post.
_OF_SETTINGS = {401, 402, 404, 405, 407, 429}
# An error that comes with status 200 may name its kind instead of a status.
_STATUS_OF_KIND = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
}
_CUT_OFF = {"length", "max_tokens", "model_length"}
_FILTERED = {"content_filter", "safety", "recitation", "prohibited_content", "sensitive"}
_ABANDONED = {"error", "abort", "insufficient_system_resource"}
_MOST_TOKENS = 10_000_000  # of one request; a larger count is a mistake
NAME_FIELD = "spacy_mmcot_batch"  # in a batch's metadata


@dataclass(frozen=True)
class Usage:
    """Tokens of one request as the endpoint counts them; `cached` ones are part of `input`."""

    input: int = 0
    cached: int = 0
    output: int = 0


@dataclass(frozen=True)
class Reply:
    """An answer's text and what it took, None where the source does not say."""

    text: str
    usage: Usage | None = None


@dataclass(eq=False)
class Fault(Exception):
    """Why there is no answer, or none that can be used; `usage` is what it took all the same."""

    reason: str
    usage: Usage | None = field(default=None, kw_only=True)

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class AnswerRejected(Fault):
    """An answer that cannot be used. `raw` holds what came, as far as the source still had it;
    `final` says that asking again would bring the same."""

    raw: str = ""
    final: bool = False


@dataclass(eq=False, kw_only=True)
class Unavailable(Fault):
    """No answer this time; another try may bring one.

    `retry_after` is what the endpoint asks for, in seconds. `down` says that the fault is the
    endpoint's rather than this request's. `billed` says that the model may have worked for it.
    """

    retry_after: float | None = None
    down: bool = True
    billed: bool = False


@dataclass(eq=False)
class RequestRefused(Fault):
    """The endpoint did not accept the request. `status` is 200 for what is no chat completions
    endpoint. `of_format` says that the response format may be why, `of_settings` that every other
    request would be refused too; otherwise it may be a fault of one post."""

    status: int

    @property
    def of_format(self) -> bool:
        return self.status in (400, 422) and _FORMAT_WORDS.search(self.reason) is not None

    @property
    def of_settings(self) -> bool:
        return self.status < 400 or self.status in _OF_SETTINGS

    def as_rejection(self, raw: str = "") -> AnswerRejected:
        """The same as a fault of one post."""
        words = f"the endpoint refused (HTTP {self.status}): {self.reason}"
        return AnswerRejected(words, raw, final=True)

    def as_error(self, url: str, question: str) -> MMCoTError:
        """The same as the end of the run: every such request would be refused."""
        if self.status < 400:
            return MMCoTError(Errors.E314.format(url=url, reason=self.reason))
        details = {"url": url, "status": self.status}
        if self.status in (401, 403):
            # With 401, the server's words may quote a part of the key.
            words = f": {self.reason}" if self.status == 403 else ""
            return MMCoTError(Errors.E311.format(**details, reason=words))
        return MMCoTError(Errors.E313.format(**details, question=question, reason=self.reason))


def parse_body(data: bytes) -> Any:
    """JSON from outside, or else its text."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data.decode("utf-8", "replace")


def _dig(value: Any, *keys: str) -> Any:
    """What objects within each other hold under these keys, None where one is no object."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def read_reply(data: bytes) -> Reply:
    """The answer in the body of a completion. Raises Unavailable for a damaged body,
    RequestRefused for a foreign one, AnswerRejected where the model or the endpoint declined or
    stopped, and for an error in the body what its code stands for."""
    body = parse_body(data)
    if isinstance(body, str) and data.lstrip()[:1] in (b"", b"{"):
        raise Unavailable("its answer breaks off", down=False, billed=True)
    choices = _dig(body, "choices")
    choice = next(iter(_as_list(choices)), None)
    for part in (body, choice):
        if _dig(part, "error") or _dig(part, "object") == "error":
            raise make_fault(200, part)
    if not isinstance(choices, list):
        raise RequestRefused(f"its answer is not an object with choices, but {_cut(body)}", 200)
    usage = read_usage(_dig(body, "usage"))
    if not choices:
        raise Unavailable("its answer holds no choices", down=False, billed=True, usage=usage)
    message = _dig(choice, "message")
    message = message if isinstance(message, dict) else {}
    ending = str(_dig(choice, "finish_reason")).lower()
    text, others = _read_text(message.get("content")), dict[str, Any]()
    if not text.strip():
        # Reasoning without an answer, calls of tools, and whatever else there may be.
        others = {k: v for k, v in message.items() if v and k not in ("role", "refusal")}
        text = "\n".join(v if isinstance(v, str) else json.dumps(v) for v in others.values())
    if message.get("refusal"):
        raise AnswerRejected("the model refused", str(message["refusal"]), usage=usage)
    if ending in _CUT_OFF:
        reason = "the answer is cut off at the model's length limit"
        raise AnswerRejected(reason, text, usage=usage)
    if ending in _FILTERED:
        reason = "the endpoint's content filter stopped the answer"
        raise AnswerRejected(reason, text, usage=usage, final=True)
    if ending in _ABANDONED:
        reason = f"the endpoint gave up the answer ({ending})"
        raise Unavailable(reason, down=False, billed=True, usage=usage)
    if others:
        reason = f"the answer holds no text, only {', '.join(others)}"
        raise AnswerRejected(reason, text, usage=usage)
    if not message:
        raise RequestRefused("its choices hold no message", 200)
    return Reply(text, usage)


def _read_text(content: Any) -> str:
    """A message's content as one text, of parts those that are text, without thoughts."""
    parts = content if isinstance(content, list) else [content]
    objects = [part for part in parts if isinstance(part, dict)]
    if objects and not any("type" in part for part in objects):
        return json.dumps(content)  # the JSON that was asked for, instead of a text with it
    texts = [
        part.get("text") if _dig(part, "type") in ("text", "output_text") else part
        for part in parts
    ]
    return "".join(text for text in texts if isinstance(text, str))


def make_fault(status: int, body: Any, retry_after: float | None = None) -> Fault:
    """The exception that an HTTP status other than 200, or an error in a body that came with 200,
    stands for. `body` is the parsed body, or a text."""
    error = body[0] if isinstance(body, list) and body else body
    error = _dig(error, "error") or error
    names, words = _read_error(error)
    if status == 200:
        stated = [int(name) for name in names if re.fullmatch("[3-5][0-9][0-9]", name)]
        kinds = [_STATUS_OF_KIND[name] for name in names if name in _STATUS_OF_KIND]
        status = next(iter(stated + kinds), 500)
    words = words or responses.get(status, "no reason is given")
    about_post = not names.isdisjoint(_POST_FAULTS) or _POST_WORDS.search(words) is not None
    if about_post and status not in _OF_SETTINGS:
        code = min(names & _POST_FAULTS, default=f"HTTP {status}")
        # What a model wrote that was to write JSON, and could not.
        raw = _dig(error, "failed_generation")
        raw = raw if isinstance(raw, str) else ""
        return AnswerRejected(f"the endpoint declined ({code}): {words}", raw, final=not raw)
    if (status in _BUSY or status >= 500) and names.isdisjoint(_EXHAUSTED):
        down = status not in _BUSY
        return Unavailable(f"HTTP {status}: {words}", retry_after=retry_after, down=down)
    return RequestRefused(words, status)


def _read_error(error: Any) -> tuple[set[str], str]:
    """The names and numbers that an error gives itself, and its words."""
    levels = (error, _dig(error, "innererror"))
    values = [_dig(level, key) for level in levels for key in ("code", "status", "type")]
    names = {str(v).lower() for v in values if isinstance(v, str | int)}
    said = next(filter(None, (_dig(error, key) for key in ("message", "detail", "msg"))), error)
    # A broker hands on the words of the provider behind it.
    raw = _dig(error, "metadata", "raw")
    return names, _join_words(said or "") + (f" ({_join_words(raw)})" if raw else "")


def _join_words(value: Any) -> str:
    words = value if isinstance(value, str) else json.dumps(value, default=str)
    return " ".join(words.split()).rstrip(".")


def _cut(value: Any) -> str:
    return _join_words(value)[:200]


def read_usage(value: Any) -> Usage | None:
    """The counts of tokens; None where one is no number or can be none of one request."""
    input, output = _dig(value, "prompt_tokens"), _dig(value, "completion_tokens")
    cached = _dig(value, "prompt_tokens_details", "cached_tokens")
    cached = _dig(value, "prompt_cache_hit_tokens") if cached is None else cached  # DeepSeek's
    if not _is_count(input) or not _is_count(output):
        return None
    # No more than that of which it is a part: the cost would be far too high.
    return Usage(input, min(cached, input) if _is_count(cached) else 0, output)


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= _MOST_TOKENS


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """The endpoint's wish in seconds, a number or an HTTP date; None where it is neither."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            if math.isfinite(seconds := float(headers[name]) * scale):
                return max(0.0, seconds)
    with suppress(KeyError, ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    return None


class Batch(NamedTuple):
    """A batch at the endpoint: its id, its state, the name of ours that it carries, the ids of the
    files with its outcomes, and why it failed."""

    id: str
    status: str
    name: str | None
    files: list[str]
    reason: str


def read_batches(data: bytes) -> list[Batch]:
    """Raises RequestRefused where the body is no list."""
    body = parse_body(data)
    rows = _dig(body, "data")
    if not isinstance(rows, list):
        raise RequestRefused(f"its answer is no list of batches, but {_cut(body)}", 200)
    return [batch for batch in map(_make_batch, rows) if batch is not None]


def read_batch(data: bytes) -> Batch:
    """Raises RequestRefused where the body is no batch's."""
    body = parse_body(data)
    batch = _make_batch(body)
    if batch is None:
        raise RequestRefused(f"its answer is no batch, but {_cut(body)}", 200)
    return batch


def _make_batch(row: Any) -> Batch | None:
    name, status, ours = _dig(row, "id"), _dig(row, "status"), _dig(row, "metadata", NAME_FIELD)
    if not _is_name(name) or not _is_name(status):
        return None
    reasons = [_read_error(fault)[1] for fault in _as_list(_dig(row, "errors", "data"))]
    files = [_dig(row, "output_file_id"), _dig(row, "error_file_id")]
    kept = [file for file in files if _is_name(file)]
    return Batch(name, status, ours if _is_name(ours) else None, kept, "; ".join(reasons) or status)


def read_file_id(data: bytes) -> str:
    """Raises RequestRefused where the body is no file's."""
    body = parse_body(data)
    name = _dig(body, "id")
    if not _is_name(name):
        raise RequestRefused(f"its answer is no file, but {_cut(body)}", 200)
    return name


def _is_completion(body: Any) -> bool:
    return bool(_dig(body, "choices"))


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value)


class Line(NamedTuple):
    """One request's outcome in a batch: an HTTP status and a body."""

    key: str
    status: int
    body: Any

    @property
    def is_good(self) -> bool:
        return self.status == 200 and _is_completion(self.body)


def read_lines(content: bytes) -> Iterator[Line]:
    """The outcomes in a batch's file, without damaged lines, whose questions are asked again. A
    request that the batch did not come to has the status 500."""
    for data in content.split(b"\n"):
        row = parse_body(data)
        response, key = _dig(row, "response"), _dig(row, "custom_id")
        is_answer = isinstance(response, dict)
        body = response.get("body") if is_answer else {"error": _dig(row, "error")}
        status = _dig(response, "status_code")
        if isinstance(status, str) and re.fullmatch("[0-9]{3}", status):
            status = int(status)
        if type(status) is not int or not 100 <= status <= 599:
            about_post = isinstance(make_fault(400, body), AnswerRejected)
            status = 400 if about_post else 200 if _is_completion(body) else 500
        if _is_name(key):
            yield Line(key, status, body)

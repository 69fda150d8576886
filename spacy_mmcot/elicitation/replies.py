"""What comes back from a chat completions endpoint, sorted by what can be done about it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

# Faults of one post, not of the settings: the others can still be asked.
_POST_FAULTS = {"content_filter", "content_policy_violation", "context_length_exceeded"}
# No waiting helps against these.
_EXHAUSTED = {"insufficient_quota", "billing_hard_limit_reached"}
_BUSY = {408, 409, 425, 429}


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
    """The endpoint would refuse any such request. `status` is 200 for what is no chat completions
    endpoint. `of_format` says that the response format may be why."""

    status: int

    @property
    def of_format(self) -> bool:
        named = "response_format" in self.reason or "json_schema" in self.reason
        return self.status in (400, 422) and named


def read_reply(data: bytes) -> Reply:
    """The answer in the body of a completion. Raises Unavailable for a damaged body,
    RequestRefused for a foreign one, AnswerRejected where the model or the endpoint declined or
    stopped, and for an error in the body what its code stands for."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        if data.lstrip()[:1] == b"{":
            raise Unavailable("its answer breaks off", down=False, billed=True) from None
        raise RequestRefused(f"its answer is not JSON ({error})", 200) from None
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        code = body["error"].get("code")
        raise fault_of(code if type(code) is int else 500, body)
    if not isinstance(body, dict) or not isinstance(body.get("choices"), list):
        raise RequestRefused("its answer is not an object with choices", 200)
    usage = _read_usage(body.get("usage"))
    if not body["choices"]:
        raise Unavailable("its answer holds no choices", down=False, billed=True, usage=usage)
    choice = body["choices"][0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise RequestRefused("its choices hold no message", 200)
    content = message.get("content")
    # Some endpoints send an answer in parts, thoughts among them.
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts = [p.get("text") for p in parts if isinstance(p, dict) and p.get("type") == "text"]
    text = "".join(words for words in texts if isinstance(words, str))
    if message.get("refusal"):
        raise AnswerRejected("the model refused", str(message["refusal"]), usage=usage)
    if choice.get("finish_reason") == "length":
        reason = "the answer is cut off at the model's length limit"
        raise AnswerRejected(reason, text, usage=usage)
    if choice.get("finish_reason") == "content_filter":
        reason = "the endpoint's content filter stopped the answer"
        raise AnswerRejected(reason, text, usage=usage, final=True)
    return Reply(text, usage)


def fault_of(status: int, body: Any, retry_after: float | None = None) -> Fault:
    """The exception that an HTTP status other than 200 stands for. `body` is the parsed body."""
    error = body.get("error", body) if isinstance(body, dict) else body
    code = str(error.get("code")) if isinstance(error, dict) else ""
    words = str(error.get("message") or error) if isinstance(error, dict) else str(error or "")
    words = " ".join(words.split()).rstrip(".") or f"HTTP {status}"
    if code in _POST_FAULTS:
        return AnswerRejected(f"the endpoint declined ({code}): {words}", final=True)
    if (status in _BUSY or status >= 500) and code not in _EXHAUSTED:
        down = status not in _BUSY
        return Unavailable(f"HTTP {status}: {words}", retry_after=retry_after, down=down)
    return RequestRefused(words, status)


def _read_usage(value: Any) -> Usage | None:
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts: list[Any] = [value.get("prompt_tokens"), cached or 0, value.get("completion_tokens")]
    # SQLite's whole numbers end at 2^63.
    valid = all(type(count) is int and 0 <= count < 2**40 for count in counts)
    return Usage(*counts) if valid else None

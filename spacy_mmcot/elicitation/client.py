"""The source `openai`: any endpoint that speaks chat completions, local servers included."""

from __future__ import annotations

import json
import os
from typing import Any, NoReturn, cast
from urllib.parse import urlsplit, urlunsplit

import openai
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from ..errors import Errors, MMCoTError
from .parser import AnswerRejected
from .prompts import Prompt

# Faults of one post, not of the set-up: the others can still be asked.
_POST_FAULTS = {"content_filter", "content_policy_violation", "context_length_exceeded"}
# Shorter keys are the placeholders that local servers take, and may be ordinary words.
_SECRET_LENGTH = 8
_DEFAULT_URL = "https://api.openai.com/v1"


class OpenAISource:
    """Asks one endpoint. Key and address come from the arguments or else from OPENAI_API_KEY and
    OPENAI_BASE_URL; `temperature` None leaves the endpoint's own; `timeout` is in seconds a try,
    and `max_retries` counts further tries after a busy or failing server.

    The constructor does not touch the network. It raises MMCoTError without a usable key or
    address.
    """

    name = "openai"

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        temperature: float | None = None,
        timeout: float = 60.0,
        max_retries: int = 4,
    ) -> None:
        self.model = model
        self._key = _usable_key(api_key or os.environ.get("OPENAI_API_KEY") or "")
        self._base_url = base_url or os.environ.get("OPENAI_BASE_URL") or _DEFAULT_URL
        self._url = _shown(self._base_url)
        self._temperature = temperature
        self._timeout = timeout
        self._max_retries = max_retries
        self._client: openai.AsyncOpenAI | None = None

    def parameters(self, prompt: Prompt) -> dict[str, Any]:
        """What goes to the endpoint beside model and messages."""
        parameters: dict[str, Any] = {}
        if self._temperature is not None:
            parameters["temperature"] = self._temperature
        if prompt.wants_json:
            parameters["response_format"] = {"type": "json_object"}
        return parameters

    async def ask(self, prompt: Prompt) -> str:
        """The answer's text. Raises AnswerRejected where the endpoint declines this one prompt or
        cuts its answer off, MMCoTError where it cannot be used at all."""
        if self._client is None:
            # A client belongs to one event loop, so it is made in the loop that asks.
            self._client = openai.AsyncOpenAI(
                api_key=self._key,
                base_url=self._base_url,
                timeout=self._timeout,
                max_retries=self._max_retries,
            )
        try:
            completion = await self._client.chat.completions.create(
                model=self.model,
                messages=cast(list[ChatCompletionMessageParam], list(prompt.messages)),
                **self.parameters(prompt),
            )
        except openai.APIStatusError as error:
            self._refuse(error, prompt)
        except openai.APIConnectionError as error:
            late = isinstance(error, openai.APITimeoutError)
            reason = f"no answer in {self._timeout:g} s" if late else error.__cause__ or error
            raise self._error(Errors.E312, reason=reason) from None
        except (openai.OpenAIError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise self._error(Errors.E314, reason=error) from None
        return self._text(completion)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _text(self, completion: object) -> str:
        # An endpoint may send anything: the library checks neither kind nor fields.
        if not isinstance(completion, ChatCompletion):
            raise self._error(Errors.E314, reason="its answer is not a JSON object")
        choices = getattr(completion, "choices", None)
        message = (
            getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
        )
        if not choices or message is None:
            raise self._error(Errors.E314, reason="its answer holds no choices with a message")
        content = message.content if isinstance(message.content, str) else ""
        reason = choices[0].finish_reason
        if getattr(message, "refusal", None):
            raise AnswerRejected("the model refused", str(message.refusal))
        if reason == "length":
            raise AnswerRejected("the answer is cut off at the model's length limit", content)
        if reason == "content_filter":
            raise AnswerRejected("the endpoint's content filter stopped the answer", content)
        return content

    def _refuse(self, error: openai.APIStatusError, prompt: Prompt) -> NoReturn:
        status = error.status_code
        if status in (401, 403):
            # The server's words may quote the key.
            raise self._error(Errors.E311, status=status) from None
        reason = self._scrubbed(_server_words(error))
        if error.code in _POST_FAULTS:
            raise AnswerRejected(f"the endpoint declined ({error.code}): {reason}") from None
        raise self._error(
            Errors.E313,
            template=prompt.template,
            post_id=prompt.post_id,
            status=status,
            reason=reason,
        ) from None

    def _error(self, message: str, **details: object) -> MMCoTError:
        if "reason" in details:
            details["reason"] = self._scrubbed(str(details["reason"]))
        return MMCoTError(message.format(url=self._url, **details))

    def _scrubbed(self, words: str) -> str:
        if len(self._key) >= _SECRET_LENGTH:
            words = words.replace(self._key, "***")
        words = " ".join(words.split()).rstrip(".")
        return words if len(words) <= 300 else f"{words[:297]}..."


def _usable_key(key: str) -> str:
    key = key.strip()
    if not key:
        raise MMCoTError(Errors.E310.format(received="none is set"))
    if not key.isascii() or not key.isprintable():
        raise MMCoTError(
            Errors.E310.format(received="the one set holds characters no key can have")
        )
    return key


def _shown(base_url: str) -> str:
    """The address for messages: without user, password and query."""
    try:
        parts = urlsplit(base_url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        valid = False
    if not valid:
        raise MMCoTError(Errors.E315.format(url=base_url.rpartition("@")[2]))
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _server_words(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict):
        return str(body.get("message") or body.get("error") or body)
    return str(body or error.message)

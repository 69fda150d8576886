"""The source `openai`: any endpoint that speaks chat completions, local servers included."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import openai

from ..errors import Errors
from ..types import Dimension
from .endpoint import Endpoint
from .pictures import data_url
from .prompts import Prompt
from .replies import (
    AnswerRejected,
    FormatRefused,
    NotAnEndpoint,
    Reply,
    RequestRefused,
    Unavailable,
    fault_of,
    read_reply,
)
from .schemas import response_formats

_DISCONNECTED = (openai.APIConnectionError, httpx2.TransportError)


class OpenAISource:
    """Asks one endpoint about `model`, or about the model that `models` names for a dimension.

    `temperature` None leaves the endpoint's own; `timeout` is in seconds, for a request as a
    whole. Raises like Endpoint; the constructor does not touch the network.
    """

    paid = True

    def __init__(
        self,
        model: str,
        *,
        models: Mapping[Dimension, str] | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        insecure: bool = False,
        temperature: float | None = None,
        timeout: float = 60.0,
        name: str = "openai",
    ) -> None:
        self.name = name
        self.endpoint = Endpoint(base_url, api_key, insecure)
        self.url = self.endpoint.url
        self._model = model
        self._models = dict(models or {})
        self._temperature = temperature
        self._timeout = timeout
        self._client: openai.AsyncOpenAI | None = None
        # How many response formats of the list a model was found not to have.
        self._refused: dict[str, int] = {}

    def model_for(self, dimension: Dimension) -> str:
        return self._models.get(dimension, self._model)

    def parameters(self, prompt: Prompt) -> dict[str, Any]:
        """What goes to the endpoint beside model, messages and response format."""
        return {} if self._temperature is None else {"temperature": self._temperature}

    def body(self, prompt: Prompt) -> dict[str, Any]:
        """A request's body. Raises AnswerRejected where its picture cannot be read."""
        model = self.model_for(prompt.dimension)
        messages: list[Any] = list(prompt.messages)
        if prompt.picture is not None:
            # The question comes second, after the system message, whatever follows it.
            image = {"url": data_url(prompt.picture), "detail": "low"}
            text = {"type": "text", "text": messages[1]["content"]}
            picture = {"type": "image_url", "image_url": image}
            messages[1] = {"role": "user", "content": [text, picture]}
        body = {"model": model, "messages": messages, **self.parameters(prompt)}
        formats = response_formats(prompt.dimension)[self._refused.get(model, 0) :]
        return body | ({"response_format": formats[0]} if formats else {})

    def lower(self, prompt: Prompt, refused: FormatRefused) -> None:
        """Use a plainer response format from now on. Raises MMCoTError where there is none."""
        model = self.model_for(prompt.dimension)
        if self._refused.get(model, 0) >= len(response_formats(prompt.dimension)):
            error = RequestRefused(400, str(refused))
            raise self.endpoint.refusal(error, described(prompt)) from None
        self._refused[model] = self._refused.get(model, 0) + 1

    async def ask(self, prompt: Prompt) -> Reply:
        """The answer. Raises AnswerRejected where the endpoint declines this one prompt or cuts
        its answer off, Unavailable where another try may help, MMCoTError where none will."""
        while True:
            formats = self._refused.get(self.model_for(prompt.dimension), 0)
            try:
                return await self._ask(prompt)
            except FormatRefused as refused:
                # Of many requests in flight, the first to be refused settles it for all.
                if formats == self._refused.get(self.model_for(prompt.dimension), 0):
                    self.lower(prompt, refused)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _ask(self, prompt: Prompt) -> Reply:
        body = self.body(prompt)
        if self._client is None:
            self._client = self.endpoint.client()
        try:
            async with asyncio.timeout(self._timeout):
                # Bytes out, bytes in, and the whole address: the library's walk through a body,
                # its models of an answer and the joining of addresses cost a third of a request.
                response = await self._client.post(
                    self.endpoint.chat_url,
                    cast_to=httpx2.Response,
                    content=json.dumps(body).encode("ascii"),
                )
            return read_reply(response.content)
        except TimeoutError:
            reason = f"no answer in {self._timeout:g} s"
            raise Unavailable(reason, billed=True) from None
        except openai.APIStatusError as error:
            raise self._told(status_fault(error), prompt) from None
        except _DISCONNECTED as error:
            cause = error.__cause__ or error
            reason = self.endpoint.scrubbed(str(cause) or type(cause).__name__)
            reached = not isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout)
            raise Unavailable(reason, billed=reached) from None
        except NotAnEndpoint as error:
            raise self.endpoint.foreign(error) from None
        except (openai.OpenAIError, httpx2.InvalidURL) as error:
            raise self.endpoint.error(Errors.E314, reason=error) from None

    def _told(self, fault: Exception, prompt: Prompt) -> Exception:
        if isinstance(fault, RequestRefused):
            return self.endpoint.refusal(fault, described(prompt))
        if isinstance(fault, AnswerRejected | Unavailable):
            # The endpoint's words may quote the key.
            fault.reason = self.endpoint.scrubbed(fault.reason)
        return fault


def described(prompt: Prompt) -> str:
    """A question, for messages."""
    return f"the prompt {prompt.template} for the post {prompt.post_id!r}"


def status_fault(error: openai.APIStatusError) -> Exception:
    """What a status other than success stands for."""
    try:
        body = json.loads(error.response.content)
    except (ValueError, RecursionError):
        body = error.response.text
    return fault_of(error.status_code, body, _retry_after(error.response.headers))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The endpoint's wish in seconds; it may be a number or an HTTP date."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            return max(0.0, float(headers[name]) * scale)
    with suppress(KeyError, ValueError):
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    return None

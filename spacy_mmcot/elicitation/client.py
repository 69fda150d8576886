"""HTTP connections for hundreds of requests at a time.

One OpenAI-compatible endpoint: its address, its key, and errors that give neither away.

The source `openai`: any endpoint that speaks chat completions, local servers included.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import ssl
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2
import openai

from ..errors import Errors, MMCoTError
from ..types import Dimension
from .prompts import Prompt, data_url, response_formats
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

_SHARDS = 64
# Seconds. Requests as a whole have a time limit of their own.
_TIMEOUT = httpx2.Timeout(None, connect=15.0)


class ShardedTransport(httpx2.AsyncBaseTransport):
    """Spreads requests over several connection pools: a pool looks through all its connections at
    every request, which at hundreds of them costs as much as the request itself."""

    def __init__(self, url: str) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        context, proxy = _ssl_context(url), _proxy(url)
        self._pools = [
            httpx2.AsyncHTTPTransport(verify=context, limits=limits, proxy=proxy)
            for _ in range(_SHARDS)
        ]
        self._busy = [0] * _SHARDS

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        shard = self._busy.index(min(self._busy))
        self._busy[shard] += 1
        try:
            return await self._pools[shard].handle_async_request(request)
        finally:
            self._busy[shard] -= 1

    async def aclose(self) -> None:
        for pool in self._pools:
            await pool.aclose()


def http_client(url: str) -> httpx2.AsyncClient:
    """A client for one endpoint. Redirects are not followed: they could carry the key elsewhere."""
    return httpx2.AsyncClient(
        transport=ShardedTransport(url), timeout=_TIMEOUT, follow_redirects=False
    )


def _ssl_context(url: str) -> ssl.SSLContext:
    if urlsplit(url).scheme == "https":
        return httpx2.create_ssl_context()
    # Never used, and without the authorities, which take a tenth of a second to load.
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _proxy(url: str) -> str | None:
    """The environment's proxy for an address: a client with a transport of its own ignores it."""
    parts = urlsplit(url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


# Shorter keys are the placeholders that local servers take, and may be ordinary words.
_SECRET_LENGTH = 8
_DEFAULT_URL = "https://api.openai.com/v1"
_SHOWN = 300


class Endpoint:
    """Key and address come from the arguments or else from OPENAI_API_KEY and OPENAI_BASE_URL.

    The constructor does not touch the network. It raises MMCoTError without a usable key or
    address, and for an address that would send the key unencrypted over a network, unless
    `insecure` allows it.
    """

    def __init__(
        self, base_url: str | None = None, api_key: str | None = None, insecure: bool = False
    ) -> None:
        self._key = _usable_key(api_key or os.environ.get("OPENAI_API_KEY") or "")
        self._base_url = base_url or os.environ.get("OPENAI_BASE_URL") or _DEFAULT_URL
        self.url = _shown(self._base_url)
        parts = urlsplit(self._base_url)
        path = parts.path.rstrip("/") + "/chat/completions"
        self.chat_url = urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
        if not insecure and not _guarded(self._base_url):
            raise MMCoTError(Errors.E318.format(url=self.url))

    def client(self) -> openai.AsyncOpenAI:
        """A client without retries of its own. It belongs to the event loop that it is made in."""
        return openai.AsyncOpenAI(
            api_key=self._key,
            base_url=self._base_url,
            max_retries=0,
            http_client=http_client(self._base_url),
        )

    def error(self, message: str, **details: object) -> MMCoTError:
        if "reason" in details:
            details["reason"] = self.scrubbed(str(details["reason"]))
        return MMCoTError(message.format(url=self.url, **details))

    def refusal(self, error: RequestRefused, question: str) -> MMCoTError:
        """An error that ends the run: every such request would be refused."""
        if error.status in (401, 403):
            # The server's words may quote a part of the key.
            return self.error(Errors.E311, status=error.status)
        return self.error(Errors.E313, question=question, status=error.status, reason=error.reason)

    def foreign(self, error: NotAnEndpoint) -> MMCoTError:
        return self.error(Errors.E314, reason=error)

    def scrubbed(self, words: str) -> str:
        """Somebody else's words, short, on one line, and without the key."""
        if len(self._key) >= _SECRET_LENGTH:
            words = words.replace(self._key, "***")
        words = " ".join(words.split()).rstrip(".")
        return words if len(words) <= _SHOWN else f"{words[: _SHOWN - 3]}..."


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


def _guarded(base_url: str) -> bool:
    parts = urlsplit(base_url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


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

"""The source `openai`: any endpoint that speaks chat completions, local servers included, with a
key that no message, log or store shows.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import json
import os
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2
import openai

from ..errors import Errors, MMCoTError
from .prompts import Prompt
from .replies import AnswerRejected, Reply, RequestRefused, Unavailable, fault_of, read_reply

# Seconds. Requests as a whole have a time limit of their own.
_TIMEOUT = httpx2.Timeout(None, connect=15.0)
# Shorter keys are the placeholders that local servers take, and may be ordinary words.
_SECRET_LENGTH = 8
_DEFAULT_URL = "https://api.openai.com/v1"
_LONGEST_REASON = 300


@dataclass(frozen=True)
class OpenAISettings:
    """Which endpoint to ask about which model, and how.

    `base_url` and `api_key` are OPENAI_BASE_URL's and OPENAI_API_KEY's by default; `insecure`
    allows to send the key unencrypted over a network. `temperature` None leaves the endpoint's
    own; `timeout` is in seconds, for a request as a whole.
    """

    model: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    insecure: bool = False
    temperature: float | None = None
    timeout: float = 60.0


class OpenAISource:
    """Asks one endpoint, under the name `openai-batch` by its Batch API.

    The constructor does not touch the network. It raises MMCoTError without a usable key or
    address, and for an address that would send the key unencrypted over a network, unless the
    settings allow it. No message gives away the key.
    """

    paid = True

    def __init__(self, settings: OpenAISettings, name: str = "openai") -> None:
        self.name = name
        self.batch = name == "openai-batch"
        key = (settings.api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
        if not key:
            raise MMCoTError(Errors.E310.format(received="none is set"))
        if not key.isascii() or not key.isprintable():
            received = "the one set holds characters no key can have"
            raise MMCoTError(Errors.E310.format(received=received))
        # Only the settings hold the key, and do not show it.
        self._settings = replace(settings, api_key=key)
        self._base_url = settings.base_url or os.environ.get("OPENAI_BASE_URL") or _DEFAULT_URL
        self.url = _strip_secrets(self._base_url)
        parts = urlsplit(self._base_url)
        path = parts.path.rstrip("/") + "/chat/completions"
        self._chat_url = parts._replace(path=path, fragment="").geturl()
        if not settings.insecure and not _is_encrypted_or_local(self._base_url):
            raise MMCoTError(Errors.E318.format(url=self.url))
        # One for each request in flight: a client looks through all its connections at every
        # request, which at two hundred in flight takes twice the processor time.
        self._clients: list[openai.AsyncOpenAI] = []
        self._idle: list[openai.AsyncOpenAI] = []
        self.model = settings.model
        # How many response formats of the list the model was found not to have.
        self._formats_refused = 0

    def parameters(self, prompt: Prompt) -> dict[str, Any]:
        """What goes to the endpoint beside model, messages and response format."""
        temperature = self._settings.temperature
        return {} if temperature is None else {"temperature": temperature}

    def body(self, prompt: Prompt) -> dict[str, Any]:
        """A request's body."""
        messages: list[Any] = list(prompt.messages)
        if prompt.picture is not None:
            # The question comes second, after the system message, whatever follows it.
            image = {"url": prompt.picture.url, "detail": "low"}
            text = {"type": "text", "text": messages[1]["content"]}
            parts = [text, {"type": "image_url", "image_url": image}]
            messages[1] = {"role": "user", "content": parts}
        body = {"model": self.model, "messages": messages, **self.parameters(prompt)}
        formats = prompt.response_formats()[self._formats_refused :]
        return body | ({"response_format": formats[0]} if formats else {})

    async def ask(self, prompt: Prompt) -> Reply:
        """The answer. Raises AnswerRejected where the endpoint declines this one prompt or cuts
        its answer off, Unavailable where another try may help, MMCoTError where none will."""
        formats = len(prompt.response_formats())
        while True:
            refused_before = self._formats_refused
            try:
                return await self._ask(prompt)
            except RequestRefused as refused:
                if not refused.of_format or refused_before >= formats:
                    question = f"the prompt {prompt.template} for the post {prompt.post_id!r}"
                    raise self.refusal_error(refused, question) from None
                # Of many requests in flight, the first that is refused changes it for all.
                self._formats_refused = max(self._formats_refused, refused_before + 1)
            except (AnswerRejected, Unavailable) as fault:
                # The endpoint's words may quote the key.
                fault.reason = self.scrub(fault.reason)
                raise

    @functools.cached_property
    def _context(self) -> ssl.SSLContext:
        # Without the authorities, which take a tenth of a second to load, where none is needed.
        if urlsplit(self._base_url).scheme == "https":
            return httpx2.create_ssl_context()
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def open_client(self) -> openai.AsyncOpenAI:
        """A client that does not retry. Use it only in the event loop in which it was created, and
        close the source there. Redirects are not followed: they could carry the key elsewhere."""
        client = openai.AsyncOpenAI(
            api_key=self._settings.api_key,
            base_url=self._base_url,
            max_retries=0,
            http_client=httpx2.AsyncClient(
                verify=self._context, timeout=_TIMEOUT, follow_redirects=False
            ),
        )
        self._clients.append(client)
        return client

    async def close(self) -> None:
        clients, self._clients, self._idle = self._clients, [], []
        for client in clients:
            await client.close()

    async def _ask(self, prompt: Prompt) -> Reply:
        body = self.body(prompt)
        client = self._idle.pop() if self._idle else self.open_client()
        try:
            with self.translate_errors():
                async with asyncio.timeout(self._settings.timeout):
                    # Bytes out, bytes in, and the whole address: the library's walk through a body,
                    # its models of an answer and the joining of addresses cost a third of it.
                    content = json.dumps(body).encode("ascii")
                    response = await client.post(
                        self._chat_url, cast_to=httpx2.Response, content=content
                    )
            return read_reply(response.content)
        except TimeoutError:
            reason = f"no answer in {self._settings.timeout:g} s"
            raise Unavailable(reason, billed=True) from None
        finally:
            self._idle.append(client)

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """For a block that sends one request: a Fault in place of the client's error, MMCoTError
        where the address is no such endpoint's."""
        try:
            yield
        except openai.APIStatusError as error:
            try:
                body = json.loads(error.response.content)
            except (ValueError, RecursionError):
                body = error.response.text
            retry_after = _read_retry_after(error.response.headers)
            raise fault_of(error.status_code, body, retry_after) from None
        except (openai.APIConnectionError, httpx2.TransportError) as error:
            cause = error.__cause__ or error
            reached = not isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout)
            raise Unavailable(str(cause) or type(cause).__name__, billed=reached) from None
        except (openai.OpenAIError, httpx2.InvalidURL, ValueError) as error:
            raise self.error(Errors.E314, reason=error) from None

    def error(self, message: str, **details: object) -> MMCoTError:
        if "reason" in details:
            details["reason"] = self.scrub(str(details["reason"]))
        return MMCoTError(message.format(url=self.url, **details))

    def refusal_error(self, error: RequestRefused, question: str) -> MMCoTError:
        """An error that ends the run: every such request would be refused."""
        if error.status == 200:
            return self.error(Errors.E314, reason=error.reason)
        if error.status in (401, 403):
            # The server's words may quote a part of the key.
            return self.error(Errors.E311, status=error.status)
        return self.error(Errors.E313, question=question, status=error.status, reason=error.reason)

    def scrub(self, words: str) -> str:
        """Somebody else's words, short, on one line, and without the key."""
        key = self._settings.api_key or ""
        if len(key) >= _SECRET_LENGTH:
            words = words.replace(key, "***")
        words = " ".join(words.split()).rstrip(".")
        return words if len(words) <= _LONGEST_REASON else f"{words[: _LONGEST_REASON - 3]}..."


def _strip_secrets(base_url: str) -> str:
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


def _is_encrypted_or_local(base_url: str) -> bool:
    parts = urlsplit(base_url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _read_retry_after(headers: Mapping[str, str]) -> float | None:
    """The endpoint's wish in seconds; it may be a number or an HTTP date."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            return max(0.0, float(headers[name]) * scale)
    with suppress(KeyError, ValueError):
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    return None

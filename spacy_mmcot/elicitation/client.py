"""The source `openai`: any endpoint that speaks chat completions, local servers included, with a
key that no message, log or store shows.

Requests go through aiohttp and not through OpenAI's client, which logs addresses, reads answers of
any size, and takes several times a question's processor time.
"""

from __future__ import annotations

import asyncio
import base64
import io
import ipaddress
import json
import os
import re
import ssl
import urllib.request
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import aiohttp
import certifi
from yarl import URL

from ..errors import Errors, MMCoTError
from .prompts import Prompt
from .replies import (
    Fault,
    Reply,
    RequestRefused,
    Unavailable,
    make_fault,
    parse_body,
    read_reply,
    read_retry_after,
)

_CONNECT_SECONDS = 15.0
_LARGEST_REPLY = 16_000_000  # bytes
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
        if not key or not key.isascii() or not key.isprintable():
            received = "the one set holds characters no key can have" if key else "none is set"
            raise MMCoTError(Errors.E310.format(received=received))
        # Only the settings hold the key, and do not show it.
        self._settings = replace(settings, api_key=key)
        base_url = settings.base_url or os.environ.get("OPENAI_BASE_URL") or _DEFAULT_URL
        self.url = _strip_secrets(base_url)
        parts = self._parts = urlsplit(base_url)
        self._is_local = _is_loopback(parts.hostname or "")
        if not settings.insecure and parts.scheme != "https" and not self._is_local:
            raise MMCoTError(Errors.E318.format(url=self.url))
        self.model = settings.model
        # With the path of a request, where it goes; a user in an address is said in a header.
        self._address = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None
        # How many response formats of the list the model was found not to have, or to have.
        self._formats_refused, self._formats_granted = 0, -1

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
        its answer off, Unavailable where another try may help, RequestRefused where none will."""
        formats = len(prompt.response_formats())
        while True:
            asked_as = self._formats_refused
            content = json.dumps(self.body(prompt)).encode("ascii")
            try:
                reply = read_reply(await self.send("POST", "/chat/completions", content))
            except Fault as fault:
                is_format = isinstance(fault, RequestRefused) and fault.of_format
                # The endpoint's words may quote the key.
                fault.reason = self.scrub(fault.reason)
                if not is_format or asked_as >= formats or asked_as == self._formats_granted:
                    raise
                # Of many requests in flight, the first that is refused changes it for all.
                self._formats_refused = max(self._formats_refused, asked_as + 1)
            else:
                self._formats_granted = asked_as if formats else self._formats_granted
                return reply

    async def send(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        *,
        file: bytes | None = None,
        params: Mapping[str, str] | None = None,
        largest: int = _LARGEST_REPLY,
        timeout: float | None = None,
    ) -> bytes:
        """The body of the answer to one request. `content` is JSON, `file` one to upload for a
        batch. `largest` is in bytes, `timeout` in seconds for the whole (default: the settings').
        Raises a Fault for any status but a good one."""
        seconds = timeout or self._settings.timeout
        path = self._address.path.rstrip("/") + path
        url = URL(self._address._replace(path=path).geturl(), encoded=True)
        headers = self._make_headers()
        body: Any = content
        if content is not None:
            headers["content-type"] = "application/json"
        if file is not None:
            body = aiohttp.FormData({"purpose": "batch"})
            body.add_field("file", io.BytesIO(file), filename="batch.jsonl")
        session = self._session or self._open_session()
        request = session.request(
            method,
            url.update_query(params) if params else url,
            data=body,
            headers=headers,
            proxy=self._proxy,
            # Followed, a redirect could carry the key elsewhere.
            allow_redirects=False,
        )
        try:
            async with asyncio.timeout(seconds), request as response:
                data = await _read_body(response, largest)
        except aiohttp.ClientConnectorError as error:
            raise Unavailable(error.os_error.strerror or str(error.os_error)) from None
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError) as error:
            raise Unavailable(str(error)) from None
        except TimeoutError:
            raise Unavailable(f"no answer in {seconds:g} s", billed=True) from None
        except aiohttp.ClientError as error:
            raise Unavailable(str(error) or type(error).__name__, billed=True) from None
        if 200 <= response.status < 300:
            return data
        if response.status < 400:
            place = response.headers.get("location", "another address")
            raise RequestRefused(f"it redirects to {place}", response.status)
        wait = read_retry_after(response.headers)
        raise make_fault(response.status, parse_body(data), wait)

    def _make_headers(self) -> dict[str, str]:
        key, parts = self._settings.api_key or "", self._parts
        headers = {"accept-encoding": "identity", "user-agent": "spacy-mmcot"}
        if "api-version=" in parts.query:
            headers["api-key"] = key  # as Azure calls it
        login = f"{parts.username}:{parts.password or ''}".encode()
        basic = f"Basic {base64.b64encode(login).decode()}"
        return headers | {"authorization": f"Bearer {key}" if parts.username is None else basic}

    def _open_session(self) -> aiohttp.ClientSession:
        """A proxy of the environment is for other machines."""
        host, context = self._parts.hostname or "", None
        if not self._is_local and not urllib.request.proxy_bypass(host):
            proxies = urllib.request.getproxies()
            self._proxy = proxies.get(self._parts.scheme) or proxies.get("all")
        if self._proxy and urlsplit(self._proxy).scheme not in ("http", "https"):
            reason = "the proxy of the environment cannot be used"
            raise self.error(Errors.E312, reason=reason)
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            # Some Pythons find no authorities of their system.
            context.load_verify_locations(certifi.where())
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context or True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self._session

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def error(self, message: str, **details: object) -> MMCoTError:
        if "reason" in details:
            details["reason"] = self.scrub(str(details["reason"]))
        return MMCoTError(message.format(url=self.url, **details))

    def scrub(self, words: str) -> str:
        """Somebody else's words, short, on one line, and without the key and what else the address
        keeps secret."""
        query = [value for _, value in parse_qsl(self._parts.query)]
        for secret in (self._settings.api_key, self._parts.password, self._parts.query, *query):
            if secret and len(secret) >= _SECRET_LENGTH:
                words = words.replace(secret, "***")
        words = " ".join(words.split()).rstrip(".")
        return words if len(words) <= _LONGEST_REASON else f"{words[: _LONGEST_REASON - 3]}..."


async def _read_body(response: aiohttp.ClientResponse, largest: int) -> bytes:
    """The decoded body. Raises Unavailable over `largest` bytes, and for unknown packing."""
    packed = response.headers.get("content-encoding", "identity").lower()
    unzip = zlib.decompressobj(zlib.MAX_WBITS | 32) if packed in ("gzip", "deflate") else None
    if unzip is None and packed != "identity":
        raise Unavailable(f"its answer is packed as {packed}", billed=True)
    data = bytearray()
    async for chunk in response.content.iter_any():
        try:
            data += chunk if unzip is None else unzip.decompress(chunk, largest + 1 - len(data))
        except zlib.error:
            raise Unavailable("its packed answer is damaged", billed=True) from None
        if len(data) > largest:
            raise Unavailable(f"its answer is larger than {largest / 1e6:g} MB", billed=True)
    return bytes(data)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _strip_secrets(base_url: str) -> str:
    """The address for messages: without user, password and query."""
    try:
        parts = urlsplit(base_url)
        _ = parts.port, URL(base_url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = re.split(r"[?#]", base_url)[0].rpartition("@")[2]
        raise MMCoTError(Errors.E315.format(url=shown))
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

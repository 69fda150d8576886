"""One OpenAI-compatible endpoint: its address, its key, and errors that give neither away."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit, urlunsplit

import openai

from ..errors import Errors, MMCoTError
from .connections import http_client
from .replies import NotAnEndpoint, RequestRefused

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

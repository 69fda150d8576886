"""HTTP connections for hundreds of requests at a time."""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from collections import deque
from urllib.parse import urlsplit

import httpx2

_SHARDS = 64
# Seconds that reading an answer, keeping it and asking the next question take at most.
_MOMENT = 0.005
# Seconds. Requests as a whole have a time limit of their own.
_TIMEOUT = httpx2.Timeout(None, connect=15.0)


class Turnstile:
    """Lets responses in one after the other.

    The event loop would take all that have arrived through each of their many small steps
    together, and none would come to its next request before the last one is done: requests bunch
    up until the endpoint sees all of them at once, and idles in between. Who has come in is done
    when the next request leaves, or else after a moment.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._inside: asyncio.TimerHandle | None = None

    async def enter(self) -> None:
        loop = asyncio.get_running_loop()
        if self._inside is not None:
            turn = loop.create_future()
            self._waiting.append(turn)
            await turn
        self._inside = loop.call_later(_MOMENT, self.leave)

    def leave(self) -> None:
        if self._inside is None:
            return
        self._inside.cancel()
        while self._waiting:
            turn = self._waiting.popleft()
            # One whose request has run out of time meanwhile has no use for it.
            if not turn.done():
                turn.set_result(None)
                return
        self._inside = None


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
        self._turnstile = Turnstile()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        shard = self._busy.index(min(self._busy))
        self._busy[shard] += 1
        self._turnstile.leave()
        try:
            response = await self._pools[shard].handle_async_request(request)
        finally:
            self._busy[shard] -= 1
        await self._turnstile.enter()
        return response

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

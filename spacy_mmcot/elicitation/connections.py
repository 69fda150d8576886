"""HTTP connections for hundreds of requests at a time."""

from __future__ import annotations

import ssl
import urllib.request
from urllib.parse import urlsplit

import httpx2

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

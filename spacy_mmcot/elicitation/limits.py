"""How hard an endpoint is asked: rates, waits between tries, and a breaker for when it is down."""

from __future__ import annotations

import asyncio
import random
import time

from aiolimiter import AsyncLimiter

from .replies import Unavailable

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_THRESHOLD = 8
# A server that has never answered is more likely not there than down.
_FIRST_PATIENCE = 15.0


class Rates:
    """Requests and tokens a minute, None for no limit. Bursts stay within a few seconds' worth,
    so that no minute goes above the limit by more than that."""

    def __init__(self, requests: float | None = None, tokens: float | None = None) -> None:
        self._requests = None if requests is None else _limiter(requests, 1.0)
        self._tokens = None if tokens is None else _limiter(tokens, 5.0)

    async def acquire(self, tokens: int) -> None:
        """Wait until a request of about so many tokens may start."""
        if self._requests is not None:
            await self._requests.acquire()
        if self._tokens is not None:
            # One request above the whole burst could never start.
            await self._tokens.acquire(min(tokens, self._tokens.max_rate))


def _limiter(per_minute: float, burst_seconds: float) -> AsyncLimiter:
    burst = max(1.0, per_minute / 60 * burst_seconds)
    return AsyncLimiter(burst, burst * 60 / per_minute)


def wait_before(attempt: int, retry_after: float | None) -> float:
    """Seconds before the next try after `attempt` failed ones: the endpoint's wish, or else twice
    as long each time. The jitter keeps those who failed together from coming back together."""
    if retry_after is not None:
        return retry_after + random.uniform(0, 0.25 * retry_after + 0.1)
    longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (attempt - 1))
    return random.uniform(longest / 2, longest)


class EndpointDown(Exception):
    """The endpoint has failed for longer than one was ready to wait."""


class Breaker:
    """Holds requests back while an endpoint fails every time: one goes through after each pause,
    the pauses grow, and `patience` seconds after the last sign of life EndpointDown is raised."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._failures = 0
        self._pause = 1.0
        self._alive: float | None = None
        self._started = time.monotonic()
        self._gate = asyncio.Lock()
        self._reason = ""

    def succeeded(self) -> None:
        self._failures, self._pause = 0, 1.0
        self._alive = time.monotonic()

    def failed(self, fault: Unavailable) -> None:
        if fault.down:
            self._failures += 1
            self._reason = fault.reason
        else:
            self.succeeded()

    async def ready(self) -> None:
        """Wait until a request may be sent. Raises EndpointDown."""
        if self._failures < _THRESHOLD:
            return
        async with self._gate:
            if self._failures < _THRESHOLD:
                return
            patience = self._patience
            if self._alive is None:
                patience = min(patience, _FIRST_PATIENCE)
            left = (self._alive or self._started) + patience - time.monotonic()
            if left <= 0:
                raise EndpointDown(self._reason)
            await asyncio.sleep(min(left, self._pause * random.uniform(0.5, 1.0)))
            self._pause = min(_LONGEST_WAIT, self._pause * 2)

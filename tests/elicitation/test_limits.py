from __future__ import annotations

import asyncio
import time

import pytest

from spacy_mmcot.elicitation.replies import Breaker, EndpointDown, Rates, Unavailable, wait_before


def test_waits_grow_with_jitter_and_have_an_end() -> None:
    for attempt, longest in ((1, 0.5), (2, 1.0), (5, 8.0), (20, 30.0)):
        waits = {wait_before(attempt, None) for _ in range(200)}
        assert longest / 2 <= min(waits) < max(waits) <= longest
        assert len(waits) > 100


def test_a_wish_of_the_endpoint_is_never_undercut() -> None:
    waits = [wait_before(1, 7.0) for _ in range(200)]
    assert min(waits) >= 7.0 and max(waits) < 9.0


def test_token_rates_count_tokens() -> None:
    async def run() -> float:
        rates = Rates(tokens=6000)
        started = time.monotonic()
        # A burst of five seconds' worth, 500 tokens, then 100 a second.
        for _ in range(7):
            await rates.acquire(100)
        await rates.acquire(10**9)
        return time.monotonic() - started

    assert 6 < asyncio.run(run()) < 9


def test_the_breaker_opens_pauses_and_closes() -> None:
    async def run() -> None:
        breaker = Breaker(patience=60)
        fault = Unavailable("HTTP 503")
        for _ in range(7):
            breaker.failed(fault)
        started = time.monotonic()
        await breaker.ready()
        assert time.monotonic() - started < 0.1
        breaker.failed(fault)
        await breaker.ready()
        assert time.monotonic() - started > 0.4
        breaker.succeeded()
        started = time.monotonic()
        await breaker.ready()
        assert time.monotonic() - started < 0.1

    asyncio.run(run())


def test_a_busy_server_is_not_down() -> None:
    async def run() -> None:
        breaker = Breaker(patience=0.0)
        for _ in range(50):
            breaker.failed(Unavailable("HTTP 429", down=False))
        await breaker.ready()

    asyncio.run(run())


def test_patience_has_an_end() -> None:
    async def run() -> None:
        breaker = Breaker(patience=0.5)
        for _ in range(10):
            breaker.failed(Unavailable("connection refused"))
        while True:
            await breaker.ready()
            breaker.failed(Unavailable("connection refused"))

    started = time.monotonic()
    with pytest.raises(EndpointDown, match="connection refused"):
        asyncio.run(run())
    assert 0.4 < time.monotonic() - started < 3

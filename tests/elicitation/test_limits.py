"""Rates, waits and the breaker, on a clock that jumps to the next event instead of waiting."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from spacy_mmcot.elicitation.engine import Breaker, make_limiter, seconds_before_retry
from spacy_mmcot.elicitation.replies import Unavailable
from spacy_mmcot.errors import MMCoTError

T = TypeVar("T")


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes at once where nothing is left to do until then."""

    def __init__(self) -> None:
        self._now = 0.0
        loop = self

        class Jump(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> Any:
                loop._now += timeout or 0.0
                return super().select(0)

        super().__init__(Jump())

    def time(self) -> float:
        return self._now


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(coroutine)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_waits_grow_with_jitter_and_have_an_end() -> None:
    for attempt, longest in ((1, 0.5), (2, 1.0), (5, 8.0), (20, 30.0)):
        waits = {seconds_before_retry(attempt, None) for _ in range(200)}
        assert longest / 2 <= min(waits) < max(waits) <= longest
        assert len(waits) > 100


def test_retry_after_is_never_undercut() -> None:
    waits = [seconds_before_retry(1, 7.0) for _ in range(200)]
    assert min(waits) >= 7.0 and max(waits) < 9.0


def test_rates_are_kept_but_for_a_burst() -> None:
    async def wait() -> float:
        limiter = make_limiter(600)
        # A burst of ten, then ten a second.
        for _ in range(25):
            await limiter.acquire()
        return now()

    assert run(wait()) == pytest.approx(1.5, abs=0.1)


def test_the_breaker_opens_pauses_and_closes() -> None:
    async def wait() -> None:
        breaker = Breaker("URL", patience=60)
        fault = Unavailable("HTTP 503")
        for _ in range(7):
            breaker.note_failure(fault)
        await breaker.wait()
        assert now() == 0
        breaker.note_failure(fault)
        await breaker.wait()
        first = now()
        assert 0.5 <= first <= 1.0
        await breaker.wait()
        assert 1.0 <= now() - first <= 2.0
        closed = now()
        breaker.note_success()
        await breaker.wait()
        assert now() == closed

    run(wait())


def test_a_busy_server_is_not_down() -> None:
    async def wait() -> None:
        breaker = Breaker("URL", patience=0.0)
        for _ in range(50):
            breaker.note_failure(Unavailable("HTTP 429", down=False))
        await breaker.wait()

    run(wait())


@pytest.mark.parametrize(("answered", "longest"), [(True, 100.0), (False, 15.0)])
def test_patience_has_an_end(answered: bool, longest: float) -> None:
    async def wait() -> float:
        breaker = Breaker("URL", patience=100.0)
        if answered:
            breaker.note_success()
        for _ in range(10):
            breaker.note_failure(Unavailable("connection refused"))
        with pytest.raises(MMCoTError, match=r"E312.*connection refused"):
            while True:
                await breaker.wait()
                breaker.note_failure(Unavailable("connection refused"))
        return now()

    assert run(wait()) == pytest.approx(longest, abs=0.1)

"""Asking question by question, many at a time: workers, retries, budget, and an orderly end."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..errors import Errors, MMCoTError
from ..types import Post
from .claims import Claim
from .questions import Elicitation, Job
from .replies import AnswerRejected, Breaker, EndpointDown, Rates, Reply, Unavailable, wait_before

# Seconds that requests in flight, which are paid for, get when the run is to end.
_GRACE = 10.0
_POLL, _LONGEST_POLL = 1.0, 30.0
_MONEY_POLL = 0.2


@dataclass(frozen=True)
class Pace:
    """How hard to ask. `workers` questions are in flight; rates are a minute; `tries` counts the
    requests for one question; `patience` and `run_timeout` are in seconds: how long an endpoint
    may be down or ask to wait, and how long the whole run may take."""

    workers: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    tries: int = 8
    patience: float = 120.0
    run_timeout: float | None = None

    def claim_seconds(self) -> float:
        """Longer than a question can take with all its tries."""
        return 60.0 + 100.0 * self.tries


class Ending(Enum):
    """How a run ended."""

    DONE = "done"
    BUDGET = "budget"
    TIME = "time"
    INTERRUPT = "interrupt"


class Engine:
    """Runs an elicitation once. Ctrl-C, the budget and the time limit let the questions in flight
    come to their end and leave the others to a later run; a second Ctrl-C lets nothing."""

    def __init__(self, elicitation: Elicitation, pace: Pace | None = None) -> None:
        self._elicitation = elicitation
        self._pace = pace or Pace()
        self._ending: Ending | None = None
        self._failure: MMCoTError | None = None
        self._interrupts = 0

    def run(self, posts: Iterable[Post]) -> Ending:
        """Ask what the store does not know yet about `posts`, which may be iterated repeatedly.

        Whatever ends the run, each answer that arrived is in the store. Raises MMCoTError where
        the source fails for good.
        """
        with _calm_collector():
            asyncio.run(self._run(posts))
        if self._failure is not None:
            raise self._failure
        return self._ending or Ending.DONE

    async def _run(self, posts: Iterable[Post]) -> None:
        pace, loop = self._pace, asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._rates = Rates(pace.requests_per_minute, pace.tokens_per_minute)
        self._breaker = Breaker(pace.patience)
        # Only the main thread can have signals, and not on every system.
        with suppress(ValueError, NotImplementedError, RuntimeError):
            loop.add_signal_handler(signal.SIGINT, self._interrupted)
        if pace.run_timeout is not None:
            loop.call_later(pace.run_timeout, self._stop, Ending.TIME)
        try:
            await self._passes(posts)
        finally:
            await self._elicitation.source.close()
            if self._elicitation.claims is not None:
                self._elicitation.claims.release_all()
            with suppress(ValueError, NotImplementedError, RuntimeError):
                loop.remove_signal_handler(signal.SIGINT)

    async def _passes(self, posts: Iterable[Post]) -> None:
        await self._pass(self._elicitation.pending(posts))
        pause = _POLL
        while self._elicitation.deferred and not self._stopping.is_set():
            await self._sleep(pause)
            # Each look goes through all posts.
            pause = min(2 * pause, _LONGEST_POLL)
            if self._elicitation.claims and self._elicitation.claims.in_batches():
                self._elicitation.miss_deferred("waits in a batch: run --source openai-batch")
                return
            await self._pass(self._elicitation.pending(posts, deferred=True))

    async def _pass(self, jobs: Iterator[Job | None]) -> None:
        workers = [asyncio.create_task(self._work(jobs)) for _ in range(self._pace.workers)]
        everyone = asyncio.gather(*workers, return_exceptions=True)
        stopped = asyncio.ensure_future(self._stopping.wait())
        ends: list[asyncio.Future[Any]] = [everyone, stopped]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            # Money that is spent already buys its answers; everything else ends soon.
            grace = None if self._ending is Ending.BUDGET else _GRACE
            await asyncio.wait([everyone], timeout=grace)
        finally:
            stopped.cancel()
            for worker in workers:
                worker.cancel()
            results = await asyncio.gather(*workers, return_exceptions=True)
        for result in results:
            if result is not None and not isinstance(result, asyncio.CancelledError):
                raise result

    async def _work(self, jobs: Iterator[Job | None]) -> None:
        for job in jobs:
            # Lets an interrupt and the other workers in where nothing else waits.
            await asyncio.sleep(0)
            if job is None:
                continue
            try:
                if not self._stopping.is_set() and await self._claimed(job):
                    await self._question(job)
                elif self._stopping.is_set():
                    self._elicitation.put_back(job)
            except MMCoTError as error:
                self._elicitation.put_back(job)
                self._failure = self._failure or error
                self._stopping.set()
            except BaseException:
                self._stopping.set()
                self._elicitation.put_back(job)
                raise
            if self._stopping.is_set():
                return

    async def _claimed(self, job: Job) -> bool:
        """Whether this run is to ask the question; if not, it is dealt with, or the run stops."""
        claims = self._elicitation.claims
        if claims is None:
            return True
        while True:
            match claims.claim(job.key, job.cost):
                case Claim.MADE:
                    return True
                case Claim.ANSWERED:
                    self._elicitation.share(job)
                    return False
                case Claim.HELD:
                    self._elicitation.defer(job)
                    return False
                case Claim.POOR:
                    self._stop(Ending.BUDGET)
                    return False
                case Claim.WAIT:
                    if claims.in_batches():
                        # Hours may pass until their cost is known.
                        self._stop(Ending.BUDGET)
                        return False
                    await self._sleep(_MONEY_POLL)
                    if self._stopping.is_set():
                        return False

    async def _question(self, first: Job) -> None:
        self._elicitation.asking(first)
        job: Job | None = first
        while job is not None:
            if job.repairing and self._stopping.is_set():
                # The first answer is kept: a later run goes on from there.
                self._elicitation.put_back(job)
                return
            try:
                reply = await self._answer(job)
            except AnswerRejected as rejected:
                job = self._elicitation.reject(job, rejected)
            else:
                job = None if reply is None else self._elicitation.settle(job, reply)

    async def _answer(self, job: Job) -> Reply | None:
        """The answer, after as many tries as it takes; None where the job has come to its end
        without one."""
        source, fault = self._elicitation.source, None
        for attempt in range(self._pace.tries):
            if fault is not None:
                await self._sleep(wait_before(attempt, fault.retry_after))
            await self._ready(job)
            if self._stopping.is_set():
                self._elicitation.put_back(job)
                return None
            try:
                reply = await source.ask(job.prompt)
            except asyncio.CancelledError:
                self._elicitation.charge(job, None)
                raise
            except AnswerRejected:
                self._breaker.succeeded()
                raise
            except Unavailable as unavailable:
                fault = unavailable
                self._breaker.failed(fault)
                if fault.billed:
                    self._elicitation.charge(job, fault.usage)
                self._check_patience(fault)
                claims = self._elicitation.claims
                if claims is not None and not claims.within_cap():
                    self._elicitation.put_back(job)
                    self._stop(Ending.BUDGET)
                    return None
                continue
            self._breaker.succeeded()
            if reply is None:
                self._elicitation.miss(job)
            return reply
        self._elicitation.miss(job, fault.reason if fault else "")
        return None

    async def _ready(self, job: Job) -> None:
        try:
            await self._breaker.ready()
        except EndpointDown as down:
            url = self._elicitation.source.url
            raise MMCoTError(Errors.E312.format(url=url, reason=down)) from None
        await self._rates.acquire(job.estimate.input + job.estimate.output)

    def _check_patience(self, fault: Unavailable) -> None:
        if fault.retry_after is not None and fault.retry_after > self._pace.patience:
            url, patience = self._elicitation.source.url, self._pace.patience
            message = Errors.E316.format(
                url=url, seconds=round(fault.retry_after), patience=f"{patience:g}"
            )
            raise MMCoTError(message)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, unless the run is to stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _stop(self, ending: Ending) -> None:
        self._ending = self._ending or ending
        self._stopping.set()

    def _interrupted(self) -> None:
        if self._interrupts:
            # The second Ctrl-C is Python's own again.
            signal.default_int_handler(signal.SIGINT, None)
        self._interrupts += 1
        self._stop(Ending.INTERRUPT)


@contextmanager
def _calm_collector() -> Iterator[None]:
    """Hundreds of requests in flight are many young objects that soon go by themselves: looking
    through them as often as Python does by default takes a tenth of the processor's time."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()

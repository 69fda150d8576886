"""Asking question by question, many at a time: workers, rates, retries, budget, and an orderly end.

Waits between tries are made here and not by a retry library: each try also passes the rate limits,
the breaker, the budget and the end of the run, which all workers share.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from aiolimiter import AsyncLimiter

from ..errors import Errors, MMCoTError
from ..messages import check_range
from ..types import Post
from .money import Claim
from .questions import Elicitation, Job
from .replies import AnswerRejected, Reply, RequestRefused, Unavailable

# Seconds that requests in flight, which are paid for, get when the run is to end.
_GRACE = 10.0
_POLL, _LONGEST_POLL = 1.0, 30.0
_MONEY_POLL = 0.2
# Seconds between tries, and between requests to an endpoint that is down.
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_FIRST_PAUSE = 1.0
# Failures in a row after which an endpoint counts as down.
_FAILURES_OF_A_DOWN_ENDPOINT = 8
# A server that has never answered is more likely not there than down.
_FIRST_PATIENCE = 15.0
# Posts in a row that an endpoint refuses before the settings count as wrong.
_REFUSED_BY_SETTINGS = 20


@dataclass(frozen=True)
class Pace:
    """How hard to ask. `workers` questions are in flight; `tries` counts the
    requests for one question; `patience` and `run_timeout` are in seconds: how long an endpoint
    may be down or ask to wait, and how long the whole run may take. `batch_size` requests are in a
    batch, and `batch_poll` seconds between checks of one. Raises MMCoTError for a number that
    cannot be used."""

    workers: int = 8
    requests_per_minute: float | None = None
    tries: int = 8
    patience: float = 120.0
    run_timeout: float | None = None
    batch_size: int = 10_000
    batch_poll: float = 30.0

    def __post_init__(self) -> None:
        least = {"workers": 1, "requests_per_minute": 1e-3, "tries": 1, "batch_size": 1}
        for setting in ("patience", "run_timeout", "batch_poll", *least):
            check_range("Pace", setting, getattr(self, setting), least.get(setting, 0))


# How a run ended.
Ending = Enum("Ending", ["DONE", "BUDGET", "TIME", "INTERRUPT"])


@dataclass
class Engine:
    """Runs an elicitation once. After Ctrl-C, and at the budget or the time limit, no question is
    sent any more and those in flight are waited for; a second Ctrl-C ends the run at once."""

    elicitation: Elicitation
    pace: Pace
    _ending: Ending | None = None
    # Refused since the last answer: the posts' faults if another one comes, else the settings'.
    _refused: list[tuple[Job, RequestRefused]] = field(default_factory=list)
    _answered: bool = False

    def run(self, posts: Iterable[Post]) -> Ending:
        """Ask what the store does not know yet. Raises MMCoTError where the source fails for
        good."""
        # Looking through all modules again and again takes a tenth of the processor time. What a
        # program has frozen itself stays so.
        is_frozen = gc.get_freeze_count() > 0
        if not is_frozen:
            gc.freeze()
        try:
            asyncio.run(self._run(posts))
        finally:
            if not is_frozen:
                gc.unfreeze()
        return self._ending or Ending.DONE

    async def _run(self, posts: Iterable[Post]) -> None:
        self._stopping = asyncio.Event()
        rate, seconds = self.pace.requests_per_minute, self.pace.run_timeout
        self._limiter = nullcontext() if rate is None else make_limiter(rate)
        self._breaker = Breaker(self.elicitation.source.url, self.pace.patience)
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self._stop, Ending.TIME)
        passes = asyncio.ensure_future(self._run_passes(posts))
        try:
            await asyncio.shield(passes)
        except asyncio.CancelledError:
            # The first Ctrl-C; the second is a KeyboardInterrupt.
            self._stop(Ending.INTERRUPT)
            await passes
        finally:
            await self.elicitation.source.close()

    async def _run_passes(self, posts: Iterable[Post]) -> None:
        await self._run_pass(self.elicitation.pending(posts))
        pause = _POLL
        while self.elicitation.deferred and not self._stopping.is_set():
            await self._sleep(pause)
            # Each pass goes through all posts.
            pause = min(2 * pause, _LONGEST_POLL)
            if self.elicitation.account.in_batches():
                self.elicitation.miss_deferred("waits in a batch: run --source openai-batch")
                break
            await self._run_pass(self.elicitation.pending(posts, deferred=True))
        if self._answered:
            self._settle_refused()
        elif self._refused and not self._stopping.is_set():
            self._raise_refusal()

    async def _run_pass(self, jobs: Iterator[Job | None]) -> None:
        workers = [asyncio.create_task(self._work(jobs)) for _ in range(self.pace.workers)]
        everyone = asyncio.gather(*workers, return_exceptions=True)
        stopped = asyncio.ensure_future(self._stopping.wait())
        ends: list[asyncio.Future[Any]] = [everyone, stopped]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            # At the budget, answers that are paid for are waited for; other endings are quick.
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
            # Lets an interrupt and the other workers run where nothing else waits.
            await asyncio.sleep(0)
            if job is not None:
                try:
                    if self._stopping.is_set():
                        self.elicitation.put_back(job)
                    elif await self._claim(job):
                        await self._ask_question(job)
                except BaseException:
                    self._stopping.set()
                    self.elicitation.put_back(job)
                    raise
            if self._stopping.is_set():
                return

    async def _claim(self, job: Job) -> bool:
        """Whether to ask the question; waits for reserved money, stops the run without money."""
        while (claim := self.elicitation.claim(job)) is Claim.WAIT:
            if self.elicitation.account.in_batches():
                # Hours may pass until their cost is known.
                claim = Claim.POOR
                break
            await self._sleep(_MONEY_POLL)
            if self._stopping.is_set():
                return False
        if claim is Claim.POOR:
            self._stop(Ending.BUDGET)
        return claim is Claim.MADE

    async def _ask_question(self, first: Job) -> None:
        job: Job | None = first
        while job is not None:
            if job.repairing and self._stopping.is_set():
                # The first answer is kept: a later run goes on from there.
                self.elicitation.put_back(job)
                return
            try:
                reply = await self._get_answer(job)
            except AnswerRejected as rejected:
                job = self.elicitation.reject(job, rejected)
            except RequestRefused as refused:
                self._refused.append((job, refused))
                posts = {other.post.id for other, _ in self._refused}
                if refused.of_settings or len(posts) >= _REFUSED_BY_SETTINGS:
                    self._raise_refusal()
                return
            else:
                if reply is not None:
                    self._answered = True
                    self._settle_refused()
                job = None if reply is None else self.elicitation.settle(job, reply)

    def _settle_refused(self) -> None:
        """Other questions were answered, so those that were refused have a fault of their own."""
        refused, self._refused = self._refused, []
        for job, fault in refused:
            self.elicitation.reject(job, fault.as_rejection())

    def _raise_refusal(self) -> None:
        job, refused = self._refused[-1]
        question = f"the prompt {job.prompt.template} for the post {job.post.id!r}"
        raise refused.as_error(self.elicitation.source.url, question) from refused

    async def _get_answer(self, job: Job) -> Reply | None:
        """The answer, after as many tries as it takes; None where the job is settled without."""
        fault: Unavailable | None = None
        for attempt in range(self.pace.tries):
            if fault is not None:
                await self._sleep(seconds_before_retry(attempt, fault.retry_after))
            await self._breaker.wait()
            async with self._limiter:
                pass
            if self._stopping.is_set():
                self.elicitation.put_back(job)
                return None
            try:
                reply = await self.elicitation.source.ask(job.prompt)
            except asyncio.CancelledError:
                self.elicitation.book(job, None)
                raise
            except AnswerRejected:
                self._breaker.note_success()
                raise
            except Unavailable as unavailable:
                fault = unavailable
            except RequestRefused as refused:
                # What is no answer at all may be a proxy's, where there were answers before.
                if refused.status != 200 or not self._answered:
                    raise
                fault = Unavailable(refused.reason, billed=True)
            else:
                self._breaker.note_success()
                if reply is None:
                    self.elicitation.miss(job)
                return reply
            if fault.billed:
                self.elicitation.book(job, fault.usage)
            self._breaker.note_failure(fault)
            if not self.elicitation.account.within_cap():
                self.elicitation.put_back(job)
                self._stop(Ending.BUDGET)
                return None
        self.elicitation.miss(job, fault.reason if fault else "")
        return None

    async def _sleep(self, seconds: float) -> None:
        """Sleep, unless the run is to stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _stop(self, ending: Ending) -> None:
        self._ending = self._ending or ending
        self._stopping.set()


def make_limiter(per_minute: float) -> AsyncLimiter:
    """Bursts stay within a second's worth, so that no minute goes above the limit by more."""
    burst = max(1.0, per_minute / 60)
    return AsyncLimiter(burst, burst * 60 / per_minute)


def seconds_before_retry(attempt: int, retry_after: float | None) -> float:
    """Seconds before the next try after `attempt` failed ones: what the endpoint asks for, or else
    twice as long each time. The jitter keeps those who failed together from coming back together.
    """
    if retry_after is not None:
        return retry_after + random.uniform(0, 0.25 * retry_after + 0.1)
    longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (attempt - 1))
    return random.uniform(longest / 2, longest)


class Breaker:
    """Holds requests back while the endpoint at `url` fails every time: one goes through after each
    pause, and the pauses grow. An endpoint that is down, or asks to wait, for longer than
    `patience` seconds is an MMCoTError. Belongs to the event loop that it is made in, and reads
    its clock."""

    def __init__(self, url: str, patience: float) -> None:
        self._url, self._patience = url, patience
        self._failures, self._reason, self._pause = 0, "", _FIRST_PAUSE
        self._clock = asyncio.get_running_loop().time
        # When it last answered, and how long it may be down since.
        self._alive, self._allowed = self._clock(), min(patience, _FIRST_PATIENCE)
        self._gate = asyncio.Lock()

    def note_success(self) -> None:
        self._failures, self._pause = 0, _FIRST_PAUSE
        self._alive, self._allowed = self._clock(), self._patience

    def note_failure(self, fault: Unavailable) -> None:
        """Raises MMCoTError where the endpoint asks to wait for too long."""
        if fault.down:
            self._failures += 1
            self._reason = fault.reason
        else:
            self.note_success()
        if fault.retry_after is not None and fault.retry_after > self._patience:
            waits = {"seconds": round(fault.retry_after), "patience": f"{self._patience:g}"}
            raise MMCoTError(Errors.E316.format(url=self._url, **waits))

    async def wait(self) -> None:
        """Wait until a request may be sent. Raises MMCoTError where the endpoint stays down."""
        if self._failures < _FAILURES_OF_A_DOWN_ENDPOINT:
            return
        async with self._gate:
            if self._failures < _FAILURES_OF_A_DOWN_ENDPOINT:
                return
            left = self._alive + self._allowed - self._clock()
            if left <= 0:
                raise MMCoTError(Errors.E312.format(url=self._url, reason=self._reason))
            await asyncio.sleep(min(left, self._pause * random.uniform(0.5, 1.0)))
            self._pause = min(_LONGEST_WAIT, self._pause * 2)

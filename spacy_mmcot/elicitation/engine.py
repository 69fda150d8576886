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
from dataclasses import dataclass
from enum import Enum
from typing import Any

from aiolimiter import AsyncLimiter

from ..errors import Errors, MMCoTError
from ..types import Post
from .claims import Claim
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
    batch, and `batch_poll` seconds between checks of one."""

    workers: int = 8
    requests_per_minute: float | None = None
    tries: int = 8
    patience: float = 120.0
    run_timeout: float | None = None
    batch_size: int = 10_000
    batch_poll: float = 30.0


class Ending(Enum):
    """How a run ended."""

    DONE = "done"
    BUDGET = "budget"
    TIME = "time"
    INTERRUPT = "interrupt"


class Engine:
    """Runs an elicitation once. After Ctrl-C, and at the budget or the time limit, no question is
    sent any more and those in flight are waited for; a second Ctrl-C ends the run at once."""

    def __init__(self, elicitation: Elicitation, pace: Pace) -> None:
        self._elicitation = elicitation
        self._account = elicitation.account
        self._pace = pace
        self._ending: Ending | None = None
        # Refused since the last answer: the posts' faults if another one comes, else the settings'.
        self._refused: list[tuple[Job, RequestRefused]] = []
        self._answered = False

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
        pace = self._pace
        self._stopping = asyncio.Event()
        rate = pace.requests_per_minute
        self._limiter = nullcontext() if rate is None else make_limiter(rate)
        self._breaker = Breaker(self._elicitation.source.url, pace.patience)
        if pace.run_timeout is not None:
            asyncio.get_running_loop().call_later(pace.run_timeout, self._stop, Ending.TIME)
        passes = asyncio.ensure_future(self._run_passes(posts))
        try:
            await asyncio.shield(passes)
        except asyncio.CancelledError:
            # The first Ctrl-C; the second is a KeyboardInterrupt.
            self._stop(Ending.INTERRUPT)
            await passes
        finally:
            await self._elicitation.source.close()

    async def _run_passes(self, posts: Iterable[Post]) -> None:
        await self._run_pass(self._elicitation.pending(posts))
        pause = _POLL
        while self._elicitation.deferred and not self._stopping.is_set():
            await self._sleep(pause)
            # Each pass goes through all posts.
            pause = min(2 * pause, _LONGEST_POLL)
            if self._account.in_batches():
                self._elicitation.miss_deferred("waits in a batch: run --source openai-batch")
                break
            await self._run_pass(self._elicitation.pending(posts, deferred=True))
        if self._answered:
            self._settle_refused()
        elif self._refused and not self._stopping.is_set():
            self._raise_refusal()

    async def _run_pass(self, jobs: Iterator[Job | None]) -> None:
        workers = [asyncio.create_task(self._work(jobs)) for _ in range(self._pace.workers)]
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
            if job is None:
                continue
            try:
                if not self._stopping.is_set() and await self._claim(job):
                    await self._ask_question(job)
                elif self._stopping.is_set():
                    self._elicitation.put_back(job)
            except BaseException:
                self._stopping.set()
                self._elicitation.put_back(job)
                raise
            if self._stopping.is_set():
                return

    async def _claim(self, job: Job) -> bool:
        """Whether this run is to ask the question. Waits for money that is reserved, and stops the
        run where there is none left."""
        while (claim := self._elicitation.claim(job)) is Claim.WAIT:
            if self._account.in_batches():
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
                self._elicitation.put_back(job)
                return
            try:
                reply = await self._get_answer(job)
            except AnswerRejected as rejected:
                job = self._elicitation.reject(job, rejected)
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
                job = None if reply is None else self._elicitation.settle(job, reply)

    def _settle_refused(self) -> None:
        """Other questions were answered, so those that were refused have a fault of their own."""
        refused, self._refused = self._refused, []
        for job, fault in refused:
            self._elicitation.reject(job, fault.as_rejection())

    def _raise_refusal(self) -> None:
        job, refused = self._refused[-1]
        question = f"the prompt {job.prompt.template} for the post {job.post.id!r}"
        raise refused.as_error(self._elicitation.source.url, question) from refused

    async def _get_answer(self, job: Job) -> Reply | None:
        """The answer, after as many tries as it takes; None where there is none and the job is
        settled."""
        fault: Unavailable | None = None
        for attempt in range(self._pace.tries):
            if fault is not None:
                await self._sleep(seconds_before_retry(attempt, fault.retry_after))
            await self._breaker.wait()
            async with self._limiter:
                pass
            if self._stopping.is_set():
                self._elicitation.put_back(job)
                return None
            try:
                reply = await self._elicitation.source.ask(job.prompt)
            except asyncio.CancelledError:
                self._elicitation.book(job, None)
                raise
            except AnswerRejected:
                self._breaker.note_success()
                raise
            except (RequestRefused, Unavailable) as error:
                fault = self._find_fault(error)
                if fault.billed:
                    self._elicitation.book(job, fault.usage)
                self._breaker.note_failure(fault)
                if not self._account.within_cap():
                    self._elicitation.put_back(job)
                    self._stop(Ending.BUDGET)
                    return None
            else:
                self._breaker.note_success()
                if reply is None:
                    self._elicitation.miss(job)
                return reply
        self._elicitation.miss(job, fault.reason if fault else "")
        return None

    def _find_fault(self, error: RequestRefused | Unavailable) -> Unavailable:
        """The fault to try again after. Raises the RequestRefused of a request that can bring no
        answer. What is no answer at all may be one of a proxy's, where there were answers before.
        """
        if isinstance(error, Unavailable):
            return error
        if error.status == 200 and self._answered:
            return Unavailable(error.reason, billed=True)
        raise error

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
        self._url = url
        self._patience = patience
        self._failures = 0
        self._pause = _FIRST_PAUSE
        self._clock = asyncio.get_running_loop().time
        # When it last answered, and how long it may be down since.
        self._alive, self._allowed = self._clock(), min(patience, _FIRST_PATIENCE)
        self._gate = asyncio.Lock()
        self._reason = ""

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
            seconds, patience = round(fault.retry_after), f"{self._patience:g}"
            message = Errors.E316.format(url=self._url, seconds=seconds, patience=patience)
            raise MMCoTError(message)

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

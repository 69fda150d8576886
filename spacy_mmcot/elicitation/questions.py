"""What is to be asked of a source about posts, and what came of it.

`Elicitation` says what is still to be asked and settles what comes back, each answer at once. It
knows neither time nor network: the engine drives it question by question, and batches file by
file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass, field, replace
from typing import Protocol

from ..types import Dimension, Post
from .money import Account, Claim, estimate
from .parser import AnswerValue, parse_answer
from .prompts import Part, Prompt, QuestionSettings, render_repair
from .replies import AnswerRejected, Reply, Usage
from .store import StoredAnswer, answer_key


@dataclass
class Counts:
    """Outcomes of one dimension. `asked` counts questions sent; each post, or part of a long
    one, is counted in exactly one of `stored`, `already_there`, `rejected` (by this run or an
    earlier one), `missing` and `not_applicable`; posts with the same question share one answer.
    `repaired` counts stored answers that took a second round, `dropped` items that were left out
    of answers: mentions that are not in their post, labels that are not in the scheme, relations
    between mentions that were not listed."""

    asked: int = 0
    stored: int = 0
    already_there: int = 0
    rejected: int = 0
    missing: int = 0
    not_applicable: int = 0
    dropped: int = 0
    repaired: int = 0


@dataclass
class Report:
    """What an elicitation did, by dimension. `unanswered` counts why questions stayed without an
    answer, `dropped` what was left out of answers. `rejected` holds key and post id of answers
    that cannot be used, `captions_only` the ids of posts whose picture a model that sees was not
    shown. `notes` says what else happened."""

    counts: dict[Dimension, Counts] = field(default_factory=dict)
    unanswered: Counter[str] = field(default_factory=Counter)
    rejected: set[tuple[str, str]] = field(default_factory=set)
    captions_only: set[str] = field(default_factory=set)
    dropped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def total(self) -> Counts:
        return Counts(*map(sum, zip(*map(astuple, self.counts.values()), strict=True)))


class Source(Protocol):
    """Where answers come from; `url` says it in messages. Models and parameters go into an
    answer's address, so they hold all that could change it, and no secrets. Only the answers of a
    `paid` source have repair rounds and spend."""

    name: str
    url: str
    model: str
    paid: bool

    def parameters(self, prompt: Prompt) -> dict[str, object]: ...

    async def ask(self, prompt: Prompt) -> Reply | None:
        """The answer, or None where the source has none. Raises AnswerRejected for an answer that
        cannot be used, Unavailable where another try may help, RequestRefused or MMCoTError where
        none will."""
        ...

    async def close(self) -> None:
        """Close connections; a later `ask` may open them again."""
        ...


@dataclass(frozen=True)
class Job:
    """A question to ask, for the first of the posts that it concerns. In the repair round,
    `prompt` goes on from the answer that could not be used."""

    key: str
    prompt: Prompt
    post: Post
    estimate: Usage
    cost: float
    repairing: bool = False

    def make_repair(self, raw: str, reason: str) -> Job:
        return replace(self, prompt=render_repair(self.prompt, raw, reason), repairing=True)


@dataclass
class Elicitation:
    """The questions about posts that the store cannot answer yet, and what became of them.

    Take jobs from `pending`, `claim` each before it is asked, and hand its outcome to `settle`,
    `reject`, `miss`, `defer` or `put_back`, in any order. What is kept is committed before these
    return. `on_settled` gets the numbers of questions that found their end and, among them, that
    failed. `deferred` holds post, dimension, variant and part of questions that another run has in
    flight.
    """

    account: Account
    source: Source
    settings: QuestionSettings
    report: Report
    on_settled: Callable[[int, int], None]
    deferred: set[tuple[str, Dimension, int, Part | None]] = field(default_factory=set)
    _waiting: dict[str, list[Post]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.report.counts |= {dimension: Counts() for dimension in self.settings.variants}
        self.store = self.account.store

    def pending(self, posts: Iterable[Post], deferred: bool = False) -> Iterator[Job | None]:
        """The questions that the store cannot answer yet, made one by one as they are taken, and
        None for each that is settled, so that many of them do not block the event loop.
        `deferred` takes up those that were deferred before, and no others."""
        chosen, self.deferred = self.deferred if deferred else None, set()
        for post in posts:
            for question in self.settings.list_questions(post):
                if chosen is None or (post.id, *question) in chosen:
                    yield self._make_job(post, *question)
            settings = self.settings
            if settings.pictures and post.image and settings.find_picture(post) is None:
                self.report.captions_only.add(post.id)

    def _make_job(
        self, post: Post, dimension: Dimension, variant: int, part: Part | None
    ) -> Job | None:
        counts, model = self.report.counts[dimension], self.source.model
        prompt = self.settings.render(post, dimension, variant, self.store, part)
        if prompt is None:
            counts.not_applicable += 1
            self.on_settled(1, 0)
            return None
        key = answer_key(prompt, model, self.source.parameters(prompt))
        if key in self._waiting:
            self._waiting[key].append(post)
            return None
        if self._reuse(key, dimension, post):
            return None
        self._waiting[key] = [post]
        price = self.account.prices.find(model) if self.source.paid else None
        expected = estimate(prompt, price)
        cost = 0.0 if price is None else price.cost(expected, self.account.batch)
        job = Job(key, prompt, post, expected, cost)
        attempt = self.store.attempt(key)
        return job.make_repair(*attempt) if attempt else job

    def claim(self, job: Job) -> Claim:
        """Claim a question before it is asked. Where another run has it, it is deferred; where
        another run has answered it, the answer is shared."""
        claim = self.account.claim(job.key, job.cost)
        counts = self.report.counts[job.prompt.dimension]
        if claim is Claim.MADE:
            counts.asked += 1
        elif claim is Claim.ANSWERED:
            for post in self._waiting.pop(job.key):
                self._reuse(job.key, job.prompt.dimension, post)
        elif claim is Claim.HELD:
            self.defer(job)
        return claim

    def _reuse(self, key: str, dimension: Dimension, post: Post) -> bool:
        """Whether the store has an answer, which is then counted, good or rejected."""
        status, counts = self.store.reuse(key, post.id), self.report.counts[dimension]
        if status == "rejected":
            counts.rejected += 1
            self.report.rejected.add((key, post.id))
        elif status is not None:
            counts.already_there += 1
        if status is not None:
            self.on_settled(1, int(status == "rejected"))
        return status is not None

    def settle(self, job: Job, reply: Reply) -> Job | None:
        """Keep an answer, with its value or, after a repair round, with the reason why it has
        none. Returns the job of the repair round where one is due."""
        dropped: list[str] = []
        dimension, part, scheme = job.prompt.dimension, job.prompt.part, self.settings.scheme
        try:
            value = parse_answer(reply.text, dimension, job.post, dropped, scheme, part)
        except AnswerRejected as rejected:
            rejected.usage = reply.usage
            return self.reject(job, rejected)
        counts = self.report.counts[dimension]
        counts.dropped += len(dropped)
        self.report.dropped.update(dropped)
        with self.store.transaction():
            self.book(job, reply.usage)
            kept = self._keep(job, reply.text, value)
        counts.stored += kept
        counts.repaired += kept if job.repairing else 0
        return None

    def reject(self, job: Job, rejected: AnswerRejected) -> Job | None:
        """Keep an answer that cannot be used, or ask for a better one: see `settle`."""
        with self.store.transaction():
            if rejected.usage is not None or not rejected.final:
                self.book(job, rejected.usage)
            if self.source.paid and not job.repairing and not rejected.final:
                self.store.put_attempt(job.key, rejected.raw, rejected.reason)
                return job.make_repair(rejected.raw, rejected.reason)
            # Where the second try brought nothing, the first one's answer is all there is.
            first = (self.store.attempt(job.key) or ("",))[0] if job.repairing else ""
            kept = self._keep(job, rejected.raw or first, None, rejected.reason)
        self.report.counts[job.prompt.dimension].rejected += kept
        return None

    def book(self, job: Job, usage: Usage | None) -> None:
        """Book a request that was, or may have been, charged."""
        if self.source.paid:
            self.account.book(self.source.model, job.prompt.dimension, usage, job.estimate)

    def miss(self, job: Job, reason: str | None = None) -> None:
        """There is no answer: nothing is kept, so a later run asks again."""
        posts = self.put_back(job)
        self.report.counts[job.prompt.dimension].missing += len(posts)
        if reason is not None:
            self.report.unanswered[reason] += len(posts)
        self.on_settled(len(posts), 0 if reason is None else len(posts))

    def defer(self, job: Job) -> None:
        """Another run has the question in flight: `pending` can take it up again later."""
        for post in self._waiting.pop(job.key):
            asked = job.prompt
            self.deferred.add((post.id, asked.dimension, asked.variant, asked.part))

    def put_back(self, job: Job) -> list[Post]:
        """The question was not asked, or its answer was not waited for. Returns its posts."""
        self.account.release(job.key)
        return self._waiting.pop(job.key, [])

    def miss_deferred(self, reason: str) -> None:
        """Give up on what other runs have in flight."""
        for _, dimension, *_ in self.deferred:
            self.report.counts[dimension].missing += 1
            self.report.unanswered[reason] += 1
        self.on_settled(len(self.deferred), len(self.deferred))
        self.deferred = set()

    def _keep(
        self, job: Job, raw: str, value: AnswerValue | None, reason: str | None = None
    ) -> int:
        """Keep an answer for all posts of the question, in a transaction; returns how many."""
        posts, prompt, source = self._waiting.pop(job.key), job.prompt, self.source
        for post in posts:
            asked = (job.key, post.id, self.settings.task, prompt.dimension, prompt.template)
            said = (source.name, source.model, raw, value, reason)
            self.store.put(StoredAnswer(*asked, *said, prompt.variant))
        if value is None:
            self.report.rejected |= {(job.key, post.id) for post in posts}
        if job.repairing:
            self.store.write("DELETE FROM attempts WHERE key = ?", job.key)
        self.account.release(job.key)
        self.on_settled(len(posts), len(posts) if value is None else 0)
        return len(posts)

"""Ask a source about posts and keep what it answers.

`Elicitation` says what is still to be asked and settles what comes back, each answer at once;
`elicit` runs it with a few questions in flight. Other ways of asking (a batch of files, a source
with rate limits or a budget) can drive or wrap the same two halves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol

from ..errors import MMCoTError
from ..types import DIMENSIONS, Dimension, Post, Task
from .parser import AnswerRejected, AnswerValue, parse
from .prompts import Prompt, render
from .store import AnswerStore, StoredAnswer, answer_key


class Source(Protocol):
    """Where answers come from. `model` and `parameters` go into an answer's address, so they hold
    all that could change it, and no secrets."""

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str: ...

    def parameters(self, prompt: Prompt) -> dict[str, object]: ...

    async def ask(self, prompt: Prompt) -> str | None:
        """The raw answer, or None where the source has none. Raises AnswerRejected for an answer
        that is to be kept as useless, MMCoTError where asking on makes no sense."""
        ...

    async def close(self) -> None:
        """Let go of connections; a later `ask` may open them again."""
        ...


@dataclass
class Counts:
    """Outcomes of one dimension. `asked` counts questions sent; each post ends in exactly one of
    `stored`, `already_there`, `rejected`, `missing` and `not_applicable`; posts with the very same
    question share one answer. `dropped_mentions` counts things that are not in their post."""

    asked: int = 0
    stored: int = 0
    already_there: int = 0
    rejected: int = 0
    missing: int = 0
    not_applicable: int = 0
    dropped_mentions: int = 0


@dataclass
class Report:
    """What an elicitation did, by dimension."""

    counts: dict[Dimension, Counts] = field(default_factory=dict)

    def total(self) -> Counts:
        every = self.counts.values()
        return Counts(**{f.name: sum(getattr(c, f.name) for c in every) for f in fields(Counts)})


@dataclass(frozen=True)
class Job:
    """A question to ask, for the first of the posts that it concerns."""

    key: str
    prompt: Prompt
    post: Post


class Elicitation:
    """What is to be asked of a source about posts, and what came of it.

    Take jobs from `pending` and hand the outcome of each to `settle`, `reject` or `miss`, in any
    order. Each is committed to the store before these return. `on_settled` gets the number of
    posts that found their end.
    """

    def __init__(
        self,
        store: AnswerStore,
        source: Source,
        task: Task = "ner",
        dimensions: Sequence[Dimension] = DIMENSIONS,
        on_settled: Callable[[int], None] = lambda posts: None,
    ) -> None:
        self.report = Report({dimension: Counts() for dimension in dimensions})
        self._store = store
        self._source = source
        self._task = task
        self._on_settled = on_settled
        self._waiting: dict[str, list[Post]] = {}

    def pending(self, posts: Iterable[Post]) -> Iterator[Job]:
        """The questions that the store cannot answer yet, made one by one as they are taken."""
        for post in posts:
            for dimension, counts in self.report.counts.items():
                prompt = render(post, dimension, self._task)
                if prompt is None:
                    counts.not_applicable += 1
                    self._on_settled(1)
                    continue
                key = answer_key(prompt, self._source.model, self._source.parameters(prompt))
                if self._store.has(key, post.id):
                    self._store.renew(key, post.id)
                    counts.already_there += 1
                    self._on_settled(1)
                elif key in self._waiting:
                    self._waiting[key].append(post)
                elif self._store.share(key, post.id):
                    counts.already_there += 1
                    self._on_settled(1)
                else:
                    self._waiting[key] = [post]
                    counts.asked += 1
                    yield Job(key, prompt, post)

    def settle(self, job: Job, raw: str) -> None:
        """Keep a raw answer, with its value or with the reason why it has none."""
        dropped: list[str] = []
        try:
            value = parse(raw, job.prompt.dimension, job.post, dropped)
        except AnswerRejected as rejected:
            self.reject(job, rejected)
            return
        counts = self.report.counts[job.prompt.dimension]
        counts.dropped_mentions += len(dropped)
        counts.stored += self._keep(job, raw, value)

    def reject(self, job: Job, rejected: AnswerRejected) -> None:
        counts = self.report.counts[job.prompt.dimension]
        counts.rejected += self._keep(job, rejected.raw, None, rejected.reason)

    def miss(self, job: Job) -> None:
        """The source has no answer: nothing is kept, so a later run asks again."""
        posts = self._waiting.pop(job.key)
        self.report.counts[job.prompt.dimension].missing += len(posts)
        self._on_settled(len(posts))

    def _keep(
        self, job: Job, raw: str, value: AnswerValue | None, reason: str | None = None
    ) -> int:
        posts = self._waiting.pop(job.key)
        for post in posts:
            answer = StoredAnswer(
                key=job.key,
                post_id=post.id,
                task=self._task,
                dimension=job.prompt.dimension,
                template=job.prompt.template,
                source=self._source.name,
                model=self._source.model,
                raw=raw,
                value=value,
                reason=reason,
            )
            self._store.put(answer)
        self._on_settled(len(posts))
        return len(posts)


def elicit(
    posts: Iterable[Post],
    store: AnswerStore,
    source: Source,
    task: Task = "ner",
    dimensions: Sequence[Dimension] = DIMENSIONS,
    workers: int = 8,
    on_settled: Callable[[int], None] = lambda posts: None,
) -> Report:
    """Ask `source` what `store` does not know yet about `posts`, `workers` questions at a time.

    Whatever ends the run, each answer that arrived is in the store. Raises MMCoTError where the
    source fails for good, after the questions in flight have come to their end.
    """
    elicitation = Elicitation(store, source, task, dimensions, on_settled)
    asyncio.run(_drive(elicitation, source, posts, workers))
    return elicitation.report


async def _drive(
    elicitation: Elicitation, source: Source, posts: Iterable[Post], workers: int
) -> None:
    jobs = elicitation.pending(posts)
    failures: list[MMCoTError] = []

    async def work() -> None:
        for job in jobs:
            # Lets an interrupt and the other workers in where nothing else waits.
            await asyncio.sleep(0)
            try:
                raw = await source.ask(job.prompt)
            except AnswerRejected as rejected:
                elicitation.reject(job, rejected)
            except MMCoTError as error:
                failures.append(error)
            else:
                if raw is None:
                    elicitation.miss(job)
                else:
                    elicitation.settle(job, raw)
            if failures:
                return

    try:
        await asyncio.gather(*(work() for _ in range(max(1, workers))))
    finally:
        await source.close()
    if failures:
        raise failures[0]

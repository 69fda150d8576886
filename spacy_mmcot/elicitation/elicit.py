"""Elicitation as a whole: the `elicit` block of a project.yml, the plan of what a run will ask and
cost, the run itself, and questions while a pipeline runs.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pydantic

from ..errors import Errors, MMCoTError, UsageError
from ..messages import explain
from ..scheme import Scheme, read_yaml
from ..types import AUGMENTATIONS, Conclusion, Dimension, Post, make_text_key
from .batches import BatchRunner
from .client import OpenAISource
from .conclusion import Examples
from .engine import Ending, Engine, Pace
from .money import Account, Prices, count_cached, estimate, read_mean_output
from .parser import read_definitions
from .prompts import KINDS, QuestionSettings, render_scheme
from .questions import Elicitation, Report, Source
from .replies import Fault, Reply, RequestRefused, Usage
from .store import AnswerStore, answer_key


class Ask(pydantic.BaseModel):
    """One dimension: how many variants (of augmentations and the conclusion), and the dimensions
    whose answers are handed on (to the conclusion)."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    variants: int = pydantic.Field(default=1, ge=1, le=20)
    after: list[Literal["noun", "sentence", "multimodality"]] = []


def _check_asks(asks: dict[Dimension, Ask]) -> dict[Dimension, Ask]:
    if not asks:
        raise ValueError("no dimension is named")
    for name, ask in asks.items():
        if ask.variants > 1 and name not in (*AUGMENTATIONS, "conclusion"):
            raise ValueError(f"{name} has {ask.variants} variants, but it is knowledge")
        if ask.after and name != "conclusion":
            raise ValueError(f"{name} is asked after others, but only the conclusion can be")
    return asks


_ASKS = pydantic.TypeAdapter(Annotated[dict[Dimension, Ask], pydantic.AfterValidator(_check_asks)])


def choose_dimensions(config: Path | None, names: Collection[str] = ()) -> dict[Dimension, Ask]:
    """What the block `elicit` under `vars` of a project.yml, {DIMENSION: {variants, after}}, says
    about the named dimensions, or else about all that it has; plain questions where it says
    nothing. Raises MMCoTError for a file or a block that is broken."""
    asks = None if config is None else _read_block(config)
    known = asks or {}
    chosen = names or (KINDS if asks is None else asks)
    return {name: known.get(name, Ask()) for name in KINDS if name in chosen}


def _read_block(path: Path) -> dict[Dimension, Ask] | None:
    block = read_yaml(path)
    for key in ("vars", "elicit"):
        block = block.get(key) if isinstance(block, dict) else None
    if isinstance(block, dict):
        # `noun:` with nothing after it is how YAML says "plainly".
        block = {name: {} if ask is None else ask for name, ask in block.items()}
    try:
        return None if block is None else _ASKS.validate_python(block)
    except pydantic.ValidationError as error:
        problem, expected = explain(error)
        message = Errors.E322.format(path=path, problem=problem, expected=expected)
        raise MMCoTError(message) from None


def choose_examples(
    scheme: Scheme,
    posts: Iterable[Post],
    store: Path | None,
    part_tokens: int | None = None,
    anew: bool = False,
) -> tuple[Examples, bool]:
    """The examples of a conclusion: those of the store, so that labels which came later do not ask
    about all texts again; a new choice where it has none, `anew`, and where a label has left the
    scheme, the number of examples is another, or an example's text is held out now. And whether a
    new choice would be another. Raises like Examples."""
    fresh, kept = Examples(scheme, posts, part_tokens), None
    # A store that another process is making is empty until it has its tables.
    if store is not None and store.exists() and store.stat().st_size:
        with AnswerStore(store, read_only=True) as opened:
            kept = opened.read_examples()
    if kept is None or anew or kept == fresh.chosen or len(kept) > 2 * scheme.examples:
        return fresh, False
    items = [x for p in kept.values() for x in [*(p.entities or ()), *(p.relations or ())]]
    held_out = {make_text_key(post.text) for post in posts if post.split in ("dev", "test")}
    unknown = {item.label for item in items} - {*scheme.entities, *scheme.relations}
    if unknown or held_out & kept.keys():
        return fresh, False
    fresh.chosen = kept
    return fresh, True


@dataclass
class PlannedDimension:
    """One dimension of a plan: requests and tokens, and costs in US dollars, None without
    a price. `there` counts questions that the store has answers to, `not_applicable` those that
    make no sense for their post."""

    requests: int = 0
    there: int = 0
    not_applicable: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    batch_cost: float | None = None


def plan(
    posts: Iterable[Post],
    source: Source,
    prices: Prices,
    settings: QuestionSettings,
    store: AnswerStore | None = None,
) -> dict[Dimension, PlannedDimension]:
    """Count what `elicit` would ask. A repair round, which few answers take, is not counted.

    Input tokens are estimated from the length of the texts; those of a long beginning that an
    earlier prompt has too count as cached, as endpoints do. Output tokens are the mean of what the
    store's ledger has of a model and dimension, or else typical figures.
    """
    planned = {name: PlannedDimension() for name in settings.variants}
    price = prices.find(source.model)
    outputs = {} if store is None else read_mean_output(store, source.model)
    asked, beginnings = set[str](), set[str]()
    for post in posts:
        for dimension, variant, part in settings.list_questions(post):
            row = planned[dimension]
            prompt = settings.render(post, dimension, variant, store, part)
            if prompt is None:
                row.not_applicable += 1
                continue
            key = answer_key(prompt, source.model, source.parameters(prompt))
            if key in asked or (store is not None and store.has_answer(key)):
                row.there += 1
                continue
            asked.add(key)
            usage = estimate(prompt, price, outputs.get(dimension))
            beginning = prompt.messages[0]["content"]
            row.cached_tokens += count_cached(beginning) if beginning in beginnings else 0
            beginnings.add(beginning)
            row.requests += 1
            row.input_tokens += usage.input
            row.output_tokens += usage.output
    for row in planned.values():
        usage = Usage(row.input_tokens, row.cached_tokens, row.output_tokens)
        if price is not None:
            row.cost, row.batch_cost = price.cost(usage), price.cost(usage, batch=True)
    return planned


class ElicitResult(NamedTuple):
    """What a run did, how it ended, and what it cost, in US dollars."""

    report: Report
    ending: Ending
    cost: float


# Takes the numbers of questions settled, and failed among them, since the last call, and what the
# run has cost so far.
Progress = Callable[[int, int, float], None]


def elicit(
    posts: Iterable[Post],
    store: AnswerStore,
    source: Source,
    settings: QuestionSettings | None = None,
    *,
    pace: Pace | None = None,
    prices: Prices | None = None,
    budget: float | None = None,
    on_progress: Progress = lambda settled, failed, cost: None,
) -> ElicitResult:
    """Ask `source` what `store` does not know yet about `posts`.

    `settings` says what is asked. `budget` caps all that the store's answers may cost, in US
    dollars. Whatever ends the run, each answer that arrived is in the store.
    Raises MMCoTError where the source fails for good, UsageError for a budget where the model has
    no price.
    """
    pace, prices = pace or Pace(), prices or Prices()
    _check_budget(budget, source, prices)
    posts = list(posts) if isinstance(posts, Iterator) else posts
    batch = source if isinstance(source, OpenAISource) and source.batch else None
    account = Account(store, prices, source.name, budget, batch=batch is not None)
    report, ending, settings = Report(), Ending.DONE, settings or QuestionSettings()
    if not source.paid:
        settings = replace(settings, part_tokens=None)  # recorded answers are about whole posts

    def on_settled(settled: int, failed: int) -> None:
        on_progress(settled, failed, account.cost)

    with closing(account):
        for stage in settings.in_stages():
            elicitation = Elicitation(account, source, stage, report, on_settled)
            engine = BatchRunner(elicitation, batch, pace) if batch else Engine(elicitation, pace)
            ending = engine.run(posts)
            if ending is not Ending.DONE:
                break
    return ElicitResult(report, ending, account.cost)


def _check_budget(budget: float | None, source: Source, prices: Prices) -> None:
    if budget is not None and source.paid and prices.find(source.model) is None:
        raise UsageError(Errors.E321.format(model=source.model))


# Seconds in which an endpoint that answered none of a batch's questions is left alone.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
# What an endpoint says of a wrong key, model or address.
_WRONG_SETTINGS = (401, 404, 405)
# One thread of a process asks at a time: connections belong to its event loop.
_LOCK = threading.Lock()
_LOG = logging.getLogger(__name__)


@dataclass
class RuntimeElicitation:
    """Asks for the conclusions on posts batch by batch, while a pipeline runs. What an endpoint
    does is an error only where it refuses key, model or address of the first questions. `failures`
    counts why others stayed without an answer.

    examples: those that prompts show, as `Examples.chosen`.

    Raises UsageError for a budget where the model has no price.
    """

    source: OpenAISource
    scheme: Scheme
    examples: Mapping[str, Post]
    store: Path
    pace: Pace
    prices: Prices
    budget: float | None
    failures: Counter[str] = field(default_factory=Counter)
    _has_answered: bool = False
    # Points of time.monotonic() before which nothing is asked, and the seconds of the last pause.
    _paused_until: float = 0.0
    _rate_until: float = 0.0
    _pause: float = 0.0

    def __post_init__(self) -> None:
        _check_budget(self.budget, self.source, self.prices)
        shown = Examples(self.scheme, ())
        shown.chosen = dict(self.examples)
        variants: dict[Dimension, int] = {"conclusion": 1}
        self._questions = QuestionSettings(variants=variants, scheme=self.scheme, examples=shown)

    def conclude(self, posts: Sequence[Post]) -> tuple[list[Conclusion | None], bool]:
        """What an LLM concludes on each of some posts, asked at the same time unless the store has
        it, None where it gave no answer that can be used; and whether the budget was enough for
        all. Raises MMCoTError for settings that the endpoint refuses at first, and a store that
        cannot be used."""
        with _LOCK:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return self._conclude(posts)
            # In a notebook or an asynchronous service; a thread has one loop.
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(self._conclude, posts).result()

    def _conclude(self, posts: Sequence[Post]) -> tuple[list[Conclusion | None], bool]:
        keys: list[list[str]] = [[] for _ in posts]
        for post, own in zip(posts, keys, strict=True):
            for dimension, variant, part in self._questions.list_questions(post):
                prompt = self._questions.render(post, dimension, variant, part=part)
                if prompt is not None:
                    parameters = self.source.parameters(prompt)
                    own.append(answer_key(prompt, self.source.model, parameters))
        with AnswerStore(self.store) as store:
            ending = self._ask(posts, store, [key for own in keys for key in own])
            found = [store.find_conclusion(own) for own in keys]
        return found, ending is not Ending.BUDGET

    def _ask(self, posts: Sequence[Post], store: AnswerStore, keys: Sequence[str]) -> Ending | None:
        """Ask what the store does not know. None where the endpoint is down, or left alone."""
        time.sleep(max(0.0, self._rate_until - time.monotonic()))
        started = time.monotonic()
        if started < self._paused_until:
            return None
        money: dict[str, Any] = {"prices": self.prices, "budget": self.budget}
        n_known = sum(map(store.has_answer, keys))
        try:
            result = elicit(posts, store, self.source, self._questions, pace=self.pace, **money)
        except MMCoTError as error:
            cause = error.__cause__
            self._has_answered |= sum(map(store.has_answer, keys)) > n_known
            is_refused = isinstance(cause, RequestRefused) and cause.status in _WRONG_SETTINGS
            if is_refused and not self._has_answered:
                raise
            _LOG.warning("The LLM did not answer: %s", error)
            self.failures[str(error)] += len(posts)
            self._leave_alone()
            return None
        if result.ending is Ending.INTERRUPT:
            raise KeyboardInterrupt
        self.failures.update(result.report.unanswered)
        counts = result.report.total()
        if sum(map(store.has_answer, keys)) > n_known:
            self._has_answered, self._pause = True, 0.0
        elif counts.missing:
            self._leave_alone()
        if self.pace.requests_per_minute is not None:
            # The limit of one run knows nothing of the run before.
            self._rate_until = started + 60 / self.pace.requests_per_minute * counts.asked
        return result.ending

    def _leave_alone(self) -> None:
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause) or _FIRST_PAUSE
        self._paused_until = time.monotonic() + self._pause


def define_labels(draft: Scheme, source: Source, posts: Iterable[Post]) -> Scheme:
    """The scheme with definitions that the source writes, from its typical mentions and labelled
    posts. Raises MMCoTError where the source gives none."""
    labels = [*draft.entities, *draft.relations]

    async def ask() -> Reply | None:
        try:
            return await source.ask(render_scheme(draft, posts))
        finally:
            await source.close()

    try:
        reply = asyncio.run(ask())
        definitions = read_definitions("" if reply is None else reply.text, labels)
    except RequestRefused as refused:
        raise refused.as_error(source.url, "the question what the labels mean") from None
    except Fault as error:
        raise MMCoTError(Errors.E325.format(url=source.url, reason=error)) from None
    relations = {
        label: relation.model_copy(update={"definition": definitions[label]})
        for label, relation in draft.relations.items()
    }
    entities = {label: definitions[label] for label in draft.entities}
    return draft.model_copy(update={"entities": entities, "relations": relations})

"""One run of an elicitation: claims and ledger set up, asked by the engine, closed properly."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ..types import DIMENSIONS, Dimension, Post, Task
from .batches import BatchPace, BatchRunner
from .claims import Claims
from .client import OpenAISource
from .elicit import Elicitation, Source
from .engine import Ending, Engine, Pace
from .ledger import Ledger
from .outcomes import Report
from .prices import Prices
from .store import AnswerStore


class Money(NamedTuple):
    """Prices, and the cap on all that the store's answers may cost, in the prices' currency."""

    prices: Prices
    cap: float | None = None


class Result(NamedTuple):
    """What a run did, how it ended, and what it cost, in the prices' currency."""

    report: Report
    ending: Ending
    cost: float


# Number of questions settled since the last call, and what the run has cost so far.
Progress = Callable[[int, float], None]


def elicit(
    posts: Iterable[Post],
    store: AnswerStore,
    source: Source,
    task: Task = "ner",
    dimensions: Mapping[Dimension, int] | Iterable[Dimension] = DIMENSIONS,
    *,
    pace: Pace | None = None,
    money: Money | None = None,
    batches: BatchPace | None = None,
    pictures: Path | None = None,
    on_progress: Progress = lambda settled, cost: None,
    on_failed: Callable[[int], None] = lambda questions: None,
) -> Result:
    """Ask `source` what `store` does not know yet about `posts`, which may be iterated repeatedly.

    `dimensions` may say how many variants of each are wanted; `batches` asks by the Batch API
    instead of one by one; `pictures` is the folder of the posts' pictures for a model that sees.
    Whatever ends the run, each answer that arrived is in
    the store. Raises MMCoTError where the source fails for good.
    """
    pace, money = pace or Pace(), money or Money(Prices())
    claims, ledger = None, None
    if source.paid:
        run = run_name()
        claims = Claims(store, run, pace.claim_seconds(), money.cap)
        ledger = Ledger(store, money.prices, run, source.name, batch=batches is not None)
    elicitation = Elicitation(
        store,
        source,
        task,
        dimensions,
        pictures=pictures,
        claims=claims,
        ledger=ledger,
        on_failed=on_failed,
        on_settled=lambda settled: on_progress(settled, ledger.cost if ledger else 0.0),
    )
    if batches is not None and isinstance(source, OpenAISource) and claims is not None:
        ending = BatchRunner(elicitation, source, claims, batches).run(posts)
    else:
        ending = Engine(elicitation, pace).run(posts)
    return Result(elicitation.report, ending, ledger.cost if ledger else 0.0)


def run_name() -> str:
    """Names sort by the time of the run's start (UTC)."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"

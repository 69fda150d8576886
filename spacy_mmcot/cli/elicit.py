"""How a run gets on: a bar on a terminal, plain lines elsewhere.

`elicit`: ask an LLM about posts, once, and keep its answers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as BarTask
from rich.text import Text

from ..errors import Errors, MMCoTError, UsageError
from ..types import Task
from .plan import (
    BaseUrlOption,
    ConfigOption,
    DimensionOption,
    InsecureOption,
    ModelOption,
    PostsFile,
    PricesOption,
    SourceName,
    TemperatureOption,
    VisionOption,
    chosen,
    openai_source,
    recorded_source,
    sees,
)

if TYPE_CHECKING:
    from ..elicitation.elicit import Money, Result
    from ..elicitation.questions import Source
    from ..elicitation.store import AnswerStore

# Told the number of questions settled since the last call, and the cost so far.
Told = Callable[[int, float], None]
_SECONDS_BETWEEN_LINES = 30.0


class _RateColumn(ProgressColumn):
    def render(self, task: BarTask) -> Text:
        return Text(f"{task.speed or 0:.1f}/s")


@contextmanager
def progress(total: int, failures: Callable[[], int], priced: bool) -> Iterator[Told]:
    """Shows questions done of `total`, rate, time left, failures, and spend where it is `priced`,
    from what the yielded function is told."""
    if sys.stdout.isatty():
        with _bar(total, failures, priced) as told:
            yield told
    else:
        yield _lines(total, failures, priced)


@contextmanager
def _bar(total: int, failures: Callable[[], int], priced: bool) -> Iterator[Told]:
    spend = TextColumn("{task.fields[spend]}")
    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), _RateColumn())
    with Progress(
        *columns, TimeRemainingColumn(), TextColumn("{task.fields[failed]}"), spend
    ) as bar:
        task = bar.add_task("", total=total, failed="", spend="")

        def told(settled: int, cost: float) -> None:
            bar.update(
                task,
                advance=settled,
                failed=f"{failures()} failed",
                spend=f"{cost:.4f} spent" if priced else "",
            )

        yield told


def _lines(total: int, failures: Callable[[], int], priced: bool) -> Told:
    done, started = 0, time.monotonic()
    shown = started

    def told(settled: int, cost: float) -> None:
        nonlocal done, shown
        tenths, done = done * 10 // total, done + settled
        now = time.monotonic()
        if done * 10 // total == tenths and now - shown < _SECONDS_BETWEEN_LINES:
            return
        shown = now
        rate = done / max(now - started, 1e-9)
        line = f"{done} of {total}, {rate:.1f}/s, {failures()} failed"
        if done < total:
            line += f", {(total - done) / rate:.0f} s left"
        print(line + (f", {cost:.4f} spent" if priced else ""), flush=True)

    return told


_SHOWN = 5
REJECTED, BUDGET, INTERRUPTED = 3, 4, 130


def elicit(
    posts: Annotated[Path, typer.Argument(help="Posts file (.jsonl).")],
    store: Annotated[Path, typer.Argument(help="Answers store (.sqlite), made or added to.")],
    source: Annotated[
        SourceName,
        typer.Option(help="A recorded file, an OpenAI-compatible API, or its Batch API."),
    ] = "recorded",
    recorded: Annotated[
        Path | None, typer.Option(help="Recorded answers (.jsonl), for --source recorded.")
    ] = None,
    config: ConfigOption = None,
    model: ModelOption = "gpt-4o-mini",
    task: Annotated[Task, typer.Option(help="Which prompts to use.")] = "ner",
    dimension: DimensionOption = None,
    vision: VisionOption = None,
    base_url: BaseUrlOption = None,
    insecure: InsecureOption = False,
    temperature: TemperatureOption = None,
    workers: Annotated[int, typer.Option(min=1, max=1000, help="Questions in flight.")] = 8,
    rpm: Annotated[float | None, typer.Option(min=0.1, help="Most requests a minute.")] = None,
    tpm: Annotated[float | None, typer.Option(min=1, help="Most tokens a minute.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one request.")] = 60.0,
    run_timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds for the whole run.")
    ] = None,
    tries: Annotated[int, typer.Option(min=1, help="Requests for one question.")] = 8,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds that an endpoint may be down or ask to wait.")
    ] = 120.0,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="Most that the store's answers may cost, of all runs together."),
    ] = None,
    prices: PricesOption = None,
    batch_size: Annotated[
        int, typer.Option(min=1, max=50_000, help="Requests in one batch.")
    ] = 10_000,
    batch_poll: Annotated[float, typer.Option(min=0.1, help="Seconds between looks at it.")] = 30.0,
    threshold: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of useless or missing answers that is exit code 3."),
    ] = 0.05,
    failures: Annotated[
        bool, typer.Option("--failures", help="Ask nothing: list the store's rejected answers.")
    ] = False,
) -> None:
    """Ask an LLM about each post and keep its answers in a store.

    What the store holds already is not asked again, so a run that was stopped goes on where it was.
    Exit codes: 0 done, 1 stopped by an error, 2 wrong usage, 3 finished with too many useless or
    missing answers, 4 budget reached, 130 Ctrl-C.
    """
    from ..elicitation.batches import BatchPace
    from ..elicitation.elicit import Money
    from ..elicitation.elicit import elicit as ask
    from ..elicitation.engine import Ending, Pace
    from ..elicitation.prices import Prices
    from ..elicitation.store import AnswerStore

    if failures:
        with AnswerStore(store, read_only=True) as opened:
            _list_failures(opened)
        return
    asked = chosen(config, dimension)
    dimensions = asked.variants()
    money = Money(Prices(prices), budget)
    if source == "recorded":
        answerer: Source = recorded_source(recorded)
    else:
        answerer = openai_source(
            model,
            asked,
            base_url=base_url,
            insecure=insecure,
            temperature=temperature,
            timeout=timeout,
            name=source,
        )
        _check_prices(money, {answerer.model_for(name) for name in dimensions})
    rows = PostsFile(posts)
    total = rows.check() * sum(dimensions.values())
    shown = answerer.paid and sees(vision, answerer, dimensions, money.prices)
    pace = Pace(workers, rpm, tpm, tries, patience, run_timeout)
    batches = BatchPace(batch_size, tries, batch_poll, run_timeout)
    with AnswerStore(store) as opened:
        failed = 0

        def count_failure(count: int) -> None:
            nonlocal failed
            failed += count

        try:
            with progress(total, lambda: failed, answerer.paid) as told:
                result = ask(
                    rows,
                    opened,
                    answerer,
                    task,
                    dimensions,
                    pace=pace,
                    money=money,
                    batches=batches if source == "openai-batch" else None,
                    pictures=posts.parent if shown else None,
                    on_progress=told,
                    on_failed=count_failure,
                )
        except KeyboardInterrupt:
            _stopped(store)
        _print_summary(result, opened, store, answerer.paid)
    match result.ending:
        case Ending.INTERRUPT:
            _stopped(store)
        case Ending.TIME:
            raise MMCoTError(Errors.E319.format(seconds=f"{run_timeout or 0:g}"))
        case Ending.BUDGET:
            print(f"The budget of {budget:g} is reached: the rest waits for a larger one.")
            raise typer.Exit(BUDGET)
    done = result.report.total()
    useless = done.rejected + (done.missing if answerer.paid else 0)
    if useless > threshold * max(1, done.stored + useless):
        raise typer.Exit(REJECTED)


def _stopped(store: Path) -> None:
    print(f"Stopped. What was answered is in {store}: run the command again to go on.")
    raise typer.Exit(INTERRUPTED)


def _check_prices(money: Money, models: set[str]) -> None:
    for model in sorted(models):
        if money.cap is not None and money.prices.find(model) is None:
            raise UsageError(Errors.E321.format(model=model))


def _list_failures(store: AnswerStore) -> None:
    rejected = store.rejected()
    for answer in rejected:
        print(f"{answer.post_id} {answer.dimension}: {answer.reason}")
        # The raw text is a stranger's: on one line, and without codes that a terminal obeys.
        print(f"    {answer.raw!r}")
    print(f"{len(rejected)} rejected answers.")


def _print_summary(result: Result, store: AnswerStore, path: Path, paid: bool) -> None:
    from dataclasses import astuple, fields

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from ..elicitation.claims import spent
    from ..elicitation.questions import Counts

    report = result.report
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("dimension", no_wrap=True)
    short = {"already_there": "there", "not_applicable": "n/a", "dropped_mentions": "dropped"}
    for field in fields(Counts):
        heading = short.get(field.name, field.name.replace("_", " "))
        table.add_column(heading, justify="right", no_wrap=True)
    for name, counts in report.counts.items():
        table.add_row(name, *map(str, astuple(counts)))
    table.add_section()
    table.add_row("all", *map(str, astuple(report.total())))
    Console().print(table)
    shown = min(_SHOWN, report.total().rejected)
    for answer in store.rejected()[-shown:] if shown else []:
        print(f"rejected: {answer.post_id} {answer.dimension}: {answer.reason}")
    for reason, count in report.unanswered.most_common(_SHOWN):
        print(f"unanswered: {count}: {reason}")
    if report.total().dropped_mentions:
        print("dropped: things of noun lists that their posts do not name")
    if report.captions_only:
        print(f"captions only: {report.captions_only} posts whose picture could not be read")
    if paid:
        print(f"Spent {result.cost:.4f} in this run, {spent(store):.4f} on this store.")
    print(f"Answers are in {path}.")

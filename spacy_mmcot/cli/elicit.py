"""`elicit`: ask an LLM about posts, once, and keep its answers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import Errors, MMCoTError, UsageError
from .plan import (
    ConfigOption,
    DimensionOption,
    ModelOption,
    PostsFile,
    PricesOption,
    SchemeOption,
    TaskOption,
    TemperatureOption,
    TemplatesOption,
    VisionOption,
    choose_dimensions,
    make_questions,
    print_table,
)

if TYPE_CHECKING:
    from ..elicitation.elicit import Result
    from ..elicitation.questions import Source
    from ..elicitation.store import AnswerStore

SourceName = Literal["recorded", "openai", "openai-batch"]
# Takes the number of questions settled and failed since the last call, and the cost so far.
ShowProgress = Callable[[int, int, float], None]

_SECONDS_BETWEEN_LINES = 30.0
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
    task: TaskOption = "ner",
    dimension: DimensionOption = None,
    vision: VisionOption = None,
    base_url: Annotated[
        str | None,
        typer.Option(help="Endpoint, before OPENAI_BASE_URL; the key is OPENAI_API_KEY."),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Allow an endpoint that is neither https nor loopback."),
    ] = False,
    scheme: SchemeOption = None,
    templates: TemplatesOption = None,
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
    batch_poll: Annotated[
        float, typer.Option(min=0.1, help="Seconds between checks of a batch.")
    ] = 30.0,
    threshold: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Exit code 3 above this share of rejected or missing answers.",
        ),
    ] = 0.05,
    failures: Annotated[
        bool, typer.Option("--failures", help="Ask nothing: list the store's rejected answers.")
    ] = False,
) -> None:
    """Ask an LLM about each post and keep its answers in a store.

    What the store holds already is not asked again, so a run that was stopped goes on where it was.
    Exit codes: 0 done, 1 stopped by an error, 2 wrong usage, 3 finished with too many rejected or
    missing answers, 4 budget reached, 130 Ctrl-C.
    """
    from ..elicitation.batches import BatchPace
    from ..elicitation.client import OpenAISettings, OpenAISource
    from ..elicitation.elicit import Money
    from ..elicitation.elicit import elicit as ask
    from ..elicitation.engine import Ending, Pace
    from ..elicitation.prices import Prices
    from ..elicitation.store import AnswerStore, RecordedSource

    if failures:
        with AnswerStore(store, read_only=True) as opened:
            _list_failures(opened)
        return
    chosen, money = choose_dimensions(config, dimension), Money(Prices(prices), budget)
    variants = chosen.variants()
    if source == "recorded":
        if recorded is None:
            raise UsageError(Errors.E730)
        answerer: Source = RecordedSource(recorded)
        shown = False
    else:
        settings = OpenAISettings(
            *(model, chosen.models(), base_url, None, insecure, temperature, timeout)
        )
        try:
            answerer = OpenAISource(settings, source)
            money.check_prices(map(answerer.model_for, variants))
        except MMCoTError as error:
            raise UsageError(str(error)) from None
        models = map(answerer.model_for, variants)
        shown = money.prices.all_see(models) if vision is None else vision
    batches = BatchPace(batch_size, tries, batch_poll, run_timeout)
    rows = PostsFile(posts)
    named = bool(config or dimension)
    questions = make_questions(chosen, task, rows, scheme, templates, shown=shown, named=named)
    # A broken row is an error before the first question, not after the last good row.
    total = sum(1 for _ in rows) * len(questions.list_questions())
    with AnswerStore(store) as opened:
        try:
            with _show_progress(total, answerer.paid) as show:
                result = ask(
                    *(rows, opened, answerer, questions),
                    pace=Pace(workers, rpm, tpm, tries, patience, run_timeout),
                    money=money,
                    batches=batches if source == "openai-batch" else None,
                    on_progress=show,
                )
        except KeyboardInterrupt:
            _stop(store)
        _print_summary(result, opened, answerer.paid)
    match result.ending:
        case Ending.INTERRUPT:
            _stop(store)
        case Ending.TIME:
            raise MMCoTError(Errors.E319.format(seconds=f"{run_timeout or 0:g}"))
        case Ending.BUDGET:
            print(f"The budget of {budget:g} is reached: the rest waits for a larger one.")
            raise typer.Exit(BUDGET)
    if result.report.share_of_failures(answerer.paid) > threshold:
        raise typer.Exit(REJECTED)


def _stop(store: Path) -> None:
    print(f"Stopped. What was answered is in {store}: run the command again to go on.")
    raise typer.Exit(INTERRUPTED)


@contextmanager
def _show_progress(total: int, priced: bool) -> Iterator[ShowProgress]:
    """Shows questions done of `total`, rate, failures, time left, and spend where it is `priced`: a
    bar on a terminal, lines elsewhere."""
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(BarColumn(), TextColumn("{task.description}"), disable=not sys.stdout.isatty())
    task = bar.add_task("", total=total)
    done = failed = 0
    started = shown = time.monotonic()

    def show(settled: int, failures: int, cost: float) -> None:
        nonlocal done, failed, shown
        tenths, done, failed = done * 10 // total, done + settled, failed + failures
        now = time.monotonic()
        rate = done / max(now - started, 1e-9)
        line = f"{done} of {total}, {rate:.1f}/s, {failed} failed"
        line += f", {(total - done) / rate:.0f} s left" if done < total else ""
        line += f", {cost:.4f} spent" if priced else ""
        if not bar.disable:
            bar.update(task, completed=done, description=line)
        elif done * 10 // total > tenths or now - shown > _SECONDS_BETWEEN_LINES:
            shown = now
            print(line, flush=True)

    with bar:
        yield show


def _list_failures(store: AnswerStore) -> None:
    rejected = store.rejected()
    for answer in rejected:
        print(f"{answer.post_id} {answer.dimension}: {answer.reason}")
        # On one line, and without control codes that a terminal obeys.
        print(f"    {answer.raw!r}")
    print(f"{len(rejected)} rejected answers.")


def _print_summary(result: Result, store: AnswerStore, paid: bool) -> None:
    from dataclasses import astuple, fields

    from ..elicitation.claims import read_total_spend
    from ..elicitation.questions import Counts

    report, total = result.report, result.report.total()
    short = {"already_there": "there", "not_applicable": "n/a"}
    print_table(
        ["dimension", *(short.get(field.name, field.name) for field in fields(Counts))],
        [(name, *astuple(counts)) for name, counts in report.counts.items()],
        ("all", *astuple(total)),
    )
    shown = min(_SHOWN, total.rejected)
    for answer in store.rejected()[-shown:] if shown else []:
        print(f"rejected: {answer.post_id} {answer.dimension}: {answer.reason}")
    for reason, count in report.unanswered.most_common(_SHOWN):
        print(f"unanswered: {count}: {reason}")
    for what, count in report.dropped.most_common(_SHOWN):
        print(f"dropped: {count}: {what}")
    if report.captions_only:
        print(f"captions only: {report.captions_only} posts whose picture could not be read")
    if paid:
        spent = read_total_spend(store)
        print(f"Spent {result.cost:.4f} in this run, {spent:.4f} on this store.")
    print(f"Answers are in {store.path}.")

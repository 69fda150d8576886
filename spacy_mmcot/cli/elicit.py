"""`elicit`: ask an LLM about posts, once, and keep its answers; `plan`: what that will cost."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import astuple, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from ..errors import Errors, MMCoTError, UsageError
from ..messages import escape_control, print_table
from ..types import DIMENSIONS, PART_TOKENS, Post, Task

if TYPE_CHECKING:
    from ..elicitation.elicit import ElicitResult, Progress
    from ..elicitation.prompts import QuestionSettings
    from ..elicitation.store import AnswerStore, StoredAnswer

_SECONDS_BETWEEN_LINES = 30.0
_SHOWN = 5
# What an answer costs: nothing where it is recorded, nobody knows where a model has no price.
Money = Literal["free", "USD", "unpriced"]
REJECTED, BUDGET, INTERRUPTED = 3, 4, 130

# typer takes enums for options that repeat, not Literals.
DimensionChoice = StrEnum("DimensionChoice", DIMENSIONS)  # type: ignore[misc]
ConfigOption = Annotated[
    Path | None, typer.Option(help="A project.yml: its vars.elicit says what to ask.")
]
ModelOption = Annotated[str, typer.Option(help="The LLM to ask.")]
TaskOption = Annotated[Task, typer.Option(help="Which prompts to use.")]
DimensionOption = Annotated[
    list[DimensionChoice] | None,
    typer.Option(help="What to ask for; repeatable. Default: the config's, or all."),
]
VisionOption = Annotated[
    bool | None, typer.Option(help="Show the pictures. Default: from the price table.")
]
SchemeOption = Annotated[
    Path | None, typer.Option(help="scheme.yml: the texts, and the labels of the conclusion.")
]
TemplatesOption = Annotated[
    Path | None, typer.Option(help="Folder of your own prompt templates, which go first.")
]
TemperatureOption = Annotated[
    float | None, typer.Option(min=0.0, max=2.0, help="Default: the endpoint's own.")
]
PricesOption = Annotated[
    Path | None,
    typer.Option(help='Prices, {"MODEL": {"input": 0.15, "output": 0.6}}, USD a million tokens.'),
]
RootOption = Annotated[
    Path | None, typer.Option(help="Folder that pictures must lie in. Default: the posts file's.")
]
NewOption = Annotated[
    bool,
    typer.Option("--new-examples", help="Show the newest labels, which asks all conclusions anew."),
]
PartOption = Annotated[int, typer.Option(min=50, help="Most tokens of text in one question.")]
UrlOption = Annotated[
    str | None, typer.Option(help="Endpoint, before OPENAI_BASE_URL; the key is OPENAI_API_KEY.")
]


class PostsFile:
    """The posts of a file, read again at each iteration: a large file is never in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Post]:
        from ..corpus.posts import iter_posts

        return iter_posts(self.path)


def make_questions(
    posts: PostsFile,
    config: Path | None,
    dimension: list[DimensionChoice] | None,
    scheme: Path | None,
    store: Path | None,
    new_examples: bool,
    **settings: Any,
) -> QuestionSettings:
    """What is asked: the dimensions of a project.yml, restricted to the named ones. Without a
    scheme no conclusion is asked, unless it was named. new_examples: not those of the store.
    settings: the others of QuestionSettings."""
    from ..elicitation.elicit import choose_dimensions, choose_examples
    from ..elicitation.prompts import QuestionSettings, check_templates
    from ..scheme import check_labels, read_scheme

    asks = choose_dimensions(config, dimension or ())
    if settings["templates"] is not None:
        check_templates(settings["templates"])
    if scheme is not None:
        known = settings["scheme"] = read_scheme(scheme)
        check_labels(known, posts, scheme)
        part_tokens = settings["part_tokens"]
        examples, are_old = choose_examples(known, posts, store, part_tokens, new_examples)
        settings["examples"] = examples
        if are_old and "conclusion" in asks:
            print("Conclusions are asked with the examples of earlier ones: see --new-examples.")
    elif (config or dimension) and "conclusion" in asks:
        raise UsageError(Errors.E324)
    else:
        asks.pop("conclusion", None)
    variants = {name: ask.variants for name, ask in asks.items()}
    after = [name for ask in asks.values() for name in ask.after]
    return QuestionSettings(variants=variants, after=after, **settings)


def plan(
    posts: Annotated[Path, typer.Argument(help="Posts file (.jsonl).")],
    store: Annotated[
        Path | None, typer.Argument(help="Answers store, whose answers need not be asked for.")
    ] = None,
    config: ConfigOption = None,
    model: ModelOption = "gpt-4o-mini",
    task: TaskOption = "ner",
    dimension: DimensionOption = None,
    vision: VisionOption = None,
    image_root: RootOption = None,
    scheme: SchemeOption = None,
    templates: TemplatesOption = None,
    part_tokens: PartOption = PART_TOKENS,
    new_examples: NewOption = False,
    temperature: TemperatureOption = None,
    prices: PricesOption = None,
) -> None:
    """Requests, tokens and cost per dimension, before anything is asked."""
    from ..elicitation.client import OpenAISettings, OpenAISource
    from ..elicitation.elicit import plan as make_plan
    from ..elicitation.money import Prices
    from ..elicitation.store import AnswerStore

    known, rows = Prices(prices), PostsFile(posts)
    # Nothing is sent, so any key and address will do.
    url, key = "https://localhost/v1", "plan"
    source = OpenAISource(OpenAISettings(model, url, key, temperature=temperature))
    sees = known.has_vision(model) if vision is None else vision
    questions = make_questions(
        rows,
        config,
        dimension,
        scheme,
        store,
        new_examples,
        task=task,
        pictures=posts.parent if sees else None,
        templates=templates,
        image_root=image_root,
        part_tokens=part_tokens,
    )
    there = store if store is not None and store.exists() else None
    with AnswerStore(there, read_only=True) if there else nullcontext() as answers:
        planned = make_plan(rows, source, known, questions, answers)
    unpriced = [] if known.find(model) else 2 * ["unpriced"]
    columns = ("requests", "there", "n/a", "input", "cached", "output", "USD", "USD, batch")
    table = {name: astuple(row)[: 8 - len(unpriced)] for name, row in planned.items()}
    print_table(
        ("dimension", *columns),
        [(name, *row, *unpriced) for name, row in table.items()],
        ("all", *map(sum, zip(*table.values(), strict=True)), *unpriced),
    )
    print("Input tokens are estimated from the length of the texts; cached ones are among them.")
    if there and "conclusion" in planned and planned["conclusion"].requests:
        print("Conclusions are asked anew where the scheme or the examples have changed.")
    if unpriced:
        print(f"Unpriced: nobody has a price for {model}. Give a table with --prices.")


def elicit(
    posts: Annotated[Path, typer.Argument(help="Posts file (.jsonl).")],
    store: Annotated[Path, typer.Argument(help="Answers store (.sqlite), made or added to.")],
    source: Annotated[
        Literal["recorded", "openai", "openai-batch"],
        typer.Option(help="A recorded file, an OpenAI-compatible API, or its Batch API."),
    ] = "recorded",
    recorded: Annotated[Path | None, typer.Option(help="Recorded answers (.jsonl).")] = None,
    config: ConfigOption = None,
    model: ModelOption = "gpt-4o-mini",
    task: TaskOption = "ner",
    dimension: DimensionOption = None,
    vision: VisionOption = None,
    image_root: RootOption = None,
    base_url: UrlOption = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow http to other machines than this one.")
    ] = False,
    scheme: SchemeOption = None,
    templates: TemplatesOption = None,
    part_tokens: PartOption = PART_TOKENS,
    new_examples: NewOption = False,
    temperature: TemperatureOption = None,
    workers: Annotated[int, typer.Option(min=1, max=1000, help="Questions in flight.")] = 8,
    rpm: Annotated[float | None, typer.Option(min=0.1, help="Most requests a minute.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one request.")] = 60.0,
    run_timeout: Annotated[float | None, typer.Option(min=0.1, help="Seconds of the run.")] = None,
    tries: Annotated[int, typer.Option(min=1, help="Requests for one question.")] = 8,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds that an endpoint may be down or ask to wait.")
    ] = 120.0,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="Most USD that the store's answers may cost, of all runs."),
    ] = None,
    prices: PricesOption = None,
    batch_size: Annotated[int, typer.Option(min=1, max=50_000, help="Requests a batch.")] = 10_000,
    batch_poll: Annotated[float, typer.Option(min=0.1, help="Seconds between checks.")] = 30.0,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Share of failed answers that is exit code 3.")
    ] = 0.05,
    failures: Annotated[
        bool, typer.Option("--failures", help="Ask nothing: list the store's rejected answers.")
    ] = False,
    retry_rejected: Annotated[
        bool,
        typer.Option("--retry-rejected", help="Ask anew where the model's answer was rejected."),
    ] = False,
) -> None:
    """Ask an LLM about each post and keep its answers in a store.

    What the store holds already is not asked again, so a run that was stopped goes on where it was.
    Exit codes: 0 done, 1 stopped by an error, 2 wrong usage, 3 finished with too many rejected or
    missing answers, of this run or earlier ones, 4 budget reached, 130 Ctrl-C.
    """
    from ..elicitation.client import OpenAISettings, OpenAISource
    from ..elicitation.elicit import elicit as ask
    from ..elicitation.engine import Ending, Pace
    from ..elicitation.money import Prices
    from ..elicitation.store import AnswerStore, RecordedSource

    if failures:
        with AnswerStore(store, read_only=True) as opened:
            rejected = opened.rejected()
        for answer in rejected:
            print(f"{_describe(answer)}\n    {answer.raw!r}")
        print(f"{len(rejected)} rejected answers.")
        return
    known, rows = Prices(prices), PostsFile(posts)
    if source == "recorded":
        if recorded is None:
            raise UsageError(Errors.E730)
        answerer: OpenAISource | RecordedSource = RecordedSource(recorded)
    else:
        settings = OpenAISettings(model, base_url, None, insecure, temperature, timeout)
        try:
            answerer = OpenAISource(settings, source)
        except MMCoTError as error:
            raise UsageError(str(error)) from None
    sees = answerer.paid and (known.has_vision(model) if vision is None else vision)
    pace = Pace(workers, rpm, tries, patience, run_timeout, batch_size, batch_poll)
    questions = make_questions(
        rows,
        config,
        dimension,
        scheme,
        store,
        new_examples,
        task=task,
        pictures=posts.parent if sees else None,
        templates=templates,
        image_root=image_root,
        part_tokens=part_tokens if answerer.paid else None,
    )
    # A broken row is an error before the first question, not after the last good row.
    n_questions = sum(1 for post in rows for _ in questions.list_questions(post))
    money: Money = "free" if not answerer.paid else "USD" if known.find(model) else "unpriced"
    with AnswerStore(store) as opened:
        if retry_rejected:
            opened.drop_rejected(task, answerer.model, questions.variants)
        if questions.examples is not None and "conclusion" in questions.variants:
            opened.keep_examples(questions.examples.chosen)
        try:
            with _show_progress(n_questions, money) as show:
                result = ask(
                    *(rows, opened, answerer, questions),
                    pace=pace,
                    prices=known,
                    budget=budget,
                    on_progress=show,
                )
        except KeyboardInterrupt:
            _stop(store)
        _print_summary(result, opened, money)
    match result.ending:
        case Ending.INTERRUPT:
            _stop(store)
        case Ending.TIME:
            raise MMCoTError(Errors.E319.format(seconds=f"{run_timeout or 0:g}"))
        case Ending.BUDGET:
            print(f"The budget of {budget:g} USD is reached: the rest waits for a larger one.")
            raise typer.Exit(BUDGET)
    total = result.report.total()
    # Recorded answers may be missing.
    failed = total.rejected + (total.missing if answerer.paid else 0)
    if failed > threshold * (total.stored + total.already_there + failed):
        raise typer.Exit(REJECTED)


def _stop(store: Path) -> NoReturn:
    print(f"Stopped. What was answered is in {store}: run the command again to go on.")
    raise typer.Exit(INTERRUPTED)


@contextmanager
def _show_progress(total: int, money: Money) -> Iterator[Progress]:
    """Done of `total`, rate, failures, time left, spend: a bar on a terminal, lines elsewhere."""
    from rich import progress
    from rich.console import Console

    columns = (progress.BarColumn(), progress.TextColumn("{task.description}"))
    terminal = getattr(sys.stdout, "terminal", sys.stdout)
    console = Console(file=terminal)
    bar = progress.Progress(*columns, console=console, disable=not terminal.isatty())
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
        line += {"USD": f", {cost:.4f} USD spent", "unpriced": ", unpriced", "free": ""}[money]
        if not bar.disable:
            bar.update(task, completed=done, description=line)
        elif done * 10 // total > tenths or now - shown > _SECONDS_BETWEEN_LINES:
            shown = now
            print(line, flush=True)

    with bar:
        yield show


def _describe(answer: StoredAnswer) -> str:
    asked = " ".join([answer.post_id, answer.dimension, *answer.template.split(" ")[1:]])
    return escape_control(f"{asked}: {answer.reason}")


def _print_summary(result: ElicitResult, store: AnswerStore, money: Money) -> None:
    from ..elicitation.money import read_total_spend

    report, total = result.report, result.report.total()
    short = {"already_there": "there", "not_applicable": "n/a"}
    print_table(
        ["dimension", *(short.get(field.name, field.name) for field in fields(total))],
        [(name, *astuple(counts)) for name, counts in report.counts.items()],
        ("all", *astuple(total)),
    )
    if report.rejected:
        found = [a for a in store.rejected() if (a.key, a.post_id) in report.rejected]
        for answer in found[-_SHOWN:]:
            print(f"rejected: {_describe(answer)}")
        if money != "free":
            print(
                "--retry-rejected asks for these again, a higher --threshold accepts more of them."
            )
    for what, counts in (("unanswered", report.unanswered), ("dropped", report.dropped)):
        for reason, count in counts.most_common(_SHOWN):
            print(f"{what}: {count}: {escape_control(reason)}")
    for note in report.notes:
        print(escape_control(note))
    if unshown := len(report.captions_only):
        print(f"captions only: {unshown} posts whose picture could not be read, or lies outside")
        print("the folder that --image-root names (by default the posts file's)")
    if money != "free":
        spent = f"{result.cost:.4f} USD" if money == "USD" else "unpriced tokens (see --prices)"
        print(f"Spent {spent} in this run, {read_total_spend(store):.4f} USD on this store.")
    print(f"Answers are in {store.path}.")

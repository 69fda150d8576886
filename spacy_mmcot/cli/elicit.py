"""`elicit`: ask an LLM about posts, once, and keep its answers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import Errors, MMCoTError
from ..types import DIMENSIONS, Task
from .choices import DimensionChoice

if TYPE_CHECKING:
    from ..elicitation.elicit import Report, Source
    from ..elicitation.store import AnswerStore

_SHOWN_REJECTIONS = 5


def elicit(
    posts: Annotated[Path, typer.Argument(help="Posts file (.jsonl).")],
    store: Annotated[Path, typer.Argument(help="Answers store (.sqlite), made or added to.")],
    source: Annotated[
        Literal["recorded", "openai"],
        typer.Option(help="Where answers come from: a recorded file or an OpenAI-compatible API."),
    ] = "recorded",
    recorded: Annotated[
        Path | None, typer.Option(help="Recorded answers (.jsonl), for --source recorded.")
    ] = None,
    model: Annotated[str, typer.Option(help="Model, for --source openai.")] = "gpt-4o-mini",
    task: Annotated[Task, typer.Option(help="Which prompts to use.")] = "ner",
    dimension: Annotated[
        list[DimensionChoice] | None,
        typer.Option(help="What to ask for; repeat it for several. All six by default."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=1000, help="Questions in flight.")] = 8,
    base_url: Annotated[
        str | None,
        typer.Option(help="Endpoint, before OPENAI_BASE_URL; the key is OPENAI_API_KEY."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, max=2.0, help="The endpoint's own by default.")
    ] = None,
) -> None:
    """Ask an LLM about each post and keep its answers in a store.

    What the store holds already is not asked again, so a run that was stopped goes on where it was.
    """
    from ..corpus.formats import read_posts
    from ..elicitation.elicit import elicit as ask
    from ..elicitation.store import AnswerStore

    chosen = _source(source, recorded, model, base_url, temperature)
    rows = read_posts(posts)
    names = {choice.value for choice in dimension or DimensionChoice}
    dimensions = [name for name in DIMENSIONS if name in names]
    with AnswerStore(store) as opened:
        try:
            with _progress(len(rows) * len(dimensions)) as advance:
                report = ask(rows, opened, chosen, task, dimensions, workers, advance)
        except KeyboardInterrupt:
            print(f"Stopped. What was answered is in {store}: run the command again to go on.")
            raise typer.Exit(130) from None
        _print_summary(report, opened, store)


def _source(
    name: Literal["recorded", "openai"],
    recorded: Path | None,
    model: str,
    base_url: str | None,
    temperature: float | None,
) -> Source:
    if name == "openai":
        from ..elicitation.client import OpenAISource

        return OpenAISource(model, base_url=base_url, temperature=temperature)
    from ..elicitation.recorded import RecordedSource

    if recorded is None:
        raise MMCoTError(Errors.E730)
    return RecordedSource(recorded)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of questions that are done with."""
    if sys.stdout.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
            task = bar.add_task("", total=total)
            yield lambda count: bar.advance(task, count)
        return

    done = 0

    def line(count: int) -> None:
        nonlocal done
        tenths, done = done * 10 // total, done + count
        if done * 10 // total > tenths:
            print(f"{done} of {total}", flush=True)

    yield line


def _print_summary(report: Report, store: AnswerStore, path: Path) -> None:
    from dataclasses import astuple, fields

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from ..elicitation.elicit import Counts

    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("dimension", no_wrap=True)
    short = {"already_there": "in store", "not_applicable": "n/a", "dropped_mentions": "dropped"}
    for field in fields(Counts):
        heading = short.get(field.name, field.name.replace("_", " "))
        table.add_column(heading, justify="right")
    for name, counts in report.counts.items():
        table.add_row(name, *map(str, astuple(counts)))
    table.add_section()
    table.add_row("all", *map(str, astuple(report.total())))
    Console().print(table)
    shown = min(_SHOWN_REJECTIONS, report.total().rejected)
    for answer in store.rejected()[-shown:] if shown else []:
        print(f"rejected: {answer.post_id} {answer.dimension}: {answer.reason}")
    if report.total().dropped_mentions:
        print("dropped: things of noun lists that their posts do not name")
    print(f"Answers are in {path}.")

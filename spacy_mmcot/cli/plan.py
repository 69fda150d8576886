"""`plan`: what eliciting would ask and cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..types import Task
from .llm import (
    ConfigOption,
    DimensionOption,
    ModelOption,
    PostsFile,
    PricesOption,
    TemperatureOption,
    VisionOption,
    chosen,
    sees,
)


def plan(
    posts: Annotated[Path, typer.Argument(help="Posts file (.jsonl).")],
    store: Annotated[
        Path | None, typer.Argument(help="Answers store, whose answers need not be asked for.")
    ] = None,
    config: ConfigOption = None,
    model: ModelOption = "gpt-4o-mini",
    task: Annotated[Task, typer.Option(help="Which prompts to use.")] = "ner",
    dimension: DimensionOption = None,
    vision: VisionOption = None,
    temperature: TemperatureOption = None,
    prices: PricesOption = None,
) -> None:
    """Requests, tokens and cost per dimension, before anything is asked."""
    from contextlib import ExitStack

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from ..elicitation.client import OpenAISource
    from ..elicitation.plan import plan as make
    from ..elicitation.prices import Prices
    from ..elicitation.store import AnswerStore

    asked = chosen(config, dimension)
    known = Prices(prices)
    # Nothing is sent, so any key will do.
    source = OpenAISource(
        model,
        models=asked.models(),
        api_key="plan",
        base_url="https://localhost/v1",
        temperature=temperature,
    )
    dimensions = asked.variants()
    with ExitStack() as stack:
        opened = None
        if store is not None and store.exists():
            opened = stack.enter_context(AnswerStore(store, read_only=True))
        shown = sees(vision, source, dimensions, known)
        rows = PostsFile(posts)
        made = make(rows, source, known, task, dimensions, opened, posts.parent if shown else None)
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("dimension", no_wrap=True)
    table.add_column("model", overflow="fold")
    headings = ("requests", "there", "n/a", "input", "output", "cost", "batch")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    every = list(made.dimensions.values())
    for name, row in made.dimensions.items():
        counts = (row.requests, row.there, row.not_applicable, row.input_tokens, row.output_tokens)
        costs = (_money(row.cost), _money(row.batch_cost))
        table.add_row(name, row.model, *map(str, counts), *costs)
    table.add_section()
    names = ("requests", "there", "not_applicable", "input_tokens", "output_tokens")
    sums = [str(sum(getattr(row, name) for row in every)) for name in names]
    costs = (_money(_total([r.cost for r in every])), _money(_total([r.batch_cost for r in every])))
    table.add_row("all", "", *sums, *costs)
    Console().print(table)
    if made.estimated:
        named = ", ".join(sorted(made.estimated))
        print(f"Input tokens of {named} are estimated from the length of the texts.")
    if any(row.cost is None for row in every):
        print("Some models have no price: name a table with --prices.")


def _money(value: float | None) -> str:
    return "?" if value is None else f"{value:.4f}"


def _total(values: list[float | None]) -> float | None:
    return None if None in values else sum(value or 0.0 for value in values)

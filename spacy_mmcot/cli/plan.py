"""What `plan` and `elicit` have in common: which posts, which questions, of whom, at what price.

`plan`: what eliciting would ask and cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import Errors, MMCoTError, UsageError
from ..types import DIMENSIONS, Dimension, Post, Task

if TYPE_CHECKING:
    from ..elicitation.client import OpenAISource
    from ..elicitation.elicit import ElicitConfig
    from ..elicitation.prices import Prices
    from ..elicitation.questions import Source

SourceName = Literal["recorded", "openai", "openai-batch"]
# typer takes enums for options that repeat, not Literals.
DimensionChoice = Enum(  # type: ignore[misc]
    "DimensionChoice", {name: name for name in DIMENSIONS}, type=str
)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        help="A project.yml whose vars.elicit says which dimensions, variants and models."
    ),
]
ModelOption = Annotated[str, typer.Option(help="Model, where the config names no other.")]
DimensionOption = Annotated[
    list[DimensionChoice] | None,
    typer.Option(help="What to ask for; repeat it for several. The config's, or all, by default."),
]
VisionOption = Annotated[
    bool | None,
    typer.Option(help="Show the model the posts' pictures. The price table's word by default."),
]
BaseUrlOption = Annotated[
    str | None,
    typer.Option(help="Endpoint, before OPENAI_BASE_URL; the key is OPENAI_API_KEY."),
]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="Allow an endpoint that is neither https nor loopback.")
]
TemperatureOption = Annotated[
    float | None, typer.Option(min=0.0, max=2.0, help="The endpoint's own by default.")
]
PricesOption = Annotated[
    Path | None,
    typer.Option(help='Prices, {"MODEL": {"input": 0.15, "output": 0.6}} a million tokens.'),
]


class PostsFile:
    """The posts of a file, read anew at each iteration: a large file never is in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Post]:
        from ..corpus.posts import iter_posts

        return iter_posts(self.path)

    def check(self) -> int:
        """The number of posts. Raises MMCoTError before the first question, not after the last
        good row."""
        return sum(1 for _ in self)


def chosen(config: Path | None, dimension: list[DimensionChoice] | None) -> ElicitConfig:
    from ..elicitation.elicit import ElicitConfig, read_config

    found = ElicitConfig() if config is None else read_config(config)
    return found.only({choice.value for choice in dimension}) if dimension else found


def openai_source(
    model: str,
    config: ElicitConfig,
    *,
    base_url: str | None,
    insecure: bool,
    temperature: float | None,
    timeout: float = 60.0,
    name: str = "openai",
) -> OpenAISource:
    """Raises UsageError where key or address cannot be used."""
    from ..elicitation.client import OpenAISource

    try:
        return OpenAISource(
            model,
            models=config.models(),
            base_url=base_url,
            insecure=insecure,
            temperature=temperature,
            timeout=timeout,
            name=name,
        )
    except MMCoTError as error:
        raise UsageError(str(error)) from None


def recorded_source(recorded: Path | None) -> Source:
    from ..elicitation.recorded import RecordedSource

    if recorded is None:
        raise UsageError(Errors.E730)
    return RecordedSource(recorded)


def sees(
    vision: bool | None, source: Source, dimensions: Mapping[Dimension, int], prices: Prices
) -> bool:
    """Whether the pictures are shown: to all models or to none, so that answers compare."""
    if vision is not None:
        return vision
    found = [prices.find(source.model_for(dimension)) for dimension in dimensions]
    return all(price is not None and price.vision for price in found)


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
    from ..elicitation.elicit import plan as make
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

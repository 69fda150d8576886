"""`plan`: what an elicitation will ask and cost. Also what it shares with `elicit`: options, posts,
and tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..types import DIMENSIONS, Post, Task

if TYPE_CHECKING:
    from ..elicitation.elicit import ElicitConfig
    from ..elicitation.prompts import QuestionSettings

# typer takes enums for options that repeat, not Literals. No option names the scheme that a
# conclusion is asked with.
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
TaskOption = Annotated[Task, typer.Option(help="Which prompts to use.")]
DimensionOption = Annotated[
    list[DimensionChoice] | None,
    typer.Option(help="What to ask for; repeat it for several. Default: the config's, or all."),
]
VisionOption = Annotated[
    bool | None,
    typer.Option(help="Show the model the posts' pictures. Default: from the price table."),
]
SchemeOption = Annotated[
    Path | None,
    typer.Option(help="scheme.yml: what the texts are, and the labels of the conclusion."),
]
TemplatesOption = Annotated[
    Path | None, typer.Option(help="Folder of your own prompt templates, which go first.")
]
TemperatureOption = Annotated[
    float | None, typer.Option(min=0.0, max=2.0, help="Default: the endpoint's own.")
]
PricesOption = Annotated[
    Path | None,
    typer.Option(help='Prices, {"MODEL": {"input": 0.15, "output": 0.6}} a million tokens.'),
]


class PostsFile:
    """The posts of a file, read again at each iteration: a large file is never in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Post]:
        from ..corpus.posts import iter_posts

        return iter_posts(self.path)


def choose_dimensions(config: Path | None, dimension: list[DimensionChoice] | None) -> ElicitConfig:
    """Those of a project.yml, restricted to the named ones."""
    from ..elicitation.elicit import ElicitConfig, read_config

    found = ElicitConfig() if config is None else read_config(config)
    return found.only({choice.value for choice in dimension}) if dimension else found


def make_questions(
    chosen: ElicitConfig,
    task: Task,
    posts: PostsFile,
    scheme: Path | None,
    templates: Path | None,
    *,
    shown: bool,
    named: bool,
) -> QuestionSettings:
    """What is asked. shown: whether the model sees the posts' pictures. named: whether the
    dimensions are the user's own choice; without a scheme no conclusion is asked by default."""
    from ..elicitation.conclusion import Examples
    from ..elicitation.prompts import QuestionSettings, check_templates
    from ..errors import Errors, UsageError
    from ..scheme import check_labels, read_scheme

    variants = dict(chosen.variants())
    if templates is not None:
        check_templates(templates)
    known = examples = None
    if scheme is not None:
        known = read_scheme(scheme)
        check_labels(known, posts, scheme)
        examples = Examples(known, posts)
    elif "conclusion" in variants:
        if named:
            raise UsageError(Errors.E324)
        del variants["conclusion"]
    pictures = posts.path.parent if shown else None
    return QuestionSettings(
        task, variants, pictures, known, examples, tuple(chosen.after()), templates
    )


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    total: Sequence[object] | None = None,
    names: int = 1,
) -> None:
    """Print a table whose first `names` columns hold names, the others numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for number, heading in enumerate(headings):
        if number < names:
            table.add_column(heading, overflow="fold", min_width=6)
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(_show, row))
    if total is not None:
        table.add_section()
        table.add_row(*map(_show, total))
    Console().print(table)


def _show(value: object) -> str:
    return "?" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


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
    scheme: SchemeOption = None,
    templates: TemplatesOption = None,
    temperature: TemperatureOption = None,
    prices: PricesOption = None,
) -> None:
    """Requests, tokens and cost per dimension, before anything is asked."""
    from contextlib import nullcontext
    from dataclasses import astuple

    from ..elicitation.client import OpenAISettings, OpenAISource
    from ..elicitation.elicit import plan as make_plan
    from ..elicitation.elicit import sum_plan
    from ..elicitation.prices import Prices
    from ..elicitation.store import AnswerStore

    chosen, known = choose_dimensions(config, dimension), Prices(prices)
    # Nothing is sent, so any key and address will do.
    url, key = "https://localhost/v1", "plan"
    settings = OpenAISettings(model, chosen.models(), url, key, temperature=temperature)
    source = OpenAISource(settings)
    shown = known.all_see(map(source.model_for, chosen.dimensions)) if vision is None else vision
    rows = PostsFile(posts)
    named = bool(config or dimension)
    questions = make_questions(chosen, task, rows, scheme, templates, shown=shown, named=named)
    opened = store is not None and store.exists()
    with AnswerStore(store, read_only=True) if store and opened else nullcontext() as answers:
        planned = make_plan(rows, source, known, questions, answers)
    total = sum_plan(planned.values())
    headings = (
        "dimension",
        "model",
        "requests",
        "there",
        "n/a",
        "input",
        "cached",
        "output",
        "cost",
    )
    print_table(
        (*headings, "batch"),
        [(name, *astuple(row)) for name, row in planned.items()],
        ("all", *astuple(total)),
        names=2,
    )
    print("Input tokens are estimated from the length of the texts; cached ones are among them.")
    if "conclusion" in planned and planned["conclusion"].requests and opened:
        print("Conclusions are asked anew where the scheme or the examples have changed.")
    if total.cost is None:
        print("Some models have no price: name a table with --prices.")

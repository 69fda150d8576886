"""What `plan` and `elicit` have in common: which posts, which questions, of whom, at what price."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import Errors, MMCoTError, UsageError
from ..types import Dimension, Post
from .choices import DimensionChoice

if TYPE_CHECKING:
    from ..elicitation.client import OpenAISource
    from ..elicitation.config import ElicitConfig
    from ..elicitation.elicit import Source
    from ..elicitation.prices import Prices

SourceName = Literal["recorded", "openai", "openai-batch"]

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
        from ..corpus.formats import iter_posts

        return iter_posts(self.path)

    def check(self) -> int:
        """The number of posts. Raises MMCoTError before the first question, not after the last
        good row."""
        return sum(1 for _ in self)


def chosen(config: Path | None, dimension: list[DimensionChoice] | None) -> ElicitConfig:
    from ..elicitation.config import ElicitConfig, read_config

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

"""What tokens cost, by model, from the user's table or else from the genai-prices package; and how
many tokens a question and its answer take, before anybody counted them.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pydantic

from ..errors import Errors, MMCoTError
from ..files import read_bytes
from ..messages import explain
from ..types import BYTES_PER_TOKEN
from .prompts import KINDS, Prompt
from .replies import Usage

# OpenAI's models that see, and about the tokens that one picture takes at low detail.
_PICTURE_TOKENS = {
    "gpt-4o": 85,
    "gpt-4o-mini": 2833,
    "gpt-4.1": 85,
    "gpt-4.1-mini": 415,
    "gpt-4.1-nano": 630,
    "gpt-5": 70,
    "gpt-5-mini": 415,
    "gpt-5-nano": 630,
}


class Price(pydantic.BaseModel):
    """Prices of one model in US dollars, for a million tokens each. `cached` is for input that
    the endpoint had in its cache. `vision` says that the model sees; `picture` is about what one
    picture takes, in tokens."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    input: pydantic.NonNegativeFloat
    output: pydantic.NonNegativeFloat
    cached: pydantic.NonNegativeFloat | None = None
    vision: bool = False
    picture: pydantic.NonNegativeInt = 300

    def cost(self, usage: Usage, batch: bool = False) -> float:
        """In US dollars. A batch costs half, but what is cached is not cheaper in one."""
        scale = 0.5e-6 if batch else 1e-6
        cached = self.input * scale
        if self.cached is not None:
            cached = min(cached, self.cached * 1e-6)
        fresh = max(0, usage.input - usage.cached)
        return (fresh * self.input + usage.output * self.output) * scale + usage.cached * cached


_TABLE = pydantic.TypeAdapter(dict[str, Price])


class Prices:
    """Prices by model: those of a JSON file {"MODEL": {"input": 0.15, "output": 0.6, ...}}, and for
    other models those of genai-prices, in US dollars. A dated version, MODEL-2026-01-31, has its
    model's price. Raises MMCoTError for a file that is no such table."""

    def __init__(self, path: Path | None = None) -> None:
        try:
            self._prices = {} if path is None else _TABLE.validate_json(read_bytes(path))
        except pydantic.ValidationError as error:
            raise MMCoTError(Errors.E320.format(path=path, problem=explain(error)[0])) from None

    def find(self, model: str) -> Price | None:
        price = self._prices.get(model) or self._prices.get(_strip_date(model))
        return price or _find_published(model)

    def cost(self, model: str, usage: Usage, batch: bool = False) -> float:
        """In US dollars; 0 for a model without a price."""
        price = self.find(model)
        return 0.0 if price is None else price.cost(usage, batch)

    def has_vision(self, model: str) -> bool:
        price = self.find(model)
        return price is not None and price.vision


def _strip_date(model: str) -> str:
    head, _, tail = model.rpartition("-20")
    return head if head and tail.replace("-", "").isdigit() else model


@functools.cache
def _find_published(model: str) -> Price | None:
    # The package's table takes a second to load, which recorded answers and own prices do not need.
    import genai_prices

    def find(**tokens: int) -> float:
        return float(
            genai_prices.calc_price(genai_prices.Usage(**tokens), model).total_price * 1000
        )

    try:
        # A thousand tokens: some models cost more beyond a hundred thousand.
        input, output = find(input_tokens=1000), find(output_tokens=1000)
        cached = find(input_tokens=1000, cache_read_tokens=1000)
    except LookupError:
        return None
    picture = _PICTURE_TOKENS.get(_strip_date(model))
    seeing = {} if picture is None else {"vision": True, "picture": picture}
    return Price(input=input, output=output, cached=cached, **seeing)


_TOKENS_PER_MESSAGE = 4
_FEWEST_CACHED_TOKENS = 1024  # shorter beginnings are not cached


def estimate(prompt: Prompt, price: Price | None, output: float | None = None) -> Usage:
    """What a question will take, from the length of its texts. `output` is a better figure for the
    length of the answer than the kind's typical one, where there is one."""
    texts = [message["content"] for message in prompt.messages]
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    tokens = size // BYTES_PER_TOKEN + 1 + _TOKENS_PER_MESSAGE * len(texts)
    if prompt.picture is not None:
        tokens += (price or Price(input=0, output=0)).picture
    return Usage(tokens, 0, KINDS[prompt.dimension].tokens if output is None else round(output))


def count_cached(beginning: str) -> int:
    """The tokens of a prompt's beginning that an endpoint caches, 0 where it is too short."""
    tokens = len(beginning.encode("utf-8", "replace")) // BYTES_PER_TOKEN
    return tokens if tokens >= _FEWEST_CACHED_TOKENS else 0

"""What tokens cost, by model: a table in the package that a file of the user's can add to.

How many tokens a question and its answer take, before anybody counted them.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pydantic

from ..errors import Errors, MMCoTError, explain
from ..files import read_bytes
from ..types import Dimension
from .prompts import Prompt
from .replies import Usage

_MILLION = 1_000_000
_Price = pydantic.NonNegativeFloat


class Price(pydantic.BaseModel):
    """Prices of one model, in one currency, a million tokens each. `cached` is for input that the
    endpoint had in its cache; the batch prices are half of the others where they are not given.
    `vision` says that the model sees; `picture` is about what one picture takes, in tokens."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    input: _Price
    output: _Price
    cached: _Price | None = None
    batch_input: _Price | None = None
    batch_cached: _Price | None = None
    batch_output: _Price | None = None
    vision: bool = False
    picture: pydantic.NonNegativeInt = 300

    def cost(self, usage: Usage, batch: bool = False) -> float:
        """In the table's currency."""
        input, cached, output = self.input, self.cached, self.output
        cached = input if cached is None else cached
        if batch:
            output = output / 2 if self.batch_output is None else self.batch_output
            input = input / 2 if self.batch_input is None else self.batch_input
            cached = min(input, cached) if self.batch_cached is None else self.batch_cached
        fresh = max(0, usage.input - usage.cached)
        return (fresh * input + usage.cached * cached + usage.output * output) / _MILLION


class Prices:
    """Prices by model: the package's own, and over them those of a JSON file
    {"MODEL": {"input": 0.15, "output": 0.6, ...}}. Raises MMCoTError for a file that is none."""

    def __init__(self, path: Path | None = None) -> None:
        self._prices = dict(_known())
        if path is not None:
            self._prices |= _read(read_bytes(path), path)

    def find(self, model: str) -> Price | None:
        """A model's prices; a dated version, MODEL-2026-01-31, has its model's."""
        if model in self._prices:
            return self._prices[model]
        head, _, tail = model.rpartition("-20")
        return self._prices.get(head) if head and tail.replace("-", "").isdigit() else None

    def cost(self, model: str, usage: Usage, batch: bool = False) -> float:
        """In the table's currency; 0 for a model without a price."""
        price = self.find(model)
        return 0.0 if price is None else price.cost(usage, batch)


@functools.cache
def _known() -> Mapping[str, Price]:
    file = resources.files("spacy_mmcot.elicitation") / "prices.json"
    return _read(file.read_bytes(), Path("prices.json"))


def _read(data: bytes, path: Path) -> dict[str, Price]:
    try:
        table = json.loads(data)
        if not isinstance(table, dict):
            raise ValueError("the file is not one JSON object")
        return {str(model): Price.model_validate(row) for model, row in table.items()}
    except pydantic.ValidationError as error:
        problem = explain(error)[0]
    except (ValueError, RecursionError) as error:
        problem = str(error)
    raise MMCoTError(Errors.E320.format(path=path, problem=problem))


_BYTES_PER_TOKEN = 4
_PER_MESSAGE = 4
_LOAD_SECONDS = 10.0
# Typical answers of the prompts in templates/, where a store has no better figure yet.
TYPICAL_OUTPUT: dict[Dimension, int] = {
    "noun": 160,
    "sentence": 90,
    "multimodality": 80,
    "style": 50,
    "entity": 100,
    "image": 25,
}

Counter = Callable[[str], int]


def rough_count(text: str) -> int:
    """About the tokens of a text, from its length in UTF-8."""
    return len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN + 1


def exact_counter(model: str) -> Counter | None:
    """A model's own count of tokens, None where tiktoken is not installed, does not know the
    model, or has no vocabulary for it at hand and cannot fetch it."""
    try:
        import tiktoken
    except ImportError:
        return None
    found: list[Any] = []

    def load() -> None:
        try:
            found.append(tiktoken.encoding_for_model(model))
        except Exception:  # whatever its HTTP library raises, and KeyError for a strange model
            return

    # Without a network it may wait for minutes.
    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(_LOAD_SECONDS)
    if not found:
        return None
    encode = found[0].encode_ordinary
    return lambda text: len(encode(text))


def estimate(
    prompt: Prompt,
    model: str,
    prices: Prices,
    count: Counter | None = None,
    output: float | None = None,
) -> Usage:
    """What a question will take. `count` and `output` are better figures where there are any."""
    if count is None:
        tokens = prompt.length() // _BYTES_PER_TOKEN + 1
    else:
        tokens = sum(count(message["content"]) for message in prompt.messages)
    if prompt.picture is not None:
        price = prices.find(model)
        tokens += 300 if price is None else price.picture
    said = TYPICAL_OUTPUT[prompt.dimension] if output is None else round(output)
    return Usage(input=tokens + _PER_MESSAGE * len(prompt.messages), output=said)

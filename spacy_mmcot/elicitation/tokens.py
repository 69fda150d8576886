"""How many tokens a question and its answer take, before anybody counted them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..types import Dimension
from .prices import Prices
from .prompts import Prompt
from .replies import Usage

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

"""What answers cost: prices by model, from the user's table or else from genai-prices; the tokens
that a question takes; and a store's ledger, budget and claims, with which runs that share it do
not pay for the same answer.
"""

from __future__ import annotations

import functools
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from glob import escape
from pathlib import Path
from typing import Annotated, NamedTuple

import pydantic
from filelock import FileLock, Timeout

from ..errors import Errors, MMCoTError
from ..files import open_text, parse_json
from ..messages import explain
from ..types import BYTES_PER_TOKEN, Dimension
from .prompts import KINDS, Prompt
from .replies import Usage
from .store import AnswerStore

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


# A larger price is a mistake, and would fill the ledger with it.
Dollars = Annotated[float, pydantic.Field(ge=0, le=1_000_000)]


class Price(pydantic.BaseModel):
    """Prices of one model in US dollars, for a million tokens each. `cached` is for input that
    the endpoint had in its cache. `vision` says that the model sees; `picture` is about what one
    picture takes, in tokens."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    input: Dollars
    output: Dollars
    cached: Dollars | None = None
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

    def __init__(self, path: Path | str | None = None) -> None:
        self._prices: dict[str, Price] = {}
        if path is None:
            return
        with open_text(Path(path)) as file:
            text = file.read()
        try:
            self._prices = _TABLE.validate_python(parse_json(text))
        except ValueError as error:
            fault = isinstance(error, pydantic.ValidationError) and explain(error)[0]
            raise MMCoTError(Errors.E320.format(path=path, problem=fault or error)) from None

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


_SPENT = "(SELECT total(cost) + total(unconfirmed) FROM ledger)"
_RESERVED = "(SELECT total(cost) FROM claims)"


# The result of a claim: made; held by another run; answered meanwhile; wait, while money is held
# back for questions in flight; or poor: the budget cannot pay it.
Claim = Enum("Claim", ["MADE", "HELD", "ANSWERED", "WAIT", "POOR"])


@dataclass
class Account:
    """The claims of one run, which last until they are released or the run ends, and its spend.
    `cap` is the budget of all the store's spend and claims, None for none. `batch` books at batch
    prices.

    A run is alive while it holds the lock on a file of its own beside the store: neither the number
    of a process, which another container may use too, nor a clock says so as surely.
    """

    store: AnswerStore
    prices: Prices
    source: str
    cap: float | None = None
    batch: bool = False
    cost: float = 0.0

    def __post_init__(self) -> None:
        # Names sort by the time of the run's start (UTC).
        self.run = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"
        self._lock = self._make_lock(self.run)
        with self.store.translate_errors():
            self._lock.acquire()
        # Claims of runs that were killed would keep money reserved for ever, and locks their files.
        owners = {owner for (owner,) in self.store.fetch("SELECT owner FROM claims")}
        prefix = f".{self.store.file.name}."
        for path in self.store.file.parent.glob(f"{escape(prefix)}*.lock"):
            owners.add(path.name.removeprefix(prefix).removesuffix(".lock"))
        for owner in owners:
            if self._is_over(owner):
                self.store.write("DELETE FROM claims WHERE owner = ?", owner)

    def close(self) -> None:
        """Drop all claims, as the run's end does."""
        self.store.write("DELETE FROM claims WHERE owner = ?", self.run)
        self._remove(self._lock)

    def claim(self, key: str, cost: float) -> Claim:
        """Reserve `cost` for a question before it is asked."""
        with self.store.transaction():
            if self.store.has_answer(key):
                return Claim.ANSWERED
            held = self.store.fetch("SELECT owner FROM claims WHERE key = ?", key)
            if held and not self._is_over(held[0][0]):
                return Claim.HELD
            if self.cap is not None:
                ((spent, reserved),) = self.store.fetch(f"SELECT {_SPENT}, {_RESERVED}")
                if spent + cost > self.cap:
                    return Claim.POOR
                if spent + reserved + cost > self.cap:
                    return Claim.WAIT
            self.store.write("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", key, self.run, cost)
        return Claim.MADE

    def within_cap(self) -> bool:
        """Whether a question that holds a claim may be asked once more."""
        if self.cap is None:
            return True
        ((total,),) = self.store.fetch(f"SELECT {_SPENT} + {_RESERVED}")
        return bool(total <= self.cap)

    def in_batches(self) -> bool:
        """Whether some questions wait in batches rather than in another run."""
        return bool(self.store.fetch("SELECT 1 FROM claims JOIN batches ON owner = name LIMIT 1"))

    def release(self, key: str) -> None:
        """Drop a claim, in the store's transaction if it is in one."""
        self.store.write("DELETE FROM claims WHERE key = ? AND owner = ?", key, self.run)

    def _is_over(self, owner: str) -> bool:
        """Whether a run has ended. A batch lasts until it is collected."""
        if owner == self.run or self.store.fetch("SELECT 1 FROM batches WHERE name = ?", owner):
            return False
        lock = self._make_lock(owner)
        path = Path(lock.lock_file)
        if path.is_file() and not path.is_symlink():
            try:
                lock.acquire(blocking=False)
            except (Timeout, OSError):
                return False
            self._remove(lock)
        return True

    def _make_lock(self, run: str) -> FileLock:
        file = self.store.file
        return FileLock(file.with_name(f".{file.name}.{run}.lock"), thread_local=False)

    def _remove(self, lock: FileLock) -> None:
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()

    def book(self, model: str, dimension: Dimension, usage: Usage | None, estimate: Usage) -> None:
        """Add one request to the ledger, in the store's transaction if it is in one. Without the
        endpoint's own count, the estimate is booked as unconfirmed."""
        counts = usage or Usage()
        cost = self.prices.cost(model, counts, self.batch)
        unconfirmed = 0.0 if usage else self.prices.cost(model, estimate, self.batch)
        self.cost += cost + unconfirmed
        self.store.write(
            "INSERT INTO ledger VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET requests = requests + 1, "
            "input_tokens = input_tokens + excluded.input_tokens, "
            "cached_tokens = cached_tokens + excluded.cached_tokens, "
            "output_tokens = output_tokens + excluded.output_tokens, "
            "cost = cost + excluded.cost, unconfirmed = unconfirmed + excluded.unconfirmed",
            *(self.run, self.source, model, dimension),
            *(counts.input, counts.cached, counts.output, cost, unconfirmed),
        )


class Spend(NamedTuple):
    """Money of one run, model and dimension, in US dollars. `unconfirmed` is what the
    endpoint may have charged for answers that never arrived whole, by estimate."""

    run: str
    source: str
    model: str
    dimension: str
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost: float
    unconfirmed: float


def read_total_spend(store: AnswerStore) -> float:
    """All that the store's answers have cost, of every run, unconfirmed spend included."""
    return float(store.fetch(f"SELECT {_SPENT}")[0][0])


def read_spend(store: AnswerStore) -> list[Spend]:
    """The ledger's rows, runs in the order of their start."""
    return [
        Spend(*row) for row in store.fetch("SELECT * FROM ledger ORDER BY run, model, dimension")
    ]


def read_mean_output(store: AnswerStore, model: str) -> dict[str, float]:
    """A model's output tokens a request by dimension, as far as the store has seen any."""
    rows = store.fetch(
        "SELECT dimension, 1.0 * sum(output_tokens) / sum(requests) AS mean FROM ledger "
        "WHERE unconfirmed = 0 AND model = ? GROUP BY dimension HAVING mean > 0",
        model,
    )
    return dict(rows)

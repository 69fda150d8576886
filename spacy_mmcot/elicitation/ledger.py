"""What was spent, kept in the store: by run, model and dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..types import Dimension
from .prices import Prices
from .replies import Usage
from .store import AnswerStore


class Spend(NamedTuple):
    """Money of one run, model and dimension, in the prices' currency. `unconfirmed` is what the
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


@dataclass
class Ledger:
    """Adds to the spend of `run`. `batch` books at batch prices."""

    store: AnswerStore
    prices: Prices
    run: str
    source: str
    batch: bool = False

    def __post_init__(self) -> None:
        self.cost = 0.0
        self.requests = 0

    def add(self, model: str, dimension: Dimension, usage: Usage | None, estimate: Usage) -> None:
        """Book one request, in the store's transaction if it is in one. Without the endpoint's
        own count, the estimate is booked as unconfirmed."""
        counts = usage or Usage()
        cost = self.prices.cost(model, counts, self.batch)
        unconfirmed = 0.0 if usage else self.prices.cost(model, estimate, self.batch)
        self.cost += cost + unconfirmed
        self.requests += 1
        with self.store.plain_errors():
            self.store.connection.execute(
                "INSERT INTO ledger VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET requests = requests + 1, "
                "input_tokens = input_tokens + excluded.input_tokens, "
                "cached_tokens = cached_tokens + excluded.cached_tokens, "
                "output_tokens = output_tokens + excluded.output_tokens, "
                "cost = cost + excluded.cost, unconfirmed = unconfirmed + excluded.unconfirmed",
                (
                    *(self.run, self.source, model, dimension),
                    *(counts.input, counts.cached, counts.output, cost, unconfirmed),
                ),
            )


def spent(store: AnswerStore) -> float:
    """All that the store's answers have cost, of every run, unconfirmed spend included."""
    with store.plain_errors():
        query = "SELECT total(cost) + total(unconfirmed) FROM ledger"
        return float(store.connection.execute(query).fetchone()[0])


def spends(store: AnswerStore) -> list[Spend]:
    """The ledger's rows, runs in the order of their start."""
    with store.plain_errors():
        rows = store.connection.execute("SELECT * FROM ledger ORDER BY run, model, dimension")
        return [Spend(*row) for row in rows]


def mean_output(store: AnswerStore) -> dict[tuple[str, str], float]:
    """Output tokens a request by model and dimension, as far as the store has seen any."""
    with store.plain_errors():
        rows = store.connection.execute(
            "SELECT model, dimension, 1.0 * sum(output_tokens) / sum(requests) FROM ledger "
            "WHERE unconfirmed = 0 GROUP BY model, dimension"
        )
        return {(model, dimension): mean for model, dimension, mean in rows if mean}

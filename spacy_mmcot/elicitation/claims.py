"""Claims and spend in a store: runs that share it do not pay for the same answer, all of them
together keep to one budget, and the ledger says what was spent by run, model and dimension.
"""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from glob import escape
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from ..types import Dimension
from .prices import Prices
from .replies import Usage
from .store import AnswerStore

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

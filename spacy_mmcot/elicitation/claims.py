"""Claims on questions, so that runs that share a store do not pay for the same answer, and all of
them together keep to one budget."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from enum import Enum

from .store import AnswerStore

_SPENT = "(SELECT total(cost) + total(unconfirmed) FROM ledger)"
_SET_ASIDE = "(SELECT total(cost) FROM claims)"


class Claim(Enum):
    """How a claim went: `made`, or `held` by another run, or `answered` meanwhile, or `wait`
    while questions in flight have the money set aside, or `poor`: the budget cannot pay it."""

    MADE = "made"
    HELD = "held"
    ANSWERED = "answered"
    WAIT = "wait"
    POOR = "poor"


@dataclass
class Claims:
    """The claims of one run, `owner`, which live for `seconds` unless released, or for as long as
    the process does, whatever ends first. `cap` is the budget that all the store's spend and
    claims keep to, None for none."""

    store: AnswerStore
    owner: str
    seconds: float
    cap: float | None = None

    def __post_init__(self) -> None:
        self._host = platform.node()
        self._sweep()

    def claim(self, key: str, cost: float) -> Claim:
        """Set `cost` aside for a question before it is asked."""
        row = (key, self.owner, self._host, os.getpid(), time.time() + self.seconds, cost)
        if self.cap is None:
            with self.store.plain_errors():
                made = self.store.connection.execute(
                    "INSERT OR IGNORE INTO claims SELECT ?, ?, ?, ?, ?, ? "
                    "WHERE NOT EXISTS (SELECT 1 FROM answers WHERE key = ?)",
                    (*row, key),
                )
            if made.rowcount:
                return Claim.MADE
        with self.store.transaction() as connection:
            if connection.execute("SELECT 1 FROM answers WHERE key = ? LIMIT 1", (key,)).fetchone():
                return Claim.ANSWERED
            held = "SELECT host, pid, expires FROM claims WHERE key = ?"
            holder = connection.execute(held, (key,)).fetchone()
            if holder and not self._dead(*holder):
                return Claim.HELD
            if self.cap is not None:
                spent, aside = connection.execute(f"SELECT {_SPENT}, {_SET_ASIDE}").fetchone()
                if spent + cost > self.cap:
                    return Claim.POOR
                if spent + aside + cost > self.cap:
                    return Claim.WAIT
            connection.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?, ?)", row)
        return Claim.MADE

    def within_cap(self) -> bool:
        """Whether a question that holds a claim may be asked once more."""
        if self.cap is None:
            return True
        with self.store.plain_errors():
            query = f"SELECT {_SPENT} + {_SET_ASIDE}"
            return bool(self.store.connection.execute(query).fetchone()[0] <= self.cap)

    def in_batches(self) -> bool:
        """Whether some questions wait in batches rather than in another run."""
        with self.store.plain_errors():
            query = "SELECT 1 FROM claims WHERE pid = 0 AND expires > ? LIMIT 1"
            return bool(self.store.connection.execute(query, (time.time(),)).fetchone())

    def release(self, key: str) -> None:
        """Let go of a claim, in the store's transaction if it is in one."""
        with self.store.plain_errors():
            self.store.connection.execute(
                "DELETE FROM claims WHERE key = ? AND owner = ?", (key, self.owner)
            )

    def release_all(self) -> None:
        with self.store.plain_errors():
            self.store.connection.execute("DELETE FROM claims WHERE owner = ?", (self.owner,))

    def _sweep(self) -> None:
        """Claims of the dead would keep money aside for good."""
        with self.store.plain_errors():
            rows = self.store.connection.execute("SELECT key, host, pid, expires FROM claims")
            dead = [(key,) for key, *holder in rows.fetchall() if self._dead(*holder)]
        if dead:
            with self.store.transaction() as connection:
                connection.executemany("DELETE FROM claims WHERE key = ?", dead)

    def _dead(self, host: str, pid: int, expires: float) -> bool:
        if expires < time.time():
            return True
        # A batch has no process (pid 0). A run of this very process that left a claim is over.
        if pid == 0 or host != self._host:
            return False
        if pid == os.getpid():
            return True
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False

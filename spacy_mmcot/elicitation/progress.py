"""How a run gets on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# Told the number of questions settled since the last call, and the cost so far.
Told = Callable[[int, float], None]
_SECONDS_BETWEEN_LINES = 30.0


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.1f}/s")


@contextmanager
def progress(total: int, failures: Callable[[], int], priced: bool) -> Iterator[Told]:
    """Shows questions done of `total`, rate, time left, failures, and spend where it is `priced`,
    from what the yielded function is told."""
    if sys.stdout.isatty():
        with _bar(total, failures, priced) as told:
            yield told
    else:
        yield _lines(total, failures, priced)


@contextmanager
def _bar(total: int, failures: Callable[[], int], priced: bool) -> Iterator[Told]:
    spend = TextColumn("{task.fields[spend]}")
    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), _RateColumn())
    with Progress(
        *columns, TimeRemainingColumn(), TextColumn("{task.fields[failed]}"), spend
    ) as bar:
        task = bar.add_task("", total=total, failed="", spend="")

        def told(settled: int, cost: float) -> None:
            bar.update(
                task,
                advance=settled,
                failed=f"{failures()} failed",
                spend=f"{cost:.4f} spent" if priced else "",
            )

        yield told


def _lines(total: int, failures: Callable[[], int], priced: bool) -> Told:
    done, started = 0, time.monotonic()
    shown = started

    def told(settled: int, cost: float) -> None:
        nonlocal done, shown
        tenths, done = done * 10 // total, done + settled
        now = time.monotonic()
        if done * 10 // total == tenths and now - shown < _SECONDS_BETWEEN_LINES:
            return
        shown = now
        rate = done / max(now - started, 1e-9)
        line = f"{done} of {total}, {rate:.1f}/s, {failures()} failed"
        if done < total:
            line += f", {(total - done) / rate:.0f} s left"
        print(line + (f", {cost:.4f} spent" if priced else ""), flush=True)

    return told

"""`spacy_mmcot.RunLogger.v1`: spaCy's console logger, which also notes what training cost."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import IO, Any

from spacy.language import Language
from spacy.util import registry


def make_run_logger(progress_bar: bool = False) -> Callable[..., Any]:
    """A logger that shows what `spacy.ConsoleLogger.v1` shows and writes `{"steps", "seconds"}` to
    `nlp.meta["mmcot_training"]`, which every saved pipeline carries in its meta.json. Seconds are
    those of the update steps: evaluation, loading and saving do not count.
    """
    console = registry.get("loggers", "spacy.ConsoleLogger.v1")(progress_bar=progress_bar)
    return note_cost(console, time.perf_counter)


def note_cost(logger: Callable[..., Any], clock: Callable[[], float]) -> Callable[..., Any]:
    """The logger, made to note steps and seconds as `make_run_logger` says.

    clock: seconds that only grow.
    """

    def setup(
        nlp: Language, stdout: IO = sys.stdout, stderr: IO = sys.stderr
    ) -> tuple[Callable[[dict[str, Any] | None], None], Callable[[], None]]:
        log_inner, finalize = logger(nlp, stdout, stderr)
        last = clock()
        seconds, timed, steps = 0.0, 0, 0

        def log_step(info: dict[str, Any] | None) -> None:
            nonlocal last, seconds, timed, steps
            steps += 1
            # A step with an evaluation has an info. It is not timed, but counts as a mean one.
            if info is None:
                seconds += clock() - last
                timed += 1
            # At every step, since spaCy saves a pipeline before it logs the step.
            mean = seconds / timed if timed else 0.0
            nlp.meta["mmcot_training"] = {"steps": steps, "seconds": round(mean * steps, 2)}
            log_inner(info)
            last = clock()

        return log_step, finalize

    return setup

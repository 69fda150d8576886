"""Keeping a process that runs for long as small as it began.

What the components that learn from a teacher share.

`spacy_mmcot.RunLogger.v1`: spaCy's console logger, which also notes what training cost.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from spacy.language import Language
from spacy.pipeline.trainable_pipe import TrainablePipe
from spacy.training import Example, validate_examples
from spacy.util import registry
from thinc.api import Optimizer

from ..errors import Errors, MMCoTError

# oneDNN keeps what it has compiled for a matrix product, by its shape, and texts bring new shapes
# all the time: its own limit of 1024 is tens of megabytes, reached after tens of thousands of docs.
# It reads this once, at its first use; components are imported before that.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

# A walk over the heap takes milliseconds: too long to take it after every request of a service.
PAUSE = 1.0  # seconds

_last = float("-inf")


def trim_heap() -> None:
    """Return the free pages of the heap, where the C library can, and at most once in `PAUSE`.

    An encoder's arrays come and go at a new size with every batch, and what little outlives each
    batch lies between them. glibc returns only what is free at the end of its heap, so that a
    process which does the same work over and over would grow for as long as it runs.
    """
    global _last
    now = time.monotonic()
    if now - _last >= PAUSE:
        _last = now
        _malloc_trim()(0)


@functools.cache
def _malloc_trim() -> Callable[[int], object]:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return lambda keep: None


# What stands in for an encoder where a component is added without a config.
DEFAULT_TOK2VEC = {
    "@architectures": "spacy.HashEmbedCNN.v2",
    "pretrained_vectors": None,
    "width": 96,
    "depth": 4,
    "embed_size": 2000,
    "window_size": 1,
    "maxout_pieces": 3,
    "subword_features": True,
}


class DistilledPipe(TrainablePipe):
    """A component whose labels are settled at initialisation, and that learns from gold and from
    soft labels in one update. Labels stand in `cfg["labels"]`, sorted."""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.cfg["labels"])

    @property
    @abstractmethod
    def is_initialized(self) -> bool: ...

    @abstractmethod
    def begin(self, examples: list[Example]) -> tuple[Any, Callable[[Any], Any]]:
        """The forward pass of an update: what `get_loss` takes as scores, and how its gradient
        goes back."""

    def add_label(self, label: str) -> int:
        """Add a label before initialisation. Returns 1 if it was new, 0 if not."""
        if label in self.labels:
            return 0
        if self.is_initialized:
            raise MMCoTError(
                Errors.E601.format(component=self.name, labels=list(self.labels), label=label)
            )
        self.cfg["labels"] = sorted([*self.labels, label])
        self.vocab.strings.add(label)
        return 1

    @contextmanager
    def memory_zone(self, mem: Any) -> Iterator[Any]:
        """Entered and left with `nlp.memory_zone()`: what its docs took goes back to the system."""
        yield mem
        trim_heap()

    def check_initialized(self) -> None:
        """Raises MMCoTError."""
        if not self.is_initialized:
            raise MMCoTError(Errors.E602.format(component=self.name))

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learn from a batch. Dropout is the model's own setting."""
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, f"{type(self).__name__}.update")
        self.check_initialized()
        if not any(len(eg.predicted) for eg in examples):
            return losses
        scores, backprop = self.begin(examples)
        loss, gradient = self.get_loss(examples, scores)
        backprop(gradient)
        if sgd is not None:
            self.finish_update(sgd)
        losses[self.name] += loss
        return losses


def make_run_logger(progress_bar: bool = False) -> Callable[..., Any]:
    """The logger writes `{"steps", "seconds"}` to `nlp.meta["mmcot_training"]`, which every
    saved pipeline carries in its meta.json. Seconds are those of the update steps: evaluation,
    loading and saving do not count. The console shows what `spacy.ConsoleLogger.v1` shows.
    """
    console = registry.get("loggers", "spacy.ConsoleLogger.v1")(progress_bar=progress_bar)

    def setup(
        nlp: Language, stdout: IO = sys.stdout, stderr: IO = sys.stderr
    ) -> tuple[Callable[[dict[str, Any] | None], None], Callable[[], None]]:
        log_console, finalize = console(nlp, stdout, stderr)
        last = time.perf_counter()
        seconds, timed, steps = 0.0, 0, 0

        def log_step(info: dict[str, Any] | None) -> None:
            nonlocal last, seconds, timed, steps
            steps += 1
            # A step with an evaluation or with loading in it is no measure of a step.
            if info is None:
                seconds += time.perf_counter() - last
                timed += 1
            # At every step, since spaCy saves a pipeline before it logs the step.
            mean = seconds / timed if timed else 0.0
            nlp.meta["mmcot_training"] = {"steps": steps, "seconds": round(mean * steps, 2)}
            log_console(info)
            last = time.perf_counter()

        return log_step, finalize

    return setup

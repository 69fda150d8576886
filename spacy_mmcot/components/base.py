"""What `mmcot_ner` and `mmcot_rel` share: labels that are fixed at initialisation, an update that
learns from gold and from soft labels at once, and the logger of their trainings,
`spacy_mmcot.RunLogger.v1`.
"""

from __future__ import annotations

import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import IO, Any

from spacy.language import Language
from spacy.pipeline.trainable_pipe import TrainablePipe
from spacy.training import Example, validate_examples
from spacy.util import registry
from thinc.api import Optimizer

from ..errors import Errors, MMCoTError

_SECONDS_BETWEEN_LINES = 20.0

# The encoder of a component that is added without a config.
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
    """A component whose labels are fixed at initialisation, and that learns from gold and from
    soft labels in one update. Its labels are `cfg["labels"]`, sorted."""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.cfg["labels"])

    @property
    @abstractmethod
    def is_initialized(self) -> bool: ...

    @abstractmethod
    def begin_update(self, examples: list[Example]) -> tuple[Any, Callable[[Any], Any]]:
        """The forward pass of an update: what `get_loss` takes, and what takes its gradient."""

    def add_label(self, label: str) -> int:
        """Add a label before initialisation. Returns 1 if it was new, 0 if not.

        Raises MMCoTError for a new label after initialisation.
        """
        if label in self.labels:
            return 0
        if self.is_initialized:
            names = {"component": self.name, "labels": list(self.labels)}
            raise MMCoTError(Errors.E601.format(**names, label=label))
        self.cfg["labels"] = sorted([*self.labels, label])
        self.vocab.strings.add(label)
        return 1

    def check_label_list(self, labels: Any, received: object) -> None:
        """Raises MMCoTError where labels of what `initialize` received are no list of texts."""
        named = isinstance(labels, (list, tuple, set))
        if not named or not all(isinstance(label, str) and label for label in labels):
            raise MMCoTError(Errors.E613.format(component=self.name, received=received))

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
        """Learn from a batch; returns `losses` with the component's loss added. `drop` has no
        effect: dropout is a setting of the model.

        Raises MMCoTError before initialisation, and for labels that the component does not have.
        """
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, f"{type(self).__name__}.update")
        self.check_initialized()
        if not any(len(eg.predicted) for eg in examples):
            return losses
        scores, backprop = self.begin_update(examples)
        loss, gradient = self.get_loss(examples, scores)
        backprop(gradient)
        if sgd is not None:
            self.finish_update(sgd)
        losses[self.name] += loss
        return losses


def make_run_logger(progress_bar: bool = False) -> Callable[..., Any]:
    """A logger that shows what `spacy.ConsoleLogger.v1` shows, between evaluations a line every 20
    seconds with the time that is left, and writes `{"steps", "seconds"}` to
    `nlp.meta["mmcot_training"]`, which every saved pipeline carries in its meta.json. Seconds are
    those of the update steps: evaluation, loading and saving do not count.
    """
    console = registry.get("loggers", "spacy.ConsoleLogger.v1")(progress_bar=progress_bar)

    def setup(
        nlp: Language, stdout: IO = sys.stdout, stderr: IO = sys.stderr
    ) -> tuple[Callable[[dict[str, Any] | None], None], Callable[[], None]]:
        log_inner, finalize = console(nlp, stdout, stderr)
        last = shown = time.perf_counter()
        seconds, timed, steps = 0.0, 0, 0
        # It may be a reference to another setting.
        total = nlp.config.interpolate()["training"].get("max_steps") or 0

        def log_step(info: dict[str, Any] | None) -> None:
            nonlocal last, shown, seconds, timed, steps
            now = time.perf_counter()
            steps += 1
            # A step with an evaluation has an info. It is not timed, but counts as a mean one.
            if info is None:
                seconds += now - last
                timed += 1
            # At every step, since spaCy saves a pipeline before it logs the step.
            mean = seconds / timed if timed else 0.0
            nlp.meta["mmcot_training"] = {"steps": steps, "seconds": round(mean * steps, 2)}
            if info is not None:
                shown = now
            elif now - shown >= _SECONDS_BETWEEN_LINES and not progress_bar:
                shown = now
                left = f", {format_seconds(mean * (total - steps))} left" if total else ""
                stdout.write(f"step {steps} of {total or '?'}, {mean:.2f} s a step{left}\n")
                stdout.flush()
            log_inner(info)
            last = time.perf_counter()

        return log_step, finalize

    return setup


def format_seconds(seconds: float) -> str:
    """A time in words: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

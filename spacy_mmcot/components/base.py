"""What `mmcot_ner` and `mmcot_rel` share: labels that are fixed at initialisation, and an update
that learns from gold and from soft labels at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

from spacy.pipeline.trainable_pipe import TrainablePipe
from spacy.training import Example, validate_examples
from thinc.api import Optimizer

from ..errors import Errors, MMCoTError

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
        """The forward pass of an update: the scores that `get_loss` takes, and the function that
        propagates their gradient."""

    def add_label(self, label: str) -> int:
        """Add a label before initialisation. Returns 1 if it was new, 0 if not.

        Raises MMCoTError for a new label after initialisation.
        """
        if label in self.labels:
            return 0
        if self.is_initialized:
            raise MMCoTError(
                Errors.E601.format(component=self.name, labels=list(self.labels), label=label)
            )
        self.cfg["labels"] = sorted([*self.labels, label])
        self.vocab.strings.add(label)
        return 1

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

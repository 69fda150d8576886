"""Contenders that take turns batch by batch, so that whatever else the machine does meets all
alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy
from numpy.typing import NDArray
from spacy.language import Language

# Runs the batch of the given number.
Contender = Callable[[int], None]


def take_turns(
    contenders: Mapping[str, Contender], n_batches: int, rounds: int
) -> dict[str, NDArray[numpy.float64]]:
    """The seconds of each contender, (rounds, batches). Each runs the first batch beforehand, to
    warm up."""
    for run in contenders.values():
        run(0)
    names = list(contenders)
    seconds = {name: numpy.zeros((rounds, n_batches)) for name in names}
    for number in range(rounds):
        for batch in range(n_batches):
            # The one that goes second finds warmer caches: take turns at that, too.
            first = (number + batch) % len(names)
            for name in names[first:] + names[:first]:
                started = time.perf_counter()
                contenders[name](batch)
                seconds[name][number, batch] = time.perf_counter() - started
    return seconds


def piped(
    nlp: Language, batches: Sequence[list[str]], size: int, disable: Sequence[str] = ()
) -> Contender:
    """A pipeline over batches of texts, `size` of them at once, without some of its components."""

    def run(number: int) -> None:
        with nlp.select_pipes(disable=list(disable)):
            for _ in nlp.pipe(batches[number], batch_size=size):
                pass

    return run

"""How fast several pipelines are, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from spacy.language import Language
from spacy.util import minibatch

from .pipe import make_contender, take_turns


def measure_side_by_side(
    pipelines: Mapping[str, Language], texts: Sequence[str], rounds: int = 5, batch_size: int = 256
) -> dict[str, dict[str, Any]]:
    """Words/s of each pipeline over the same texts, and how many times the first one's that is.

    The pipelines take turns batch by batch, so that whatever else the machine does meets all
    alike; the median over `rounds` passes counts. Words are the first pipeline's tokens.
    """
    names = list(pipelines)
    first = pipelines[names[0]]
    words = sum(len(doc) for doc in map(first.make_doc, texts))
    batches = [list(batch) for batch in minibatch(texts, batch_size)]
    contenders = {name: make_contender(nlp, batches, batch_size) for name, nlp in pipelines.items()}
    seconds = take_turns(contenders, len(batches), rounds)
    middle = {name: median(spent.sum(axis=1).tolist()) for name, spent in seconds.items()}
    return {
        name: {
            "words_per_second": round(words / middle[name]),
            "times": round(middle[names[0]] / middle[name], 2),
        }
        for name in names
    }

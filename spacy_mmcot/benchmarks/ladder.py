"""How fast pipelines are beside each other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from spacy.language import Language
from spacy.util import minibatch


def side_by_side(
    pipelines: Mapping[str, Language], texts: Sequence[str], rounds: int = 5, batch_size: int = 64
) -> dict[str, dict[str, Any]]:
    """Words/s of each pipeline over the same texts, and how many times the first one's that is.

    The pipelines take turns batch by batch, so that whatever else the machine does meets all
    alike; the median over `rounds` passes counts. Words are the first pipeline's tokens.
    """
    names = list(pipelines)
    first = pipelines[names[0]]
    words = sum(len(doc) for doc in map(first.make_doc, texts))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for nlp in pipelines.values():
        list(nlp.pipe(texts[:batch_size], batch_size=batch_size))
    for _ in range(rounds):
        spent = dict.fromkeys(names, 0.0)
        for number, batch in enumerate(minibatch(texts, batch_size * 4)):
            # The one that goes after another finds other caches: each goes first in its turn.
            turn = number % len(names)
            for name in (*names[turn:], *names[:turn]):
                started = time.perf_counter()
                for _ in pipelines[name].pipe(batch, batch_size=batch_size):
                    pass
                spent[name] += time.perf_counter() - started
        for name in names:
            seconds[name].append(spent[name])
    middle = {name: median(values) for name, values in seconds.items()}
    return {
        name: {
            "words_per_second": round(words / middle[name]),
            "times": round(middle[names[0]] / middle[name], 2),
        }
        for name in names
    }

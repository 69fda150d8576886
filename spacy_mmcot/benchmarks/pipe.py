"""What each component costs in `nlp.pipe`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from spacy.language import Language
from spacy.util import minibatch


def component_shares(
    nlp: Language, texts: Sequence[str], rounds: int = 5, batch_size: int = 64
) -> dict[str, Any]:
    """Words/s of the pipeline, and without each component that no later one needs.

    Whole pipeline and cut ones take turns batch by batch, so that whatever else the machine does
    meets all alike; the median over `rounds` passes counts. `ratio_without_NAME` is the whole
    pipeline's speed over that of the one without: 0.9 says that the component costs a tenth.
    """
    kinds = {"whole": [], **{f"without_{name}": [name] for name in _leaves(nlp)}}
    words = sum(len(doc) for doc in map(nlp.make_doc, texts))
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    list(nlp.pipe(texts[:batch_size]))
    for _ in range(rounds):
        spent = dict.fromkeys(kinds, 0.0)
        for number, batch in enumerate(minibatch(texts, batch_size * 4)):
            # The one that goes second finds warmer caches: take turns at that, too.
            for kind in sorted(kinds, reverse=number % 2 == 1):
                with nlp.select_pipes(disable=kinds[kind]):
                    started = time.perf_counter()
                    for _ in nlp.pipe(batch, batch_size=batch_size):
                        pass
                    spent[kind] += time.perf_counter() - started
        for kind in kinds:
            seconds[kind].append(spent[kind])
    speed = {kind: words / median(values) for kind, values in seconds.items()}
    ratios = {f"ratio_{k}": speed["whole"] / v for k, v in speed.items() if k != "whole"}
    return {
        "docs": len(texts),
        "words": words,
        **{f"words_per_second_{kind}": round(value) for kind, value in speed.items()},
        **{name: round(value, 3) for name, value in ratios.items()},
    }


def _leaves(nlp: Language) -> list[str]:
    """The components whose attributes no later component says it needs, and that hand on no
    encoder states."""
    leaves = []
    for i, name in enumerate(nlp.pipe_names):
        assigned = set(nlp.get_pipe_meta(name).assigns)
        later = [nlp.get_pipe_meta(other).requires for other in nlp.pipe_names[i + 1 :]]
        listened = hasattr(nlp.get_pipe(name), "listeners")
        if not listened and not any(assigned & set(required) for required in later):
            leaves.append(name)
    return leaves

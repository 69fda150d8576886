"""What a pipeline costs in `nlp.pipe`, beside what it could be compared with."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch
from spacy.language import Language
from spacy.util import minibatch

from .pipe_gliner import gliner, has_gliner
from .pipe_peers import bare_encoder, encoder_of, entity_labels, stock_pipeline
from .turns import Contender, piped, take_turns

LATENCY_TEXTS = 200


def pipe_figures(
    nlp: Language,
    texts: Sequence[str],
    rounds: int = 5,
    batch_size: int = 256,
    exported: Language | None = None,
) -> dict[str, Any]:
    """Words/s of the pipeline, without each component that no later one needs, of its bare encoder
    (the limit), of spaCy's stock transformer and ner on the same encoder, of a GLiNER of its small
    size where that package is installed, and of `exported`.

    All take turns batch by batch, so that whatever else the machine does meets all alike; of each
    batch the median over `rounds` passes counts. `ratio_without_NAME` is the whole pipeline's speed
    over that of the one without: 0.9 says that the component costs a tenth. Latencies are those
    of single texts, in milliseconds.
    """
    batches = [list(batch) for batch in minibatch(texts, batch_size)]
    contenders: dict[str, Contender] = {"whole": piped(nlp, batches, batch_size)}
    for name in _leaves(nlp):
        contenders[f"without_{name}"] = piped(nlp, batches, batch_size, [name])
    encoder = encoder_of(nlp)
    if encoder is not None:
        contenders["limit"] = bare_encoder(encoder, map(nlp.make_doc, texts), len(batches))
        stock = stock_pipeline(nlp, encoder)
        contenders["spacy_trf_ner"] = piped(stock, batches, batch_size)
        if has_gliner():
            contenders["gliner_small"] = gliner(encoder, entity_labels(nlp), batches, batch_size)
    if exported is not None:
        contenders["exported"] = piped(exported, batches, batch_size)
    words = sum(len(doc) for doc in map(nlp.make_doc, texts))
    seconds = take_turns(contenders, len(batches), rounds)
    speed = {
        name: words / numpy.median(spent, axis=0).sum().item() for name, spent in seconds.items()
    }
    ratios = {f"ratio_{k}": speed["whole"] / v for k, v in speed.items() if "without" in k}
    for other in ("limit", "spacy_trf_ner", "gliner_small"):
        if other in speed:
            ratios[f"ratio_to_{other}"] = speed["whole"] / speed[other]
    if exported is not None:
        ratios["runtime_speedup"] = speed["exported"] / speed["whole"]
        if "limit" in speed:
            ratios["ratio_exported_to_limit"] = speed["exported"] / speed["limit"]
    figures: dict[str, Any] = {
        "docs": len(texts),
        "words": words,
        "threads": torch.get_num_threads(),
        **{f"words_per_second_{name}": round(value) for name, value in speed.items()},
        **{name: round(value, 3) for name, value in ratios.items()},
    }
    named = {"": nlp} if exported is None else {"": nlp, "_exported": exported}
    for name, values in latencies(named, texts[:LATENCY_TEXTS]).items():
        for share, value in zip((50, 95, 99), numpy.percentile(values, (50, 95, 99)), strict=True):
            figures[f"latency_ms_p{share}{name}"] = round(1000 * float(value), 2)
    return figures


def latencies(pipelines: Mapping[str, Language], texts: Sequence[str]) -> dict[str, list[float]]:
    """Seconds that each pipeline takes for each text by itself."""
    seconds: dict[str, list[float]] = {name: [] for name in pipelines}
    for text in texts:
        for name, nlp in pipelines.items():
            started = time.perf_counter()
            nlp(text)
            seconds[name].append(time.perf_counter() - started)
    return seconds


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

"""What distillation costs: a student's epoch beside one on gold labels alone."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.training import Example
from spacy.training.initialize import init_nlp
from spacy.util import load_config, minibatch
from thinc.api import Optimizer

from spacy_mmcot.corpus.docbin import Corpus

WARM_UP_BATCHES = 5


# Turns distillation off: what the baseline trains with.
GOLD_ALONE = {"components.mmcot_ner.soft_weight": 0.0, "components.mmcot_rel.soft_weight": 0.0}


def measure_epochs(
    config: Path, taught: Path, limit: int = 0, exclude: Sequence[str] = (), seed: int = 1
) -> dict[str, Any]:
    """Train a student and a baseline for one epoch on the same batches, taking turns batch by
    batch, so that other load on the machine affects both alike.

    config: the student's; the baseline's has no soft labels. taught: a file that `teach` wrote.
    limit: greatest number of docs, 0 for all. exclude: components to leave out. Returns seconds of
    each epoch and their ratio.
    """
    overrides: dict[str, dict[str, Any]] = {"student": {}, "baseline": GOLD_ALONE}
    runs = {name: _start(config, taught, limit, exclude, own) for name, own in overrides.items()}
    order = list(range(len(runs["student"][1])))
    random.Random(seed).shuffle(order)
    seconds = dict.fromkeys(runs, 0.0)
    batches = list(minibatch(order, 16))
    warm_up = batches[:WARM_UP_BATCHES]
    for number, batch in enumerate([*warm_up, *batches]):
        # The second one finds warmer caches, so the order alternates.
        for name in sorted(runs, reverse=number % 2 == 1):
            nlp, examples, optimizer = runs[name]
            started = time.perf_counter()
            nlp.update([examples[i] for i in batch], sgd=optimizer)
            if number >= len(warm_up):
                seconds[name] += time.perf_counter() - started
    return {
        "docs": len(order),
        "student_epoch_seconds": round(seconds["student"], 2),
        "baseline_epoch_seconds": round(seconds["baseline"], 2),
        "epoch_ratio": round(seconds["student"] / seconds["baseline"], 3),
    }


def _start(
    path: Path, taught: Path, limit: int, exclude: Sequence[str], overrides: dict[str, Any]
) -> tuple[Language, list[Example], Optimizer]:
    paths = {"paths.train": str(taught), "paths.dev": str(taught)}
    config = load_config(path, overrides={**paths, **overrides})
    pipeline = config["nlp"]["pipeline"]
    config["nlp"]["pipeline"] = [name for name in pipeline if name not in exclude]
    nlp = init_nlp(config)
    examples = list(Corpus(taught, limit=limit, knowledge=False)(nlp))
    return nlp, examples, nlp.create_optimizer()

"""What pictures cost in `nlp.pipe`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from spacy.language import Language
from spacy.training.initialize import init_nlp
from spacy.util import load_config

from spacy_mmcot import set_image
from spacy_mmcot.errors import Errors, MMCoTError

CONFIG = Path("configs/student.cfg")
TRAIN = Path("corpus/gold/train.spacy")


def initialize_student() -> Language:
    """An untrained student that reads pictures, with the demo's labels. Raises MMCoTError where the
    config or the demo's corpus is missing."""
    for path in (CONFIG, TRAIN):
        if not path.is_file():
            raise MMCoTError(Errors.E100.format(path=path))
    overrides = {
        **{"paths.train": str(TRAIN), "paths.dev": str(TRAIN)},
        "components.transformer.model.vision": {"@architectures": "spacy_mmcot.PackagedVision.v1"},
    }
    return init_nlp(load_config(CONFIG, overrides=overrides))


def measure_pictures(
    nlp: Language, posts: Sequence[tuple[str, bytes]], rounds: int = 5, batch_size: int = 64
) -> dict[str, Any]:
    """Words/s over the same texts without pictures, with new pictures, and with the same ones
    again, whose features are cached; and what a picture costs in both cases, in milliseconds.

    posts: texts and the contents of their pictures' files. The three take turns; the median over
    `rounds` counts.
    """
    words = sum(len(nlp.make_doc(text)) for text, _ in posts)
    seconds: dict[str, list[float]] = {"without": [], "first": [], "again": []}
    for number in range(-1, rounds):
        # Bytes after a picture's end change its key in the cache, not what it shows.
        fresh = [(text, image + f"round {number}".encode()) for text, image in posts]
        rows: dict[str, Sequence[tuple[str, bytes | None]]] = {
            "without": [(text, None) for text, _ in posts],
            "first": fresh,
            "again": fresh,
        }
        for kind, batch in rows.items():
            docs = []
            for text, image in batch:
                doc = nlp.make_doc(text)
                set_image(doc, image)
                docs.append(doc)
            started = time.perf_counter()
            for _ in nlp.pipe(docs, batch_size=batch_size):
                pass
            if number >= 0:  # the round before the first warms up
                seconds[kind].append(time.perf_counter() - started)
    spent = {kind: median(values) for kind, values in seconds.items()}
    extra = {kind: 1000 * (spent[kind] - spent["without"]) / len(posts) for kind in rows}
    return {
        "docs_with_picture": len(posts),
        "words_per_second_no_pictures": round(words / spent["without"]),
        "words_per_second_new_pictures": round(words / spent["first"]),
        "words_per_second_known_pictures": round(words / spent["again"]),
        "ms_per_new_picture": round(extra["first"], 2),
        "ms_per_known_picture": round(extra["again"], 2),
    }

"""What the web service and the serverless handler share: which texts they take, and the thread that
runs the pipeline. It needs spaCy and the pipeline's wheel, standalone or not.
"""

from __future__ import annotations

import gc
import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import spacy
from pydantic import BaseModel, Field

PIPELINE = os.environ.get("MMCOT_PIPELINE", "training/student/model-best")
MAX_TEXTS = int(os.environ.get("MMCOT_MAX_TEXTS", "64"))  # a request
MAX_CHARACTERS = int(os.environ.get("MMCOT_MAX_CHARACTERS", "10000"))  # a text
MAX_TOTAL = int(os.environ.get("MMCOT_MAX_TOTAL", "20000"))  # characters of a request's texts
MAX_BYTES = int(os.environ.get("MMCOT_MAX_BYTES", "1000000"))  # a body
BATCH_SIZE = int(os.environ.get("MMCOT_BATCH_SIZE", "32"))  # texts through nlp.pipe at once
WAITING = int(os.environ.get("MMCOT_WAITING", "1000"))  # texts in the queue before a 503
TIMEOUT = float(os.environ.get("MMCOT_TIMEOUT", "30"))  # seconds before a 504

# A standalone wheel carries the worker's code; other pipelines need spacy-mmcot.
_standalone = PIPELINE.isidentifier() and find_spec(PIPELINE) and find_spec(f"{PIPELINE}.worker")
code = import_module(f"{PIPELINE}.worker" if _standalone else "spacy_mmcot.production.worker")


class Texts(BaseModel):
    texts: list[str] = Field(min_length=1, max_length=MAX_TEXTS)


def find_problem(texts: list[str]) -> str | None:
    """Why the texts of a request are not taken; None where they are."""
    for number, text in enumerate(texts):
        if len(text) > MAX_CHARACTERS:
            problem = f"Text {number} (from 0) has {len(text)} characters; at most {MAX_CHARACTERS}"
            return f"{problem} are taken. Cut it into shorter texts."
    if (total := sum(map(len, texts))) > MAX_TOTAL:
        problem = f"The texts have {total} characters together; at most {MAX_TOTAL} are taken."
        return f"{problem} Send them in several requests."
    return None


def describe_fault(fault: Any) -> str:
    """The message for a body that is no Texts. fault: the first of pydantic's errors."""
    place = ".".join(str(part) for part in fault["loc"] if part != "body") or "body"
    expected = f'Expected: {{"texts": ["...", ...]}} with 1 to {MAX_TEXTS} texts.'
    return f"{place}: {fault['msg']}. {expected}"


def start_worker() -> tuple[str, Any]:
    """The pipeline's name, and a worker that has answered its first text."""
    nlp = spacy.load(PIPELINE)
    worker = code.PipelineWorker(nlp, code.extract_findings, batch_size=BATCH_SIZE, waiting=WAITING)
    worker("The first document warms the pipeline up.")
    # The garbage collector stops all threads. Keep it from visiting the loaded objects again.
    gc.collect()
    gc.freeze()
    return f"{nlp.meta['lang']}_{nlp.meta['name']}", worker

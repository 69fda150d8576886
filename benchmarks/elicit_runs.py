"""Run one elicitation in a new process and print its measurements as a line of JSON."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy_mmcot.elicitation.client import OpenAISettings, OpenAISource
from spacy_mmcot.elicitation.elicit import elicit
from spacy_mmcot.elicitation.engine import Pace
from spacy_mmcot.elicitation.money import Prices
from spacy_mmcot.elicitation.prompts import QuestionSettings
from spacy_mmcot.elicitation.store import AnswerStore
from spacy_mmcot.types import Dimension, Entity, Post

from .memory import read_own_peak_mb

KEY = "sk-benchmark-0815"
MODEL = "gpt-4o-mini"


class MadePosts:
    """`count` posts, each with a caption and one mention; created again at each iteration."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Post]:
        for number in range(self.count):
            name = f"Anna{number}"
            yield Post(
                id=f"p{number}",
                text=f"{name} sings in Oslo tonight and half of the town is there to hear it",
                entities=[Entity(start=0, end=len(name), label="PER")],
                caption=f"a stage with {number} lamps in front of a dark crowd",
            )


def start(
    url: str, store: Path, posts: int, workers: int, timeout: float, dimensions: int = 6
) -> subprocess.Popen[str]:
    """Start a run as a process; its output is one line of JSON."""
    words = [url, store, posts, workers, timeout, dimensions]
    return subprocess.Popen(
        [sys.executable, "-m", __spec__.name, *map(str, words)], stdout=subprocess.PIPE, text=True
    )


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a run; returns seconds, cpu_seconds, peak_mb, asked, and the counts of its end."""
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the run ended with {process.returncode}")
    figures: dict[str, Any] = json.loads(output)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("store", type=Path)
    parser.add_argument("posts", type=int)
    parser.add_argument("workers", type=int)
    parser.add_argument("timeout", type=float)
    parser.add_argument("dimensions", type=int)
    given = parser.parse_args()
    names: list[Dimension] = ["noun", "sentence", "multimodality", "style", "entity", "image"]
    settings = OpenAISettings(MODEL, base_url=given.url, api_key=KEY, timeout=given.timeout)
    source, prices = OpenAISource(settings), Prices()
    # Loads the table of prices, which is not what is measured.
    prices.find(MODEL)
    with AnswerStore(given.store) as store:
        started, cpu = time.perf_counter(), time.process_time()
        result = elicit(
            MadePosts(given.posts),
            store,
            source,
            settings=QuestionSettings.of(*names[: given.dimensions]),
            pace=Pace(workers=given.workers),
            prices=prices,
        )
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    total = result.report.total()
    figures = {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_mb": read_own_peak_mb(),
        "asked": total.asked,
        "stored": total.stored + total.already_there,
        "rejected": total.rejected,
        "missing": total.missing,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

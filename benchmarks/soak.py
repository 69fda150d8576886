"""Memory and speed of a pipeline that runs for long."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from spacy.language import Language

from benchmarks.errors import BenchmarkErrors
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.production.worker import trim_heap

_STATM = Path("/proc/self/statm")
_PAGE = 4096
_COMMON = (
    "the a of to and in on at is was we you they this that night day great new old home win lost "
    "goal song photo street morning after before with from tonight thanks just really see"
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_BARS = "▁▂▃▄▅▆▇█"


class Sample(NamedTuple):
    """One point of the curve, taken between two memory zones."""

    docs: int  # processed until now
    rss_mb: float  # resident memory, in units of 1,000,000 bytes
    docs_per_second: float  # since the sample before
    strings: int  # in the vocab's StringStore


def measure_soak(
    nlp: Language,
    docs: int,
    *,
    every: int = 2000,
    zone: int = 500,
    batch_size: int = 64,
    zones: bool = True,
    seed: int = 0,
    show: Callable[[Sample], None] | None = None,
) -> dict[str, Any]:
    """Stream `docs` short texts, each with words that no text before had, through `nlp.pipe` in
    memory zones of `zone` texts, and take a sample every `every` docs.

    zones: without them, what spaCy keeps of each new word stays.
    show: called with each sample as it is taken.

    The result's `rss_growth_mb_per_100k` is the slope of a line fitted to the samples of the last
    four fifths: in the first, caches fill and the allocator settles. Raises MMCoTError where the
    operating system has no /proc/self/statm.
    """
    texts = make_texts(seed)
    samples = [Sample(0, read_resident_mb(), 0.0, len(nlp.vocab.strings))]
    done, entities = 0, 0
    while done < docs:
        started, first = time.perf_counter(), done
        while done < min(first + every, docs):
            size = min(zone, first + every - done, docs - done)
            with nlp.memory_zone() if zones else nullcontext():
                for doc in nlp.pipe(islice(texts, size), batch_size=batch_size):
                    entities += len(doc.ents)
                # A name would keep the last doc beyond the zone that owns its memory.
                del doc
            trim_heap()
            done += size
        seconds = time.perf_counter() - started
        # Docs are part of reference cycles where extensions were used: what only waits for the
        # collector is no growth.
        gc.collect()
        rate = (done - first) / seconds
        samples.append(Sample(done, read_resident_mb(), rate, len(nlp.vocab.strings)))
        if show is not None:
            show(samples[-1])
    return {**_figures(samples), "entities": entities, "samples": [s._asdict() for s in samples]}


def make_texts(seed: int = 0) -> Iterator[str]:
    """Texts of 5 to 30 words without end; of each, a quarter of the words, and at least one, never
    came before: names, tags and addresses as social media has them."""
    rng = random.Random(seed)
    common = _COMMON.split()
    number = 0
    while True:
        words = [rng.choice(common) for _ in range(rng.randint(5, 30))]
        for i in rng.sample(range(len(words)), max(1, len(words) // 4)):
            number += 1
            name = "".join(rng.choices(_LETTERS, k=3)) + _spell(number)
            words[i] = rng.choice(
                (name.title(), f"#{name}", f"@{name}", name, f"http://{name}.example/{number}")
            )
        yield " ".join(words)


def read_resident_mb() -> float:
    """What the process holds in memory now, in units of 1,000,000 bytes. Raises MMCoTError."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE / 1e6
    except OSError as error:
        raise MMCoTError(BenchmarkErrors.E770.format(path=_STATM, reason=error.strerror)) from None


def draw_sparkline(values: list[float]) -> str:
    """The values as bars, the lowest of them the shortest bar; at most 60, means of neighbours."""
    parts = numpy.array_split(values, min(len(values), 60))
    means = numpy.array([part.mean() for part in parts])
    low, high = means.min(), means.max()
    steps = (means - low) / (high - low) * (len(_BARS) - 1) if high > low else means * 0
    return "".join(_BARS[round(step)] for step in steps)


def _figures(samples: list[Sample]) -> dict[str, Any]:
    measured = samples[1:]
    settled = measured[len(measured) // 5 :]
    slope = 0.0
    if len(settled) > 1:
        slope = float(numpy.polyfit([s.docs for s in settled], [s.rss_mb for s in settled], 1)[0])
    quarter = max(1, len(settled) // 4)
    return {
        "docs": samples[-1].docs,
        "rss_start_mb": round(samples[0].rss_mb, 1),
        "rss_warm_mb": round(settled[0].rss_mb, 1),
        "rss_end_mb": round(samples[-1].rss_mb, 1),
        "rss_max_mb": round(max(s.rss_mb for s in samples), 1),
        "rss_growth_mb_per_100k": round(slope * 1e5, 2),
        "docs_per_second_warm": round(_mean_rate(settled[:quarter]), 1),
        "docs_per_second_end": round(_mean_rate(settled[-quarter:]), 1),
        "strings_start": samples[0].strings,
        "strings_end": samples[-1].strings,
    }


def _mean_rate(samples: list[Sample]) -> float:
    return float(numpy.mean([s.docs_per_second for s in samples]))


def _spell(number: int) -> str:
    """A number in letters: digits would make the tokenizer's work other than names do."""
    letters = ""
    while number:
        number, rest = divmod(number, len(_LETTERS))
        letters += _LETTERS[rest]
    return letters

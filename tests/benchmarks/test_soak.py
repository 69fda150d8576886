"""`benchmarks soak`: texts that bring new words all the time, and what stays of them."""

from __future__ import annotations

import gc
import json
from itertools import islice
from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.soak import draw_sparkline, make_texts, measure_soak, read_resident_mb
from spacy_mmcot.model import wordpieces
from spacy_mmcot.production.worker import trim_heap


@pytest.fixture
def nlp(toy_transformer_model: Path) -> Language:
    return spacy.load(toy_transformer_model)


def test_every_text_brings_words_that_none_had_before() -> None:
    seen: set[str] = set()
    for text in islice(make_texts(), 2000):
        words = set(text.split())
        assert len(words - seen) >= max(1, len(text.split()) // 4) - 1
        seen |= words
    assert list(islice(make_texts(1), 3)) == list(islice(make_texts(1), 3))


@pytest.mark.slow
def test_memory_stays_flat_over_a_long_run(nlp: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    # Full from early on, as in a long run; a cache that still fills would look like growth.
    monkeypatch.setattr(wordpieces, "MAX_CACHED_WORDS", 2000)
    figures = measure_soak(nlp, 4000, every=500, zone=250)
    assert figures["docs"] == 4000
    assert figures["strings_end"] == figures["strings_start"]
    # A text's states alone are some 8 kB here: kept, they would be 16 MB in the second half.
    half = figures["samples"][len(figures["samples"]) // 2]
    assert figures["rss_end_mb"] - half["rss_mb"] < 6, figures["samples"]


def test_what_stays_shows(nlp: Language) -> None:
    """The measure itself: a run that keeps its docs, and one without zones, are seen to grow."""
    # What other tests have freed would be used first.
    gc.collect()
    trim_heap()
    before = read_resident_mb()
    kept = list(nlp.pipe(islice(make_texts(), 1000)))
    assert read_resident_mb() - before > 2
    del kept
    gc.collect()
    figures = measure_soak(nlp, 200, every=100, zones=False, seed=1)
    assert figures["strings_end"] > figures["strings_start"] + 200


def test_the_command_prints_a_curve_and_writes_its_samples(
    toy_transformer_model: Path, tmp_path: Path
) -> None:
    written = tmp_path / "soak.json"
    result = CliRunner().invoke(
        app,
        [
            *("soak", str(toy_transformer_model), "--docs", "250", "--every", "100"),
            *("--zone", "50", "--json", str(written)),
        ],
    )
    assert result.exit_code == 0, result.output
    figures = json.loads(written.read_text("utf-8"))
    assert [sample["docs"] for sample in figures["samples"]] == [0, 100, 200, 250]
    assert figures["docs_per_second_end"] > 0
    assert f"rss_end_mb: {figures['rss_end_mb']}" in result.output
    assert any(line.startswith("memory ") for line in result.output.splitlines())


def test_a_curve_of_many_values_keeps_its_shape() -> None:
    assert draw_sparkline([0.0, 7.0, 3.0]) == "▁█▄"
    assert draw_sparkline([5.0]) == "▁"
    rising = draw_sparkline([float(i) for i in range(600)])
    assert (len(rising), rising[0], rising[-1]) == (60, "▁", "█")
    assert list(rising) == sorted(rising)

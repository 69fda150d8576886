"""Long runs: what a pipeline keeps of the texts that it has read."""

from __future__ import annotations

import gc
import json
from itertools import islice
from pathlib import Path

import pytest
import spacy
import toy
from spacy.language import Language
from typer.testing import CliRunner

from benchmarks.soak import fresh_texts, resident_mb, soak, sparkline
from spacy_mmcot.cli.main import app
from spacy_mmcot.model import wordpieces


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    nlp = toy.transformer_pipeline(toy.write_bert(folder / "bert"))
    toy.fix_random_seed(0)
    nlp.initialize(lambda: toy.examples(nlp))
    nlp.to_disk(folder / "model")
    return folder / "model"


@pytest.fixture
def nlp(folder: Path) -> Language:
    return spacy.load(folder)


def test_every_text_brings_words_that_none_had_before() -> None:
    seen: set[str] = set()
    for text in islice(fresh_texts(), 2000):
        words = set(text.split())
        assert len(words - seen) >= max(1, len(text.split()) // 4) - 1
        seen |= words
    assert list(islice(fresh_texts(1), 3)) == list(islice(fresh_texts(1), 3))


def test_a_zone_leaves_no_word_behind_and_the_next_finds_the_same(nlp: Language) -> None:
    texts = list(islice(fresh_texts(), 50))
    strings = len(nlp.vocab.strings)
    found = []
    for _ in range(2):
        with nlp.memory_zone():
            found.append([[str(ent) for ent in doc.ents] for doc in nlp.pipe(texts)])
        assert len(nlp.vocab.strings) == strings
    assert found[0] == found[1]
    assert sum(map(len, found[0])) > 10


def test_the_cache_of_word_pieces_is_bounded(
    nlp: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wordpieces, "MAX_CACHED_WORDS", 100)
    pieces = nlp.get_pipe("transformer").model.shims[0].module.pieces  # type: ignore[attr-defined]
    for text in islice(fresh_texts(), 200):
        nlp(text)
        assert len(pieces._cache) <= 100 + len(text.split()) * 6


@pytest.mark.slow
def test_memory_stays_flat_over_a_long_run(nlp: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    # Full from early on, as in a long run; a cache that still fills would look like growth.
    monkeypatch.setattr(wordpieces, "MAX_CACHED_WORDS", 2000)
    figures = soak(nlp, 4000, every=500, zone=250)
    assert figures["docs"] == 4000
    assert figures["strings_end"] == figures["strings_start"]
    # A text's states alone are some 8 kB here: kept, they would be 16 MB in the second half.
    half = figures["samples"][len(figures["samples"]) // 2]
    assert figures["rss_end_mb"] - half["rss_mb"] < 6, figures["samples"]


def test_what_stays_shows(nlp: Language) -> None:
    """The measure itself: a run that keeps its docs, and one without zones, are seen to grow."""
    before = resident_mb()
    kept = list(nlp.pipe(islice(fresh_texts(), 400)))
    assert resident_mb() - before > 2
    del kept
    gc.collect()
    figures = soak(nlp, 200, every=100, zones=False, seed=1)
    assert figures["strings_end"] > figures["strings_start"] + 200


def test_the_command_prints_a_curve_and_writes_its_samples(folder: Path, tmp_path: Path) -> None:
    written = tmp_path / "soak.json"
    result = CliRunner().invoke(
        app,
        [
            *("benchmark", "soak", str(folder), "--docs", "250", "--every", "100"),
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
    assert sparkline([0.0, 7.0, 3.0]) == "▁█▄"
    assert sparkline([5.0]) == "▁"
    rising = sparkline([float(i) for i in range(600)])
    assert (len(rising), rising[0], rising[-1]) == (60, "▁", "█")
    assert list(rising) == sorted(rising)

"""Long runs: what a pipeline keeps of the texts that it has read."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import spacy
from spacy.language import Language

from benchmarks.soak import make_texts
from spacy_mmcot.model import wordpieces


@pytest.fixture
def nlp(toy_transformer_model: Path) -> Language:
    return spacy.load(toy_transformer_model)


def test_a_zone_leaves_no_word_behind_and_the_next_finds_the_same(nlp: Language) -> None:
    texts = list(islice(make_texts(), 50))
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
    for text in islice(make_texts(), 200):
        nlp(text)
        assert len(pieces._cache) <= 100 + len(text.split()) * 6

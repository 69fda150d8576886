"""A teacher that leaves a grain of the knowledge out neither reads it nor keeps a place for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import tiny
from spacy.language import Language
from spacy.tokens import Doc

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import KNOWLEDGE_KEY

GRAINS = {
    "caption": "a singer on a stage",
    "sentence": "Anna Berg gives a concert in Oslo",
    "multimodality": "the band is the one in the picture",
}


def states(nlp: Language, knowledge: dict[str, Any]) -> Any:
    doc = Doc(nlp.vocab, words=["Anna", "sings", "in", "Oslo"])
    doc.user_data[KNOWLEDGE_KEY] = knowledge
    output = nlp.get_pipe("transformer").predict([doc])  # type: ignore[attr-defined]
    return output.model_output.last_hidden_state


@pytest.mark.parametrize("left_out", sorted(GRAINS))
def test_a_grain_left_out_makes_no_difference_the_others_do(
    left_out: str, bert_source: str, tmp_path: Path
) -> None:
    kept = [grain for grain in GRAINS if grain != left_out]
    nlp = tiny.pipeline(bert_source, segment_length=40, segment_grains=kept)
    without = {grain: GRAINS[grain] for grain in kept}
    expected = states(nlp, without)
    numpy.testing.assert_array_equal(states(nlp, GRAINS), expected)
    for grain in kept:
        fewer = {name: text for name, text in without.items() if name != grain}
        assert not numpy.array_equal(states(nlp, fewer), expected)
    nlp.to_disk(tmp_path / "model")
    again = spacy.load(tmp_path / "model")
    numpy.testing.assert_array_equal(states(again, GRAINS), expected)


def test_no_grain_is_crowded_out_of_a_short_segment(bert_source: str) -> None:
    nlp = tiny.pipeline(bert_source, segment_length=9)
    expected = states(nlp, GRAINS)
    for grain in GRAINS:
        other = {**GRAINS, grain: f"otherwise {GRAINS[grain]}"}
        assert not numpy.array_equal(states(nlp, other), expected), grain


def test_all_grains_are_read_unless_some_are_named(bert_source: str) -> None:
    every = tiny.pipeline(bert_source, segment_length=40)
    named = tiny.pipeline(bert_source, segment_length=40, segment_grains=list(GRAINS))
    numpy.testing.assert_array_equal(states(every, GRAINS), states(named, GRAINS))


def test_an_unknown_grain(bert_source: str) -> None:
    with pytest.raises(MMCoTError, match=r"\[E409\] .*'noun'.*caption, sentence, multimodality"):
        tiny.pipeline(bert_source, segment_length=40, segment_grains=["noun"])

"""Scores of names that carry more than one label."""

from __future__ import annotations

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from research.ambiguity import find_ambiguous_surfaces, score_ambiguous
from spacy_mmcot.evaluation.predictions import collect_predictions
from spacy_mmcot.evaluation.scores import score_entities


def labelled(nlp: Language, text: str, *entities: tuple[int, int, str]) -> Doc:
    doc = nlp.make_doc(text)
    doc.set_ents([Span(doc, *entity) for entity in entities], default="outside")
    return doc


def test_scores_count_gold_and_predicted_mentions_of_the_names() -> None:
    nlp = spacy.blank("en")
    text = "jordan met Jordan Smith in Paris"
    gold = labelled(nlp, text, (0, 1, "PER"), (2, 4, "PER"), (5, 6, "LOC"))
    predicted = labelled(nlp, text, (0, 1, "LOC"), (2, 3, "PER"), (5, 6, "LOC"))
    unlabelled = Example(labelled(nlp, "Jordan", (0, 1, "PER")), nlp.make_doc("Jordan"))
    examples = [Example(predicted, gold), unlabelled]
    records = collect_predictions(examples)
    surfaces = find_ambiguous_surfaces([gold, predicted])
    assert surfaces == {"jordan"}
    # Gold: jordan; predicted: jordan with another label, and Jordan where gold has a longer name.
    scores = score_ambiguous(records, surfaces)
    assert scores == {"ambiguous_p": 0, "ambiguous_r": 0, "ambiguous_f": 0, "ambiguous_n": 1}
    # Over all names they are the strict scores.
    every = {ent.text.lower() for doc in (gold, predicted) for ent in doc.ents}
    scores, strict = score_ambiguous(records, every), score_entities(examples)
    assert [scores[f"ambiguous_{key}"] for key in "prf"] == pytest.approx(
        [strict[f"ents_{key}"] for key in "prf"]
    )


def test_no_ambiguous_name() -> None:
    doc = labelled(spacy.blank("en"), "Oslo at last", (0, 1, "LOC"))
    records = collect_predictions([Example(doc, doc)])
    scores = score_ambiguous(records, find_ambiguous_surfaces([doc, doc]))
    assert scores == {**dict.fromkeys(f"ambiguous_{key}" for key in "prf"), "ambiguous_n": 0}

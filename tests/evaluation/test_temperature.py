"""The temperature, on an overconfident model."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import spacy
import toy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.util import registry

from research.steps import evaluate_pipeline
from spacy_mmcot import write_docs
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.evaluation.calibration import (
    collect_mention_scores,
    compute_calibration_error,
    fit_temperature,
)
from spacy_mmcot.evaluation.predictions import collect_predictions


@pytest.fixture(scope="module")
def too_sure(toy_model: Path) -> Language:
    """Fitted to the toy corpus until it is overconfident."""
    return spacy.load(toy_model)


def held_out(nlp: Language) -> list[Example]:
    """The toy corpus with every third mention's label wrong: a model fitted to it is too sure."""
    made = []
    count = 0
    for text, labels in toy.posts():
        entities = []
        for start, end, label in labels["entities"]:
            count += 1
            wrong = {"PER": "LOC", "LOC": "PER"}[label]
            entities.append((start, end, label if count % 3 else wrong))
        made.append(Example.from_dict(nlp.make_doc(text), {"entities": entities}))
    return made


def log_loss(nlp: Language, data: list[Example]) -> float:
    """Of mentions' scores and Docs' confidences as probabilities that they are right."""
    docs = nlp.pipe([eg.text for eg in data])
    examples = [Example(doc, eg.reference) for doc, eg in zip(docs, data, strict=True)]
    scores, right = collect_mention_scores(collect_predictions(examples))
    confidences = [eg.predicted._.mmcot_confidence for eg in examples]
    whole = [toy.found([eg.predicted]) == toy.found([eg.reference]) for eg in examples]
    chances = numpy.array([*scores, *confidences])
    return -float(numpy.log(numpy.where([*right, *whole], chances, 1 - chances)).sum())


def error(docs: list[Doc], data: list[Example]) -> float:
    pairs = zip(docs, data, strict=True)
    examples = [Example(doc, eg.reference) for doc, eg in pairs]
    return compute_calibration_error(*collect_mention_scores(collect_predictions(examples)))


def test_temperature_lowers_the_log_loss_and_leaves_predictions(too_sure: Language) -> None:
    component = too_sure.get_pipe("mmcot_ner")
    component.cfg["temperature"] = 1.0
    data = held_out(too_sure)
    texts = [eg.text for eg in data]
    before = list(too_sure.pipe(texts))
    assert toy.found(before) == toy.gold()
    error_before = error(before, data)
    loss_before = log_loss(too_sure, data)
    temperature = fit_temperature(component, data)
    assert temperature == component.cfg["temperature"] > 1.2
    assert log_loss(too_sure, data) < 0.25 * loss_before
    after = list(too_sure.pipe(texts))
    assert toy.found(after) == toy.found(before)
    assert error(after, data) < error_before - 0.05
    # It is a minimum: neighbours on both sides are worse.
    lowest = log_loss(too_sure, data)
    for factor in (0.8, 1.25):
        component.cfg["temperature"] = temperature * factor
        assert log_loss(too_sure, data) > lowest


def test_fitting_twice_gives_the_same(too_sure: Language) -> None:
    component = too_sure.get_pipe("mmcot_ner")
    component.cfg["temperature"] = 1.0
    first = fit_temperature(component, held_out(too_sure))
    assert fit_temperature(component, held_out(too_sure)) == pytest.approx(first, rel=1e-4)


def test_a_perfect_model_gets_a_finite_temperature(too_sure: Language) -> None:
    component = too_sure.get_pipe("mmcot_ner")
    component.cfg["temperature"] = 1.0
    assert 0.05 <= fit_temperature(component, toy.examples(too_sure)) <= 1.0
    for doc in too_sure.pipe(toy.texts()):
        assert all(0 < score <= 1 for score in toy.scores(doc))


def test_a_model_that_is_always_wrong_gets_a_finite_temperature(too_sure: Language) -> None:
    component = too_sure.get_pipe("mmcot_ner")
    component.cfg["temperature"] = 1.0
    docs = [too_sure.make_doc(text) for text in toy.texts()[1:4]]
    wrong = [Example.from_dict(doc, {"entities": ["U-LOC"] * len(doc)}) for doc in docs]
    assert 1.0 < fit_temperature(component, wrong) <= 20.0


def test_temperature_is_saved(too_sure: Language) -> None:
    component = too_sure.get_pipe("mmcot_ner")
    component.cfg["temperature"] = 2.5
    loaded = toy.pipeline().from_bytes(too_sure.to_bytes())
    assert loaded.get_pipe("mmcot_ner").cfg["temperature"] == 2.5
    for text in toy.texts():
        assert toy.scores(loaded(text)) == toy.scores(too_sure(text))


def test_docs_with_a_label_that_the_component_lacks_do_not_count(too_sure: Language) -> None:
    component = too_sure.get_pipe("mmcot_ner")
    component.cfg["temperature"] = 1.0
    data = held_out(too_sure)
    expected = fit_temperature(component, data)
    component.cfg["temperature"] = 1.0
    doc = too_sure.make_doc(toy.texts()[0])
    unknown = Example.from_dict(doc, {"entities": ["U-UNSEEN"] * len(doc)})
    assert fit_temperature(component, [*data, unknown]) == pytest.approx(expected)


def test_unlabelled_data_cannot_calibrate(too_sure: Language) -> None:
    component = too_sure.get_pipe("mmcot_ner")
    component.cfg["temperature"] = 1.0
    bare = [Example(too_sure.make_doc(t), too_sure.make_doc(t)) for t in toy.texts()]
    empty = [Example.from_dict(Doc(too_sure.vocab), {"entities": []})]
    for data in ([], bare, empty):
        with pytest.raises(MMCoTError, match=r"\[E604\] mmcot_ner"):
            fit_temperature(component, data)
    assert component.cfg["temperature"] == 1.0


def test_unlabelled_docs_do_not_count(too_sure: Language) -> None:
    component = too_sure.get_pipe("mmcot_ner")
    component.cfg["temperature"] = 1.0
    alone = fit_temperature(component, held_out(too_sure))
    bare = [Example(too_sure.make_doc(t), too_sure.make_doc(t)) for t in toy.texts()]
    component.cfg["temperature"] = 1.0
    assert fit_temperature(component, [*bare, *held_out(too_sure)]) == pytest.approx(alone)


def test_checkpoints_are_calibrated_where_there_are_labels(too_sure: Language) -> None:
    """As `[training.before_to_disk]` of the configs does it."""
    component = too_sure.get_pipe("mmcot_ner")
    component.cfg["temperature"] = 1.0
    bare = [Example(too_sure.make_doc(t), too_sure.make_doc(t)) for t in toy.texts()]
    config = {"@callbacks": "spacy_mmcot.Calibration.v1"}
    for data, fitted in ((bare, False), (held_out(too_sure), True)):
        calibrate = registry.resolve({"made": {**config, "corpus": lambda nlp, data=data: data}})
        assert calibrate["made"](too_sure) is too_sure
        assert (component.cfg["temperature"] > 1.05) == fitted
    without = spacy.blank("en")
    assert calibrate["made"](without) is without


def test_not_initialised_cannot_calibrate() -> None:
    nlp = toy.pipeline()
    nlp.get_pipe("mmcot_ner").add_label("PER")
    with pytest.raises(MMCoTError, match="E602"):
        fit_temperature(nlp.get_pipe("mmcot_ner"), toy.examples(nlp))


def test_no_extension_is_asked_of_a_pipeline_without_the_component() -> None:
    nlp = spacy.blank("en")
    doc = nlp("Anna sings")
    doc.set_ents([Span(doc, 0, 1, label="PER")], default="outside")
    assert collect_mention_scores(collect_predictions([Example(doc, doc)]))[0].size == 0


def test_studies_calibrate_on_the_half_that_they_do_not_score(
    toy_model: Path, tmp_path: Path
) -> None:
    nlp = spacy.load(toy_model)
    write_docs(tmp_path / "dev.spacy", [eg.reference for eg in held_out(nlp)])
    metrics = evaluate_pipeline(toy_model, tmp_path / "dev.spacy")
    assert metrics["ents_ece_calibrated"] < metrics["ents_ece"] - 0.1

"""`evaluate`, as Python users call it, and predictions of other origin than a pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest
import spacy
import toy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_mmcot import evaluate
from spacy_mmcot.corpus.extensions import register_extensions
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.evaluation.evaluate import needs_gold_entities
from spacy_mmcot.evaluation.predictions import predict_example, read_predictions
from spacy_mmcot.evaluation.scores import count_entities, count_relations
from spacy_mmcot.types import Relation

register_extensions()


@pytest.fixture(scope="module")
def nlp(toy_model: Path) -> Language:
    return spacy.load(toy_model)


def label_docs(nlp: Language) -> list[Doc]:
    return [eg.reference for eg in toy.examples(nlp)]


def test_metrics_of_a_perfect_pipeline(nlp: Language) -> None:
    docs = label_docs(nlp)
    metrics = evaluate(nlp, docs)
    assert [metrics[f"{p}_{key}"] for p in ("ents", "seqeval") for key in "prf"] == [1.0] * 6
    assert set(metrics["ents_per_type"]) == set(toy.LABELS)
    assert metrics["docs"] == len(docs)
    assert metrics["pictures"] == "none" and metrics["docs_with_picture"] == 0
    assert metrics["model_mb"] > 0 and metrics["words_per_second"] > 0
    assert [key for key in metrics if key.startswith("rel")] == []


def test_docs_stay_as_they_are_and_may_have_another_vocab(nlp: Language, tmp_path: Path) -> None:
    docs = label_docs(spacy.blank("en"))
    before = [doc.to_bytes() for doc in docs]
    path = tmp_path / "found.jsonl"
    metrics = evaluate(nlp, iter(docs), predictions=path)
    assert metrics["ents_f"] == 1.0
    assert [doc.to_bytes() for doc in docs] == before
    assert [doc.text for doc in read_predictions(path)] == toy.texts()


def test_what_cannot_be_scored(nlp: Language) -> None:
    bare = [nlp.make_doc(text) for text in toy.texts()]
    with pytest.raises(MMCoTError, match=r"\[E705\] the docs"):
        evaluate(nlp, bare)


@pytest.mark.parametrize(
    ("pipes", "needed"),
    [
        (["mmcot_rel"], True),
        (["mmcot_ner", "mmcot_rel"], False),
        (["entity_ruler", "mmcot_rel"], False),
        (["sentencizer", "mmcot_rel"], True),
        (["mmcot_rel", "mmcot_ner"], True),
        (["mmcot_ner"], False),
        ([], False),
    ],
)
def test_who_needs_gold_entities(pipes: list[str], needed: bool) -> None:
    blank: Language = spacy.blank("en")
    for pipe in pipes:
        blank.add_pipe(pipe)
    assert needs_gold_entities(blank) is needed


def test_what_nobody_annotated_does_not_count() -> None:
    """In the gold Doc nobody looked at Bo; in the predicted one Oslo has another label."""
    nlp = spacy.blank("en")
    gold, predicted = (nlp.make_doc("Anna sings in Oslo with Bo") for _ in range(2))
    gold.set_ents(
        [Span(gold, 0, 1, label="PER"), Span(gold, 3, 4, label="LOC")],
        outside=[gold[1:3]],
        default="missing",
    )
    gold._.mmcot_rel = [Relation(gold.ents[0], gold.ents[1], "at", 1.0)]
    labels = {0: "PER", 3: "ORG", 5: "PER"}
    predicted.set_ents([Span(predicted, i, i + 1, label) for i, label in labels.items()])
    predicted._.mmcot_rel = [Relation(predicted.ents[0], predicted.ents[1], "at", 0.5)]
    record = predict_example(Example(predicted, gold), 3)
    assert record.id == "3"
    assert [(e.start, e.end) for e in record.entities] == [(0, 4), (14, 18)]
    assert count_entities([record]).tolist() == [[1, 2, 2]]
    assert count_relations([record]).tolist() == [[0, 1, 1]]

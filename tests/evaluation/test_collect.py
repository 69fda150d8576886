"""Predictions from Examples: they must score as the Examples themselves do."""

from __future__ import annotations

import random

import found
import pytest
import spacy
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_mmcot.corpus.extensions import register_extensions, set_pairs
from spacy_mmcot.evaluation.predictions import collect_predictions
from spacy_mmcot.evaluation.scores import (
    compute_prf,
    count_entities,
    count_relations,
    score_entities,
    score_relations,
)
from spacy_mmcot.types import ID_KEY, Relation

NLP = spacy.blank("en")
register_extensions()


def doc_of(*entities: tuple[int, int, str], missing: int = 0) -> Doc:
    """TEXT with entities by token; the last `missing` tokens have no annotation."""
    doc = NLP.make_doc(found.TEXT)
    cut = len(doc) - missing
    doc.set_ents(
        [Span(doc, *entity) for entity in entities],
        outside=[doc[i : i + 1] for i in range(cut) if not any(s <= i < e for s, e, _ in entities)],
        default="missing",
    )
    return doc


def drawn(dice: random.Random) -> list[tuple[int, int, str]]:
    return [
        (i, i + dice.randint(1, 2), dice.choice(found.LABELS))
        for i in range(0, 11, 2)
        if dice.random() < 0.6
    ]


def drawn_doc(dice: random.Random, *, judged: bool, missing: int) -> Doc:
    doc = doc_of(*(e for e in drawn(dice) if e[1] <= 12 - missing), missing=missing)
    pairs = [(h, t) for h in doc.ents for t in doc.ents if h != t and dice.random() < 0.4]
    doc._.mmcot_rel = [Relation(h, t, dice.choice("xy"), 0.5) for h, t in pairs]
    if judged:
        others = [(h, t) for h in doc.ents for t in doc.ents if h != t and dice.random() < 0.3]
        set_pairs(doc, others)
    return doc


@pytest.mark.parametrize("seed", range(8))
def test_scores_of_records_are_those_of_examples(seed: int) -> None:
    """Half-labelled Docs and pairs that nobody judged among them."""
    dice = random.Random(seed)
    examples = [
        Example(
            drawn_doc(dice, judged=False, missing=0),
            drawn_doc(dice, judged=seed % 2 == 0, missing=dice.choice([0, 0, 4])),
        )
        for _ in range(30)
    ]
    examples.append(Example(drawn_doc(dice, judged=False, missing=0), NLP.make_doc(found.TEXT)))
    # Some findings must be right.
    for example in examples[:10]:
        example.predicted.set_ents(
            [
                Span(example.predicted, e.start, e.end, label=e.label)
                for e in example.reference.ents
            ],
            default="outside",
        )
    records = collect_predictions(examples)
    expected = score_entities(examples)
    assert compute_prf("ents", count_entities(records).sum(axis=0)) == pytest.approx(
        {key: expected[key] for key in ("ents_p", "ents_r", "ents_f")}
    )
    related = score_relations(examples)
    assert compute_prf("rel_e2e", count_relations(records).sum(axis=0)) == pytest.approx(
        {f"rel_e2e_{key}": related[f"rel_e2e_{key}"] for key in "prf"}
    )


def test_what_a_record_holds() -> None:
    gold, predicted = doc_of((0, 1, "PER"), (2, 4, "LOC")), doc_of((0, 1, "PER"))
    predicted.ents[0]._.mmcot_score = 0.75
    predicted._.mmcot_confidence = 0.5
    gold.user_data[ID_KEY] = "post 7"
    gold._.mmcot_rel = [Relation(gold.ents[0], gold.ents[1], "at", 1.0)]
    predicted._.mmcot_rel = []
    (record,) = collect_predictions([Example(predicted, gold)])
    assert record == found.predicted(
        "post 7",
        [found.word(0), found.word(2, 3, "LOC")],
        [(*found.word(0), 0.75)],
        gold_relations=[found.related(found.word(0), found.word(2, 3))],
        relations=[],
        confidence=0.5,
    )


def test_what_nobody_labelled_or_looked_for_is_none() -> None:
    record = collect_predictions([Example(doc_of((0, 1, "PER")), NLP.make_doc(found.TEXT))])[0]
    assert (record.gold, record.gold_relations, record.relations) == (None, None, None)
    assert record.confidence is None and record.entities[0].score is None
    assert record.id == "0"


def test_entities_that_the_pipeline_was_given_are_no_findings() -> None:
    gold, predicted = (doc_of((0, 1, "PER"), (2, 3, "LOC")) for _ in range(2))
    for doc in (gold, predicted):
        doc._.mmcot_rel = [Relation(doc.ents[0], doc.ents[1], "at", 1.0)]
    (record,) = collect_predictions([Example(predicted, gold)], finds_entities=False)
    assert record.gold is None and record.entities == []
    assert count_relations([record]).tolist() == [[1, 1, 1]]

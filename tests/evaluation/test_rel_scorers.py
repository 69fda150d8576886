"""Relation scores count every gold relation and nothing that nobody judged."""

from __future__ import annotations

import random
from collections import Counter
from itertools import permutations
from typing import Any

import pytest
import spacy
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_mmcot.corpus.extensions import list_relations, register_extensions, set_pairs
from spacy_mmcot.evaluation.scores import score_relations
from spacy_mmcot.types import Relation

register_extensions()
NLP = spacy.blank("en")
LABELS = ("in", "of", "peer")
Rel = tuple[int, int, str]


def make(
    entities: str,
    relations: list[Rel] | None = None,
    pairs: list[tuple[int, int]] | None = None,
) -> Doc:
    """A Doc of one-token mentions: "P L - O" is a PER, a LOC, no entity, an ORG."""
    names = {"P": "PER", "L": "LOC", "O": "ORG"}
    kinds = entities.split()
    doc = Doc(NLP.vocab, words=["w"] * len(kinds))
    doc.set_ents(
        [Span(doc, i, i + 1, label=names[k]) for i, k in enumerate(kinds) if k != "-"],
        default="outside",
    )
    if relations is not None:
        doc._.mmcot_rel = [
            Relation(doc[h : h + 1], doc[t : t + 1], label, 0.5) for h, t, label in relations
        ]
    if pairs is not None:
        set_pairs(doc, [(doc[h : h + 1], doc[t : t + 1]) for h, t in pairs])
    return doc


def proposals(*relations: Rel) -> list[tuple[int, int, int, int, str, float]]:
    return [(2 * h, 2 * h + 1, 2 * t, 2 * t + 1, label, 0.5) for h, t, label in relations]


def end_to_end(*rows: tuple[Doc, Doc]) -> dict[str, Any]:
    return score_relations([Example(predicted, gold) for predicted, gold in rows])


def prf(scores: dict[str, Any], prefix: str) -> list[float]:
    return [scores[f"{prefix}_{key}"] for key in "prf"]


def test_end_to_end_by_hand() -> None:
    gold = make("P L O P", [(0, 1, "in"), (0, 2, "of"), (3, 2, "of"), (0, 3, "peer")])
    # One right, one with another label, one whose head has another type, one turned around.
    predicted = make("P L O L", [(0, 1, "in"), (0, 2, "peer"), (3, 2, "of"), (3, 0, "peer")])
    scores = end_to_end((predicted, gold))
    assert prf(scores, "rel_e2e") == pytest.approx([1 / 4, 1 / 4, 1 / 4])
    per_type = scores["rel_e2e_per_type"]
    assert per_type["in"] == {"p": 1.0, "r": 1.0, "f": 1.0}
    assert per_type["of"] == per_type["peer"] == {"p": 0.0, "r": 0.0, "f": 0.0}


def test_gold_relations_of_missed_mentions_count() -> None:
    gold = make("P L O", [(0, 1, "in"), (0, 2, "of")])
    scores = end_to_end((make("P L -", [(0, 1, "in")]), gold))
    assert prf(scores, "rel_e2e") == pytest.approx([1.0, 1 / 2, 2 / 3])


def test_a_doc_in_which_the_pipeline_set_no_relations_counts() -> None:
    gold = make("P L", [(0, 1, "in")])
    scores = end_to_end((make("P L", [(0, 1, "in")]), gold), (make("- -"), gold))
    assert scores["rel_e2e_r"] == pytest.approx(1 / 2)


def test_relations_in_a_doc_that_has_none_are_wrong() -> None:
    scores = end_to_end((make("P L", [(0, 1, "in")]), make("P L", [])))
    assert prf(scores, "rel_e2e") == [0.0, 0.0, 0.0]


def test_what_nobody_judged_is_neither_right_nor_wrong() -> None:
    gold = make("P L O", [(0, 1, "in")], pairs=[(0, 1), (0, 2)])
    hit = (0, 1, "in")
    assert end_to_end((make("P L O", [hit, (1, 0, "of")]), gold))["rel_e2e_p"] == 1.0
    # Judged, and found to have no relation.
    assert end_to_end((make("P L O", [hit, (0, 2, "of")]), gold))["rel_e2e_p"] == 0.5
    # The mention of another type, and the one that is none, are wrong whoever judged the pair.
    assert end_to_end((make("P L P", [hit, (1, 2, "of")]), gold))["rel_e2e_p"] == 0.5
    other = make("P L O -", [hit], pairs=[(0, 1)])
    assert end_to_end((make("P L O P", [hit, (1, 3, "of")]), other))["rel_e2e_p"] == 0.5


def test_unlabelled_docs_do_not_count() -> None:
    gold, found = make("P L", [(0, 1, "in")]), [(0, 1, "in")]
    examples = [Example(make("P L", found), gold), Example(make("P L", found), make("P L"))]
    scores = score_relations(examples, on_gold_mentions=[proposals((0, 1, "in"))] * 2)
    assert prf(scores, "rel_e2e") == prf(scores, "rel") == [1.0, 1.0, 1.0]
    assert scores["rel_confusion"] == {"in": {"in": 1}, "None": {"None": 1}}


def test_no_labelled_doc_is_no_score() -> None:
    examples = [Example(make("P L", [(0, 1, "in")]), make("P L"))]
    scores = score_relations(examples, on_gold_mentions=[[]])
    assert len(scores) == 11
    assert set(scores.values()) == {None}
    assert score_relations([])["rel_e2e_f"] is None


def test_without_proposals_the_other_protocol_is_absent() -> None:
    scores = end_to_end((make("P L", []), make("P L", [])))
    assert set(scores) == {"rel_e2e_p", "rel_e2e_r", "rel_e2e_f", "rel_e2e_per_type"}


def test_gold_mentions_by_hand() -> None:
    closed = make("P L O", [(0, 1, "in"), (0, 2, "of"), (2, 1, "in")])
    judged = make("P L P", [(0, 1, "in")], pairs=[(0, 1), (0, 2)])
    found = [
        # Right; another label; missed; where there is none.
        proposals((0, 1, "in"), (0, 2, "peer"), (1, 0, "of")),
        # Right; where there is none; what nobody judged.
        proposals((0, 1, "in"), (0, 2, "peer"), (2, 0, "of")),
    ]
    examples = [Example(make("- - -"), closed), Example(make("- - -"), judged)]
    scores = score_relations(examples, on_gold_mentions=found)
    assert prf(scores, "rel") == pytest.approx([2 / 5, 2 / 4, 4 / 9])
    assert scores["rel_per_type"]["in"] == pytest.approx({"p": 1.0, "r": 2 / 3, "f": 4 / 5})
    # `peer` is in no gold relation.
    assert scores["rel_macro_f"] == pytest.approx((4 / 5 + 0.0) / 2)
    assert scores["rel_confusion"] == {
        "in": {"in": 2, "None": 1},
        "of": {"peer": 1},
        "None": {"None": 2, "of": 1, "peer": 1},
    }
    assert prf(scores, "rel_e2e")[1] == 0.0


def test_a_gold_relation_between_what_is_no_entity_counts() -> None:
    gold = make("P -", [(0, 1, "in")])
    scores = score_relations([Example(make("P -", []), gold)], on_gold_mentions=[[]])
    assert scores["rel_confusion"] == {"in": {"None": 1}}
    assert scores["rel_r"] == scores["rel_e2e_r"] == 0.0


def test_proposals_must_match_the_examples() -> None:
    with pytest.raises(ValueError):
        score_relations([Example(make("P"), make("P", []))], on_gold_mentions=[])


def random_relations(generator: random.Random, pairs: list[tuple[int, int]]) -> list[Rel]:
    chosen = [pair for pair in pairs if generator.random() < 0.3]
    return [(h, t, generator.choice(LABELS)) for h, t in chosen]


@pytest.mark.parametrize("seed", range(30))
def test_brute_force_recount(seed: int) -> None:
    """Walk over every ordered pair of every Doc and label and count by definition."""
    generator = random.Random(seed)
    examples, found = [], []
    e2e: Counter[str] = Counter()
    gold_mentions: Counter[str] = Counter()
    confusion: Counter[tuple[str, str]] = Counter()
    for _ in range(6):
        n = generator.randint(1, 5)
        kinds = [generator.choice("PLO-") for _ in range(n)]
        changed = [k if generator.random() < 0.7 else generator.choice("PLO-") for k in kinds]
        places = [i for i, kind in enumerate(kinds) if kind != "-"]
        every = list(permutations(places, 2))
        pairs = None if generator.random() < 0.5 else [p for p in every if generator.random() < 0.6]
        labelled = generator.random() < 0.8
        gold = random_relations(generator, every if pairs is None else pairs)
        predicted_places = [i for i, kind in enumerate(changed) if kind != "-"]
        predicted = random_relations(generator, list(permutations(predicted_places, 2)))
        proposed = random_relations(generator, every)
        reference = make(" ".join(kinds), gold if labelled else None, pairs)
        examples.append(Example(make(" ".join(changed), predicted), reference))
        found.append(proposals(*proposed))
        if not labelled:
            continue
        for h, t in permutations(range(n), 2):
            is_judged = (h, t) in (every if pairs is None else pairs)
            same = all(kinds[i] == changed[i] != "-" for i in (h, t))
            for label in LABELS:
                right, said = (h, t, label) in gold, (h, t, label) in predicted
                e2e["tp"] += right and said and same
                e2e["fp"] += said and (not (right and same) if is_judged else not same)
                e2e["fn"] += right and not (said and same)
                said = (h, t, label) in proposed and is_judged
                gold_mentions["tp"] += right and said
                gold_mentions["fp"] += said and not right
                gold_mentions["fn"] += right and not said
            if is_judged:
                names = [
                    next((label for a, b, label in relations if (a, b) == (h, t)), "None")
                    for relations in (gold, proposed)
                ]
                confusion[names[0], names[1]] += 1
    scores = score_relations(examples, on_gold_mentions=found)
    if any(list_relations(eg.reference) is not None for eg in examples):
        for prefix, count in (("rel_e2e", e2e), ("rel", gold_mentions)):
            tp, fp, fn = count["tp"], count["fp"], count["fn"]
            expected = [
                tp / max(1, tp + fp),
                tp / max(1, tp + fn),
                2 * tp / max(1, 2 * tp + fp + fn),
            ]
            assert prf(scores, prefix) == pytest.approx(expected)
    confusions = scores["rel_confusion"] or {}
    flat = {(g, p): n for g, row in confusions.items() for p, n in row.items()}
    assert flat == dict(confusion)


def test_it_is_registered() -> None:
    assert spacy.registry.scorers.get("spacy_mmcot.rel_scorer.v1")() is score_relations

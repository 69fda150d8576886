"""Scores count every gold mention, and both scorers agree on what a hit is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import seqeval.metrics.v1
import spacy
import toy
from seqeval.scheme import IOB2
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_mmcot.evaluation.scores import score_entities, score_seqeval

LABELS = ("LOC", "ORG", "PER")


def random_entities(doc: Doc, generator: random.Random) -> list[Span]:
    spans, start = [], 0
    while start < len(doc):
        end = min(len(doc), start + generator.randint(1, 3))
        if generator.random() < 0.5:
            spans.append(Span(doc, start, end, label=generator.choice(LABELS)))
        start = end
    return spans


def annotated(nlp: Language, entities: list[tuple[int, int, str]], n_tokens: int = 6) -> Doc:
    doc = Doc(nlp.vocab, words=["w"] * n_tokens)
    doc.set_ents([Span(doc, start, end, label=label) for start, end, label in entities])
    return doc


def run_seqeval(data: list[Example]) -> list[float]:
    """seqeval's own precision, recall and F1, of tags a token."""

    def tag(doc: Doc) -> list[str]:
        return [f"{t.ent_iob_}-{t.ent_type_}" if t.ent_type_ else "O" for t in doc]

    gold, found = ([tag(getattr(eg, side)) for eg in data] for side in ("reference", "predicted"))
    scores = seqeval.metrics.v1.precision_recall_fscore_support(
        gold, found, average="micro", scheme=IOB2, zero_division=0
    )
    return [float(score) for score in scores[:3]]


@pytest.mark.parametrize("seed", range(40))
def test_seqeval_and_spacy_agree_on_random_mentions(seed: int) -> None:
    generator = random.Random(seed)
    nlp = spacy.blank("en")
    data = []
    for _ in range(generator.randint(1, 5)):
        words = ["w"] * generator.randint(1, 9)
        gold, predicted = Doc(nlp.vocab, words=words), Doc(nlp.vocab, words=words)
        spans = random_entities(gold, generator)
        gold.set_ents(spans, default="outside")
        kept = [span for span in spans if generator.random() < 0.6]
        if generator.random() < 0.5:
            copies = [Span(predicted, s.start, s.end, label=s.label_) for s in kept]
        else:
            copies = random_entities(predicted, generator)
        predicted.set_ents(copies, default="outside")
        data.append(Example(predicted, gold))
    ours, same = score_entities(data), score_seqeval(data)
    for key, theirs in zip("prf", run_seqeval(data), strict=True):
        assert same[f"seqeval_{key}"] == pytest.approx(theirs, abs=1e-9)
        assert same[f"seqeval_{key}"] == pytest.approx(ours[f"ents_{key}"] or 0.0, abs=1e-9)


def test_counts_by_hand() -> None:
    nlp = spacy.blank("en")
    gold = annotated(nlp, [(0, 2, "PER"), (3, 4, "LOC"), (4, 6, "ORG")])
    predicted = annotated(nlp, [(0, 2, "PER"), (3, 4, "ORG"), (4, 5, "ORG"), (5, 6, "ORG")])
    data = [Example(predicted, gold)]
    ours = score_entities(data)
    assert (ours["ents_p"], ours["ents_r"]) == (pytest.approx(1 / 4), pytest.approx(1 / 3))
    assert ours["ents_per_type"]["LOC"]["r"] == 0.0
    assert ours["ents_per_type"]["PER"] == {"p": 1.0, "r": 1.0, "f": 1.0}
    assert score_seqeval(data)["seqeval_f"] == pytest.approx(2 / 7)


def test_neighbours_of_one_label_are_two_mentions() -> None:
    nlp = spacy.blank("en")
    gold = annotated(nlp, [(0, 1, "PER"), (1, 2, "PER")])
    predicted = annotated(nlp, [(0, 2, "PER")])
    data = [Example(predicted, gold)]
    assert score_entities(data)["ents_f"] == score_seqeval(data)["seqeval_f"] == 0.0


def test_a_gold_doc_in_which_nothing_is_found_counts() -> None:
    nlp = spacy.blank("en")
    hit = annotated(nlp, [(0, 1, "PER")])
    missed = Example(annotated(nlp, []), annotated(nlp, [(0, 1, "PER"), (2, 3, "PER")]))
    data = [Example(hit, hit), missed]
    assert score_entities(data)["ents_r"] == pytest.approx(1 / 3)
    assert score_seqeval(data)["seqeval_r"] == pytest.approx(1 / 3)


def test_predictions_in_a_doc_without_entities_count() -> None:
    nlp = spacy.blank("en")
    hit = annotated(nlp, [(0, 1, "PER")])
    data = [Example(hit, hit), Example(annotated(nlp, [(0, 1, "PER")]), annotated(nlp, []))]
    assert score_entities(data)["ents_p"] == score_seqeval(data)["seqeval_p"] == 0.5


def test_docs_without_annotation_do_not_count() -> None:
    nlp = spacy.blank("en")
    hit = annotated(nlp, [(0, 1, "PER")])
    bare = Doc(nlp.vocab, words=["w"] * 3)
    data = [Example(hit, hit), Example(annotated(nlp, [(0, 1, "PER")], 3), bare)]
    assert score_entities(data)["ents_f"] == score_seqeval(data)["seqeval_f"] == 1.0


def test_no_annotation_at_all_is_no_score() -> None:
    nlp = spacy.blank("en")
    data = [Example(annotated(nlp, [(0, 1, "PER")], 3), Doc(nlp.vocab, words=["w"] * 3))]
    assert score_entities(data)["ents_f"] is None
    assert score_seqeval(data)["seqeval_f"] == 0.0
    assert score_seqeval([])["seqeval_f"] == 0.0


def test_no_mention_on_either_side() -> None:
    nlp = spacy.blank("en")
    data = [Example(annotated(nlp, []), annotated(nlp, []))]
    assert score_seqeval(data) == {"seqeval_p": 0.0, "seqeval_r": 0.0, "seqeval_f": 0.0}


def test_the_registered_scorer_is_the_components_own(toy_model: Path) -> None:
    trained = spacy.load(toy_model)
    scorer = spacy.registry.scorers.get("spacy_mmcot.ner_scorer.v1")()
    data = toy.examples(trained)
    for example, doc in zip(data, trained.pipe(toy.texts()), strict=True):
        example.predicted = doc
    expected = trained.evaluate(toy.examples(trained))
    assert scorer(data)["ents_f"] == expected["ents_f"] == 1.0
    config = trained.config["components"]["mmcot_ner"]
    assert config["scorer"] == {"@scorers": "spacy_mmcot.ner_scorer.v1"}
    assert trained.get_pipe("mmcot_ner").score(data) == scorer(data)


def test_score_weights_choose_by_f(toy_model: Path) -> None:
    trained = spacy.load(toy_model)
    weights = trained.config["training"]["score_weights"]
    meta = trained.get_pipe_meta("mmcot_ner").default_score_weights
    assert meta["ents_f"] == 1.0
    assert {"ents_p", "ents_r", "ents_per_type"} <= set(meta)
    assert set(weights) <= set(meta)

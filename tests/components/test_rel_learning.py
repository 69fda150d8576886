"""What `mmcot_rel` learns from: gold pairs, found mentions, soft relations, and their shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import torch
import toy
import toy_rel
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Adam

from spacy_mmcot.components.pairs import Target
from spacy_mmcot.corpus.extensions import copy_tokens, set_pairs
from spacy_mmcot.distillation.soft_labels import (
    SoftRelations,
    get_soft_relations,
    set_soft_relations,
)
from spacy_mmcot.distillation.teach import teach
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model.bridge import torch_shim
from spacy_mmcot.types import DocPairs


def taught(nlp: Language, sharpness: float = 0.9) -> list[Example]:
    """The toy corpus without any annotation, the truth as a teacher's distributions."""
    columns = ["None", *toy_rel.LABELS]
    examples = []
    for labelled in toy_rel.references(nlp):
        mentions = [(ent.start_char, ent.end_char, ent.label_) for ent in labelled.ents]
        pairs = [(h, t) for h in range(len(mentions)) for t in range(len(mentions)) if h != t]
        rows = numpy.full((len(pairs), 4), (1 - sharpness) / 3, dtype="float32")
        for row, (h, t) in enumerate(pairs):
            true = "None"
            for head, tail, label, _ in labelled._.mmcot_rel:
                if (head, tail) == (labelled.ents[h], labelled.ents[t]):
                    true = label
            rows[row, columns.index(true)] = sharpness
        reference = nlp.make_doc(labelled.text)
        soft = SoftRelations(
            list(toy_rel.LABELS), mentions, numpy.array(pairs, dtype="int64").reshape(-1, 2), rows
        )
        set_soft_relations(reference, soft)
        examples.append(Example(nlp.make_doc(labelled.text), reference))
    return examples


def judged(target: Target) -> dict[tuple[str, str], int]:
    """The gold of each pair that was judged, by the texts of head and tail."""
    _, mentions, pairs = target.entry
    text = [mention.text for mention in mentions]
    rows = zip(pairs.tolist(), target.gold.tolist(), strict=True)
    return {(text[h], text[t]): label for (h, t), label in rows if label >= 0}


def target(nlp: Language, predicted: Doc, reference: Doc) -> Target:
    component = toy_rel.component(nlp)
    component.negatives = None
    (found,) = component.build_targets([Example(predicted, reference)])
    return found


def bo_works_for_anna(nlp: Language) -> Doc:
    relations = [("Anna", "Bo", "employs")]
    return toy_rel.annotated(nlp, "Bo works for Anna in Rome", ["Bo", "Anna", "Rome"], relations)


def test_loss_falls() -> None:
    nlp = toy_rel.initialised()
    data = toy_rel.examples(nlp)
    first = toy_rel.loss(nlp, data)
    last = toy.fit(nlp, data, steps=30)["mmcot_rel"]
    assert 0 <= last < 0.05 * first
    result = nlp.evaluate(data)
    assert (result["rel_f"], result["rel_e2e_f"]) == (1.0, 1.0)


def test_losses_add_up_and_update_without_optimizer_changes_nothing() -> None:
    nlp = toy_rel.initialised(negatives=None)
    data = toy_rel.examples(nlp)
    component = toy_rel.component(nlp)
    losses = component.update(data)
    assert losses["mmcot_rel"] > 0
    again = component.update(data, losses={"mmcot_rel": 10.0, "other": 1.0})
    assert again == pytest.approx({"mmcot_rel": 10.0 + losses["mmcot_rel"], "other": 1.0}, rel=1e-5)


def test_empty_docs_in_a_batch() -> None:
    nlp = toy_rel.initialised(negatives=None)
    data = toy_rel.examples(nlp)
    alone = toy_rel.loss(nlp, data)

    def empty() -> Example:
        return Example(Doc(nlp.vocab), Doc(nlp.vocab))

    assert toy_rel.loss(nlp, [empty(), *data, empty()]) == pytest.approx(alone, rel=1e-5)
    assert toy_rel.loss(nlp, [empty(), empty()]) == 0.0
    assert toy_rel.loss(nlp, []) == 0.0


def test_a_batch_without_pairs_of_a_transformer_still_trains_the_encoder(bert: Path) -> None:
    """mmcot_rel stands last: the encoder learns when its last listener answers."""
    nlp = toy_rel.transformer_pipeline(bert)
    toy.fix_random_seed(0)
    nlp.initialize(lambda: toy_rel.examples(nlp))
    lonely = [eg for eg in toy_rel.examples(nlp) if len(eg.reference.ents) < 2]
    lonely.append(Example(Doc(nlp.vocab), Doc(nlp.vocab)))
    assert len(lonely) == 3
    module = torch_shim(nlp.get_pipe("transformer").model).module
    before = {name: tensor.clone() for name, tensor in module.named_parameters()}
    losses = nlp.update(lonely, sgd=False, losses={})  # type: ignore[arg-type]
    nlp.get_pipe("transformer").finish_update(Adam(0.01))
    assert losses["mmcot_ner"] > 0
    assert losses["mmcot_rel"] == 0.0
    changed = [n for n, tensor in module.named_parameters() if not torch.equal(tensor, before[n])]
    assert any("layer.0" in name for name in changed), changed


def test_gold_mentions_where_nothing_has_set_entities() -> None:
    nlp = toy_rel.initialised()
    reference = bo_works_for_anna(nlp)
    assert judged(target(nlp, nlp.make_doc(reference.text), reference)) == {
        ("Bo", "Anna"): 0,
        ("Anna", "Bo"): 3,
        **{pair: 0 for name in ("Bo", "Anna") for pair in ((name, "Rome"), ("Rome", name))},
    }


def test_found_mentions_where_something_has() -> None:
    """What an annotating component missed teaches nothing; what it invented has no relation."""
    nlp = toy_rel.initialised()
    reference = bo_works_for_anna(nlp)
    predicted = nlp.make_doc(reference.text)
    spans = [predicted.char_span(0, 2, label="LOC"), predicted.char_span(3, 8, label="PER")]
    predicted.set_ents(spans, default="outside")
    assert judged(target(nlp, predicted, reference)) == {("Bo", "works"): 0, ("works", "Bo"): 0}
    predicted.set_ents([*spans, predicted.char_span(13, 17, label="PER")], default="outside")
    found = judged(target(nlp, predicted, reference))
    assert found.pop(("Anna", "Bo")) == 3
    assert list(found.values()) == [0] * 5
    predicted.set_ents([], default="outside")
    assert judged(target(nlp, predicted, reference)) == {}


def test_pairs_that_nobody_judged_teach_nothing() -> None:
    nlp = toy_rel.initialised()
    reference = bo_works_for_anna(nlp)
    bo, anna, rome = reference.ents
    set_pairs(reference, [(anna, bo), (bo, rome)])
    expected = {("Anna", "Bo"): 3, ("Bo", "Rome"): 0}
    assert judged(target(nlp, nlp.make_doc(reference.text), reference)) == expected
    predicted = toy_rel.with_entities(nlp, reference)
    assert judged(target(nlp, predicted, reference)) == expected
    # A mention that is none has no relation, whatever was judged.
    spans = [*predicted.ents, predicted.char_span(3, 8, label="PER")]
    predicted.set_ents(spans, default="outside")
    found = judged(target(nlp, predicted, reference))
    assert len(found) == 2 + 6
    assert all("works" in pair for pair in found if pair not in expected)


def test_a_gold_relation_outside_the_listed_pairs_is_learned_and_scored(
    trained_rel_cnn: Language,
) -> None:
    """A relation's own pair was judged, listed or not: for training, candidates and scores."""
    nlp = toy_rel.initialised()
    reference = bo_works_for_anna(nlp)
    bo, _, rome = reference.ents
    set_pairs(reference, [(bo, rome)])
    expected = {("Anna", "Bo"): 3, ("Bo", "Rome"): 0}
    found = toy_rel.with_entities(nlp, reference)
    for predicted in (nlp.make_doc(reference.text), found):
        assert judged(target(nlp, predicted, reference)) == expected
    scores = trained_rel_cnn.evaluate([Example(nlp.make_doc(reference.text), reference)])
    assert scores["rel_confusion"] == {"employs": {"employs": 1}, "None": {"None": 1}}
    assert (scores["rel_f"], scores["rel_e2e_f"]) == (1.0, 1.0)


def test_docs_without_relation_annotation_change_nothing() -> None:
    nlp = toy_rel.initialised(negatives=None)
    data = toy_rel.examples(nlp)
    bare = toy_rel.examples(nlp)
    for eg in bare:
        eg.reference.user_data.clear()
    assert toy_rel.loss(nlp, bare) == 0.0
    assert toy_rel.loss(nlp, [*data, *bare]) == pytest.approx(toy_rel.loss(nlp, data), rel=1e-5)


def test_another_tokenization_of_the_predicted_doc() -> None:
    """Gold mentions that are less than a token of the predicted Doc."""
    nlp = toy_rel.initialised()
    text = "Bo works for Anna-Lisa in Rome"
    reference = Doc(nlp.vocab, words=["Bo", "works", "for", "Anna", "-Lisa", "in", "Rome"])
    reference = Doc(
        nlp.vocab,
        words=[token.text for token in reference],
        spaces=[True, True, True, False, True, True, False],
        ents=["B-PER", "O", "O", "B-PER", "O", "O", "B-LOC"],
    )
    assert reference.text == text
    bo, anna, _ = reference.ents
    reference._.mmcot_rel = [(anna, bo, "employs", 1.0)]
    predicted = Doc(nlp.vocab, words=text.split())
    found = judged(target(nlp, predicted, reference))
    assert found[("Anna-Lisa", "Bo")] == 3
    eg = Example(predicted, reference)
    toy.fit(nlp, [eg], steps=20)
    assert toy_rel.component(nlp).score([eg])["rel_f"] == 1.0


def test_a_gold_label_that_was_not_initialised() -> None:
    nlp = toy_rel.initialised()
    reference = toy_rel.annotated(nlp, "Anna loves Bo", ["Anna", "Bo"], [("Anna", "Bo", "loves")])
    message = r"\[E603\] mmcot_rel: .*'loves'.*'banned_from', 'born_in', 'employs'"
    with pytest.raises(MMCoTError, match=message):
        nlp.update([Example(nlp.make_doc(reference.text), reference)])


def test_soft_relations_of_an_unknown_label() -> None:
    nlp = toy_rel.initialised()
    eg = taught(nlp)[3]
    eg.reference.user_data["mmcot_soft_relations"]["labels"][0] = "loves"
    with pytest.raises(MMCoTError, match=r"\[E500\] .*'loves'.*'born_in'"):
        nlp.update([eg])


def test_soft_relations_of_another_text() -> None:
    nlp = toy_rel.initialised()
    eg = taught(nlp)[3]
    other = nlp.make_doc("Bo")
    other.user_data.update(eg.reference.user_data)
    with pytest.raises(MMCoTError, match=r"\[E514\] .*'Bo'"):
        nlp.update([Example(nlp.make_doc("Bo"), other)])


def test_soft_relations_alone_teach() -> None:
    """Docs without entities and relations: the teacher's mentions, the teacher's pairs."""
    nlp = toy_rel.pipeline()
    data = taught(nlp)
    toy.fix_random_seed(0)
    nlp.initialize(lambda: data)
    component = toy_rel.component(nlp)
    assert component.labels == toy_rel.LABELS
    assert component.cfg["types"] == ["LOC", "PER"]
    toy.fit(nlp, data, steps=40)
    assert toy_rel.found(nlp.pipe(toy_rel.texts())) == toy_rel.gold()
    # The student takes over how sure the teacher is, not only what it says.
    scores = toy_rel.scores(nlp.pipe(toy_rel.texts()))
    assert numpy.median(scores) == pytest.approx(0.9, abs=0.05)


def test_soft_weight_0_ignores_soft_relations() -> None:
    nlp = toy_rel.initialised(soft_weight=0.0)
    assert toy_rel.loss(nlp, taught(nlp)) == 0.0


def test_soft_weight_scales_the_soft_loss() -> None:
    losses = []
    for weight in (1.0, 2.0):
        nlp = toy_rel.initialised(soft_weight=weight)
        losses.append(toy_rel.loss(nlp, taught(nlp)))
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-5)


def test_gold_and_soft_relations_on_one_doc_add_up() -> None:
    nlp = toy_rel.initialised(negatives=None)
    gold, soft, both = toy_rel.examples(nlp), taught(nlp), toy_rel.examples(nlp)
    for left, right in zip(both, soft, strict=True):
        left.reference.user_data.update({**right.reference.user_data, **left.reference.user_data})
    parts = [toy_rel.loss(nlp, data) for data in (gold, soft)]
    assert toy_rel.loss(nlp, both) == pytest.approx(sum(parts), rel=1e-5)


def test_a_teacher_speaks_of_pairs_that_nobody_judged() -> None:
    nlp = toy_rel.initialised()
    reference = toy_rel.annotated(nlp, "Anna employs Bo", ["Anna", "Bo"], [])
    anna, bo = reference.ents
    set_pairs(reference, [(bo, anna)])
    pairs = numpy.array([(0, 1), (1, 0)])
    rows = numpy.array([[0, 0, 0, 1.0], [1.0, 0, 0, 0]], dtype="float32")
    mentions = [(0, 4, "PER"), (13, 15, "PER")]
    set_soft_relations(reference, SoftRelations(list(toy_rel.LABELS), mentions, pairs, rows))
    predicted = toy_rel.with_entities(nlp, reference)
    found = target(nlp, predicted, reference)
    assert judged(found) == {("Bo", "Anna"): 0}
    assert found.soft.any(axis=1).all()
    assert found.soft[found.gold < 0].tolist() == [[0, 0, 0, 1]]


@pytest.mark.parametrize(("negatives", "expected"), [(None, 20), (1.0, 4), (0.5, 2), (0.0, 0)])
def test_negatives_are_drawn_down_to_their_share(negatives: Any, expected: int) -> None:
    nlp = toy_rel.initialised(negatives=negatives)
    data = [eg for eg in toy_rel.examples(nlp) if " works for " in eg.text][:4]
    batch = toy_rel.component(nlp).build_targets(data)
    gold = numpy.concatenate([t.gold for t in batch])
    assert (gold > 0).sum() == 4
    assert (gold == 0).sum() == expected
    assert len(gold) == 4 + expected


def test_which_negatives_are_left_out_changes_from_batch_to_batch() -> None:
    nlp = toy_rel.initialised(negatives=1.0)
    data = toy_rel.examples(nlp)
    draws = [
        numpy.concatenate([t.gold for t in toy_rel.component(nlp).build_targets(data)])
        for _ in range(2)
    ]
    assert (draws[0] == 0).sum() == (draws[1] == 0).sum()
    assert not numpy.array_equal(*draws)
    # A batch without a relation keeps some, so that it too says what is none.
    none = [eg for eg in data if not eg.reference._.mmcot_rel]
    gold = numpy.concatenate([t.gold for t in toy_rel.component(nlp).build_targets(none)])
    assert (gold == 0).sum() == 1


def skewed(nlp: Language) -> list[Example]:
    """One text with two answers, nine times the one and once the other."""
    labels = ["born_in"] * 9 + ["banned_from"]
    docs = [
        toy_rel.annotated(nlp, "Bo in Rome", ["Bo", "Rome"], [("Bo", "Rome", x)]) for x in labels
    ]
    for doc in docs:
        set_pairs(doc, [doc.ents])  # type: ignore[list-item]
    return [Example(nlp.make_doc(doc.text), doc) for doc in docs]


@pytest.mark.parametrize(("strength", "expected"), [(0.0, 0.9), (1.0, 0.6)])
def test_prior_strength_makes_up_for_frequencies(strength: float, expected: float) -> None:
    """With both answers equally frequent a text that does not tell gets each with 1/2; here
    nearly so, since every label counts once more than it was seen."""
    nlp = toy_rel.pipeline(prior_strength=strength)
    data = skewed(nlp)
    toy.fix_random_seed(0)
    nlp.initialize(lambda: data)
    component = toy_rel.component(nlp)
    counts = numpy.array([1, 2, 10])
    numpy.testing.assert_allclose(numpy.exp(component.cfg["log_prior"]), counts / counts.sum())
    toy.fit(nlp, data, steps=100, rate=0.005)
    doc = toy_rel.with_entities(nlp, data[0].reference)
    set_pairs(doc, [doc.ents])  # type: ignore[list-item]
    (soft,) = component.predict_soft_relations([doc])
    likely = soft.probabilities[0, 1:]
    assert likely[1] / likely.sum() == pytest.approx(expected, abs=0.12)


@pytest.mark.parametrize("strength", [0.0, 0.7])
@pytest.mark.parametrize("legal", [None, toy_rel.LEGAL])
def test_gradient_against_finite_differences(strength: float, legal: Any) -> None:
    nlp = toy_rel.initialised(prior_strength=strength, negatives=None, legal=legal)
    component = toy_rel.component(nlp)
    data = [*toy_rel.examples(nlp)[2:4], toy_rel.examples(nlp)[5], taught(nlp, sharpness=0.6)[6]]
    data.append(Example(Doc(nlp.vocab), Doc(nlp.vocab)))
    batch = component.build_targets(data)
    generator = numpy.random.default_rng(0)
    logits = [generator.normal(size=t.allowed.shape).astype("float32") for t in batch]
    _, gradient = component.get_loss(data, (batch, logits))
    assert [array.shape for array in gradient] == [array.shape for array in logits]
    h = 1e-2
    for doc, array in enumerate(logits):
        for place in numpy.ndindex(*array.shape):
            moved = []
            for sign in (1, -1):
                changed = [a.copy() for a in logits]
                changed[doc][place] += sign * h
                moved.append(component.get_loss(data, (batch, changed))[0])
            slope = (moved[0] - moved[1]) / (2 * h)
            assert gradient[doc][place] == pytest.approx(slope, abs=2e-3)


def test_the_encoder_learns_too() -> None:
    nlp = toy_rel.initialised()
    tok2vec = toy_rel.component(nlp).model.layers[0]
    doc = nlp.make_doc("Anna")
    before = tok2vec.predict([doc])[0].copy()
    toy.fit(nlp, toy_rel.examples(nlp), steps=3)
    assert not numpy.allclose(before, tok2vec.predict([doc])[0])


def test_score_gives_both_protocols(rel_folder: Callable[[str], Path]) -> None:
    """A pipeline that finds no mention: end to end relations are lost, on gold mentions not."""
    nlp = spacy.load(rel_folder("cnn"), exclude=["entity_ruler"])
    data = toy_rel.examples(nlp)
    result = nlp.evaluate(data)
    assert (result["rel_f"], result["rel_e2e_f"]) == (1.0, 0.0)
    wrong = [Example(nlp.make_doc(eg.text), eg.reference) for eg in data]
    for eg in wrong:
        eg.reference._.mmcot_rel = [r._replace(label="born_in") for r in eg.reference._.mmcot_rel]
    assert 0 < nlp.evaluate(wrong)["rel_f"] < 1


def test_scores_count_judged_pairs_alone(trained_rel_cnn: Language) -> None:
    nlp = trained_rel_cnn
    reference = toy_rel.annotated(nlp, "Anna employs Bo", ["Anna", "Bo"], [])
    anna, bo = reference.ents
    eg = Example(nlp.make_doc(reference.text), reference)
    assert nlp.evaluate([eg])["rel_confusion"] == {"None": {"employs": 1, "None": 1}}
    set_pairs(reference, [(bo, anna)])
    eg = Example(nlp.make_doc(reference.text), reference)
    assert nlp.evaluate([eg])["rel_confusion"] == {"None": {"None": 1}}


def test_evaluation_without_a_scorer() -> None:
    nlp = toy_rel.initialised(scorer=None)
    result = nlp.evaluate(toy_rel.examples(nlp))
    assert not [key for key in result if key.startswith("rel")]
    assert result["ents_f"] == 1.0


def test_unlabelled_data_scores_none(trained_rel_cnn: Language) -> None:
    nlp = trained_rel_cnn
    docs: Iterable[Doc] = [nlp.make_doc(text) for text in toy_rel.texts()]
    result = nlp.evaluate([Example(nlp.make_doc(doc.text), doc) for doc in docs])
    assert (result["rel_f"], result["rel_e2e_f"]) == (None, None)


def test_gold_mentions_are_scored_in_the_tokens_of_the_reference(
    trained_rel_cnn: Language,
) -> None:
    nlp = trained_rel_cnn
    data = toy_rel.examples(nlp)
    predictions = toy_rel.component(nlp).predict_on_gold_mentions(data)
    for eg, found in zip(data, predictions, strict=True):
        assert all(p.head.doc is p.tail.doc is eg.reference for p in found)
        named = [(p.head.text, p.tail.text, p.label) for p in found]
        assert named == toy_rel.names(eg.reference)


def test_no_pair_at_all_in_training() -> None:
    """A batch of labelled docs without two mentions."""
    nlp = toy_rel.initialised()
    data = [eg for eg in toy_rel.examples(nlp) if len(eg.reference.ents) < 2]
    assert nlp.update(data, losses={}) == {"mmcot_rel": 0.0}
    (entry,) = (t.entry for t in toy_rel.component(nlp).build_targets(data[:1]))
    assert isinstance(entry, DocPairs) and len(entry.pairs) == 0


def test_a_teacher_reads_what_the_text_does_not_say(bert: Path) -> None:
    """One text, two conclusions: they alone decide, and without them there is no way to."""
    nlp = toy_rel.teacher(bert)
    docs = []
    for label in ("employs", "knows") * 2:
        doc = toy_rel.annotated(nlp, "Bo and Anna", ["Bo", "Anna"], [("Bo", "Anna", label)])
        places = {"head": "Bo", "head_start": 0, "tail": "Anna", "tail_start": 7}
        concluded = {**places, "label": label, "sure": "high"}
        doc._.mmcot_knowledge = {"conclusion": {"relations": [concluded]}}
        docs.append(doc)
    data = [Example(copy_tokens(doc), doc) for doc in docs]
    toy.fix_random_seed(0)
    nlp.initialize(lambda: data)
    toy.fit(nlp, data, steps=40, rate=0.003)
    nlp.from_bytes(nlp.to_bytes())
    assert nlp.evaluate(data)["rel_f"] == 1.0
    blind = [Example(nlp.make_doc(doc.text), doc) for doc in docs]
    assert nlp.evaluate(blind)["rel_f"] <= 0.5
    # It says nothing where it has nothing to start from.
    silent = toy_rel.annotated(nlp, "Bo and Anna", ["Bo", "Anna"], [])
    taught = list(teach(nlp, [docs[0], silent]))
    assert [get_soft_relations(doc) is None for doc in taught] == [False, True]

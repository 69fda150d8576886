"""What `mmcot_ner` learns from: complete and partial annotation, soft labels, both, neither."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import toy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from spacy_mmcot.distillation.soft_labels import set_soft_labels
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model.tagger import TagScores

HEADS = pytest.mark.parametrize("crf", [True, False], ids=["crf", "softmax"])


def one_hot(nlp: Language, sharpness: float = 0.9) -> list[Example]:
    """The toy corpus without annotation, the truth as a teacher's distributions."""
    tags = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    taught = []
    for eg in toy.examples(nlp):
        reference = nlp.make_doc(eg.text)
        rows = numpy.full((len(reference), len(tags)), (1 - sharpness) / (len(tags) - 1))
        for token in eg.reference:
            name = f"{token.ent_iob_}-{token.ent_type_}" if token.ent_type_ else "O"
            rows[token.i, tags.index(name)] = sharpness
        set_soft_labels(reference, tags, rows)
        taught.append(Example(nlp.make_doc(eg.text), reference))
    return taught


@HEADS
def test_loss_falls(crf: bool) -> None:
    nlp = toy.initialised(crf=crf)
    data = toy.examples(nlp)
    first = toy.loss(nlp, data)
    last = toy.fit(nlp, data, steps=30)["mmcot_ner"]
    assert 0 < last < 0.05 * first
    assert nlp.evaluate(data)["ents_f"] == 1.0


def test_losses_add_up_and_update_without_optimizer_changes_nothing() -> None:
    nlp = toy.initialised()
    data = toy.examples(nlp)
    component = nlp.get_pipe("mmcot_ner")
    losses = component.update(data)
    assert losses["mmcot_ner"] > 0
    again = component.update(data, losses={"mmcot_ner": 10.0, "other": 1.0})
    assert again["mmcot_ner"] == pytest.approx(10.0 + losses["mmcot_ner"], rel=1e-5)
    assert again["other"] == 1.0


def test_empty_docs_in_a_batch() -> None:
    nlp = toy.initialised()
    data = toy.examples(nlp)
    alone = toy.loss(nlp, data)

    def empty() -> Example:
        return Example.from_dict(Doc(nlp.vocab), {})

    mixed = toy.loss(nlp, [empty(), *data, empty()])
    assert mixed == pytest.approx(alone, rel=1e-5)
    assert nlp.update([empty(), empty()], losses={}) == {"mmcot_ner": 0.0}
    assert nlp.get_pipe("mmcot_ner").update([]) == {"mmcot_ner": 0.0}


def test_empty_docs_in_a_batch_of_a_transformer(bert: Any) -> None:
    nlp = toy.transformer_pipeline(bert, prompt="conditional", prompt_length=2)
    empty = Example.from_dict(Doc(nlp.vocab), {})
    data = [empty, *toy.examples(nlp), Example.from_dict(Doc(nlp.vocab), {})]
    toy.fix_random_seed(0)
    nlp.initialize(lambda: data)
    toy.fit(nlp, data, steps=60, rate=0.005)
    assert nlp.evaluate(data)["ents_f"] == 1.0
    losses = nlp.update([Example.from_dict(Doc(nlp.vocab), {})], losses={})
    assert losses["mmcot_ner"] == 0.0


def test_missing_tokens_are_not_called_outside() -> None:
    """Half of the tokens labelled: what is known is learned, what is missing is left open."""
    nlp = toy.initialised()
    doc = nlp.make_doc("Anna met Bo Diaz in Lima")
    partial = Example.from_dict(doc, {"entities": ["U-PER", "O", "-", "-", "O", "-"]})
    toy.fit(nlp, [partial], steps=30)
    probabilities = nlp.get_pipe("mmcot_ner").predict_marginals([nlp.make_doc(doc.text)])[0]
    tags = nlp.get_pipe("mmcot_ner").tags
    assert probabilities[0, tags.index("B-PER")] > 0.95
    assert probabilities[[1, 4], 0].min() > 0.95
    # Taught by the toy corpus in turn, the open tokens take its names: nothing speaks against.
    toy.fit(nlp, [partial, *toy.examples(nlp)], steps=60)
    assert {"Anna", "Lima"} <= {ent.text for ent in nlp(doc.text).ents}


def test_missing_tokens_give_no_gradient() -> None:
    """Of a softmax head, that is: a CRF carries what is known over to their neighbours."""
    nlp = toy.initialised(crf=False)
    component = nlp.get_pipe("mmcot_ner")
    doc = nlp.make_doc("Anna met Bo")
    eg = Example.from_dict(doc, {"entities": ["O", "-", "-"]})
    _, gradient = component.get_loss([eg], component.model.predict([doc]))
    emissions = gradient.emissions[0]
    assert abs(emissions[0]).max() > 0.1
    assert not emissions[1:].any()


@HEADS
def test_docs_without_any_annotation_change_nothing(crf: bool) -> None:
    nlp = toy.initialised(crf=crf)
    data = toy.examples(nlp)
    bare = [Example(nlp.make_doc(eg.text), nlp.make_doc(eg.text)) for eg in data]
    assert nlp.update(bare, losses={}) == {"mmcot_ner": 0.0}
    both = toy.loss(nlp, [*data, *bare])
    assert both == pytest.approx(toy.loss(nlp, data), rel=1e-5)


@HEADS
def test_soft_labels_alone_teach(crf: bool) -> None:
    nlp = toy.pipeline(crf=crf)
    data = one_hot(nlp)
    toy.fix_random_seed(0)
    nlp.initialize(lambda: data)
    toy.fit(nlp, data, steps=60)
    assert toy.found(nlp.pipe(toy.texts())) == toy.gold()
    # The student takes over how sure the teacher is, not only what it says.
    probabilities = nlp.get_pipe("mmcot_ner").predict_marginals([data[0].predicted])[0]
    assert probabilities[:, 0] == pytest.approx(0.9, abs=0.08)


def test_soft_weight_0_ignores_soft_labels() -> None:
    nlp = toy.initialised(soft_weight=0.0)
    assert nlp.update(one_hot(nlp), losses={}) == {"mmcot_ner": 0.0}


def test_soft_weight_scales_the_soft_loss() -> None:
    losses = []
    for weight in (1.0, 2.0):
        nlp = toy.initialised(soft_weight=weight)
        losses.append(toy.loss(nlp, one_hot(nlp)))
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-5)


def test_gold_and_soft_labels_on_one_doc_add_up() -> None:
    nlp = toy.initialised()
    gold, soft = toy.examples(nlp), one_hot(nlp)
    both = toy.examples(nlp)
    for left, right in zip(both, soft, strict=True):
        left.reference.user_data.update(right.reference.user_data)
    parts = [toy.loss(nlp, data) for data in (gold, soft)]
    assert toy.loss(nlp, both) == pytest.approx(sum(parts), rel=1e-5)


def test_soft_labels_of_another_tokenization() -> None:
    nlp = toy.initialised()
    tags = nlp.get_pipe("mmcot_ner").tags
    reference = Doc(nlp.vocab, words=["New York", "sings"])
    set_soft_labels(reference, tags, numpy.full((2, 5), 0.2))
    eg = Example(nlp.make_doc("New York sings"), reference)
    with pytest.raises(MMCoTError, match=r"\[E501\] .* cover 2 tokens, but the doc has 3"):
        nlp.update([eg])


def test_soft_labels_of_the_wrong_length() -> None:
    nlp = toy.initialised()
    tags = nlp.get_pipe("mmcot_ner").tags
    eg = Example(nlp.make_doc("New York sings"), nlp.make_doc("New York sings"))
    set_soft_labels(eg.reference, tags, numpy.full((4, 5), 0.2))
    with pytest.raises(MMCoTError, match=r"\[E501\] .* cover 4 tokens, but the doc has 3"):
        nlp.update([eg])


def test_soft_labels_of_an_unknown_label() -> None:
    nlp = toy.initialised()
    eg = Example(nlp.make_doc("Anna sings"), nlp.make_doc("Anna sings"))
    set_soft_labels(eg.reference, ["O", "B-PER", "I-PER", "B-ART", "I-ART"], numpy.eye(5)[:2])
    with pytest.raises(MMCoTError, match=r"\[E500\] .*'B-ART', 'I-ART'.*'B-LOC'"):
        nlp.update([eg])


def test_a_teacher_of_fewer_labels_may_teach() -> None:
    nlp = toy.initialised()
    eg = Example(nlp.make_doc("Anna sings"), nlp.make_doc("Anna sings"))
    set_soft_labels(eg.reference, ["B-PER", "I-PER", "O"], numpy.array([[1, 0, 0], [0, 0, 1.0]]))
    toy.fit(nlp, [eg], steps=40)
    assert [(ent.text, ent.label_) for ent in nlp("Anna sings").ents] == [("Anna", "PER")]


@HEADS
@pytest.mark.parametrize("soft_weight", [0.0, 0.7])
def test_gradient_against_finite_differences(crf: bool, soft_weight: float) -> None:
    nlp = toy.initialised(crf=crf, soft_weight=soft_weight)
    component = nlp.get_pipe("mmcot_ner")
    batch = toy.examples(nlp)[1:2]
    batch.append(Example.from_dict(Doc(nlp.vocab), {}))
    batch.append(Example.from_dict(nlp.make_doc("Bo Li in Rome"), {"entities": [*"-OO", "U-LOC"]}))
    batch += one_hot(nlp, sharpness=0.6)[4:5]
    generator = numpy.random.default_rng(0)
    shapes = [(len(eg.predicted), 5) for eg in batch]
    emissions = [generator.normal(size=shape).astype("float32") for shape in shapes]
    barred = component.model.predict([batch[0].predicted]).transitions
    steps = numpy.where(barred < -1e3, barred, generator.normal(size=barred.shape))
    steps = steps.astype("float32")

    def loss(emissions: list[Any], transitions: Any) -> float:
        return component.get_loss(batch, TagScores(emissions, transitions))[0]

    _, gradient = component.get_loss(batch, TagScores(emissions, steps))
    assert [array.shape for array in gradient.emissions] == shapes
    h = 1e-2
    for doc, array in enumerate(emissions):
        for index in numpy.ndindex(*array.shape):
            moved = [0.0, 0.0]
            for side, sign in enumerate((1, -1)):
                changed = [a.copy() for a in emissions]
                changed[doc][index] += sign * h
                moved[side] = loss(changed, steps)
            slope = (moved[0] - moved[1]) / (2 * h)
            assert gradient.emissions[doc][index] == pytest.approx(slope, abs=2e-3)
    if not crf:
        assert not gradient.transitions.any()
        return
    for index in zip(*numpy.nonzero(barred > -1e3), strict=True):
        moved = [0.0, 0.0]
        for side, sign in enumerate((1, -1)):
            changed_steps = steps.copy()
            changed_steps[index] += sign * h
            moved[side] = loss(emissions, changed_steps)
        slope = (moved[0] - moved[1]) / (2 * h)
        assert gradient.transitions[index] == pytest.approx(slope, abs=2e-3)


@HEADS
def test_transitions_are_learned_by_a_crf_alone(crf: bool) -> None:
    nlp = toy.initialised(crf=crf)
    data = toy.examples(nlp)
    model = nlp.get_pipe("mmcot_ner").model
    before = numpy.array(model.predict([data[0].predicted]).transitions)
    toy.fit(nlp, data, steps=5)
    after = numpy.array(model.predict([data[0].predicted]).transitions)
    assert numpy.array_equal(before, after) is not crf


@HEADS
def test_no_illegal_path_even_untrained(crf: bool) -> None:
    """BIO that begins with I- would be a mention without a beginning."""
    nlp = toy.initialised(crf=crf)
    head = nlp.get_pipe("mmcot_ner").model.get_ref("head").shims[0].module
    generator = numpy.random.default_rng(1)
    for _ in range(20):
        head.linear.bias.data[:] = head.linear.bias.data.new_tensor(generator.normal(0, 3, 5))
        for doc in nlp.pipe(toy.texts()):
            marginals = nlp.get_pipe("mmcot_ner").predict_marginals([doc])[0]
            assert marginals[0, 2] < 1e-6 and marginals[0, 4] < 1e-6
            for token in doc:
                if token.ent_iob_ == "I":
                    assert token.i and doc[token.i - 1].ent_type_ == token.ent_type_
            assert all(0 < score <= 1 for score in toy.scores(doc))


def test_the_encoder_learns_too() -> None:
    nlp = toy.initialised()
    tok2vec = nlp.get_pipe("mmcot_ner").model.get_ref("tok2vec")
    doc = nlp.make_doc("Anna")
    before = tok2vec.predict([doc])[0].copy()
    toy.fit(nlp, toy.examples(nlp), steps=3)
    assert not numpy.allclose(before, tok2vec.predict([doc])[0])


def test_a_shared_transformer_serves_a_second_component(bert: Any) -> None:
    """Any stock component can listen to the encoder, and both learn at once."""
    nlp = toy.transformer_pipeline(bert)
    nlp.add_pipe(
        "tagger",
        config={
            "model": {
                "@architectures": "spacy.Tagger.v2",
                "tok2vec": {**toy.LISTENER, "pooling": {"@layers": "reduce_mean.v1"}},
            }
        },
    )
    data = []
    for eg, (_, labels) in zip(toy.examples(nlp), toy.posts(), strict=True):
        tags = ["NAME" if token.text.istitle() else "WORD" for token in eg.reference]
        data.append(Example.from_dict(nlp.make_doc(eg.text), {**labels, "tags": tags}))
    toy.fix_random_seed(0)
    nlp.initialize(lambda: data)
    toy.fit(nlp, data, steps=250, rate=0.005)
    result = nlp.evaluate(data)
    assert result["ents_f"] == 1.0
    assert result["tag_acc"] > 0.95

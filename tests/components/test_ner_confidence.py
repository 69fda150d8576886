"""`doc._.mmcot_confidence`: the probability of the predicted tag sequence."""

from __future__ import annotations

import itertools

import numpy
import pytest
import spacy
import toy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span

from spacy_mmcot.components.ner import MMCoTNER

SHORT = ("Eve Li", "Eve Li in Oslo", "nobody", "Bo met Anna", "so be it")


def fitted(crf: bool) -> Language:
    """Fitted a little, so that no probability is near 1."""
    nlp = spacy.blank("en")
    nlp.add_pipe("mmcot_ner", config=toy.settings(crf=crf))
    data = toy.examples(nlp)
    toy.fix_random_seed(0)
    nlp.initialize(lambda: data)
    toy.fit(nlp, data, steps=4)
    return nlp


def component_of(nlp: Language) -> MMCoTNER:
    component = nlp.get_pipe("mmcot_ner")
    assert isinstance(component, MMCoTNER)
    return component


def is_legal(tags: tuple[str, ...]) -> bool:
    return all(
        after[0] != "I" or (before[0] in "BI" and before[2:] == after[2:])
        for before, after in itertools.pairwise(("O", *tags))
    )


def best_probability(component: MMCoTNER, doc: Doc) -> float:
    """By enumeration of all legal tag sequences."""
    arrays, transitions = component.score_tags([doc])
    emissions, transitions = arrays[0].astype("float64"), transitions.astype("float64")
    scores = []
    for path in itertools.product(range(len(component.tags)), repeat=len(doc)):
        if is_legal(tuple(component.tags[tag] for tag in path)):
            steps = [-1, *path, -1]
            score = sum(emissions[t, tag] for t, tag in enumerate(path))
            scores.append(score + sum(transitions[a, b] for a, b in itertools.pairwise(steps)))
    return float(numpy.exp(max(scores) - numpy.logaddexp.reduce(scores)))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("crf", [True, False], ids=["crf", "softmax"])
def test_against_all_tag_sequences(crf: bool, temperature: float) -> None:
    """One batch of Docs of several lengths, at the calibrated temperature."""
    nlp = fitted(crf)
    component = component_of(nlp)
    component.cfg["temperature"] = temperature
    docs = list(nlp.pipe(SHORT))
    expected = [best_probability(component, nlp.make_doc(text)) for text in SHORT]
    assert 0.01 < min(expected) < max(expected) < 0.999
    assert [doc._.mmcot_confidence for doc in docs] == pytest.approx(expected, rel=1e-4)


def test_mentions_under_the_threshold_are_left_out() -> None:
    nlp = fitted(crf=True)
    component = component_of(nlp)

    def find(threshold: float) -> list[list[tuple[int, int, str, float]]]:
        component.cfg["threshold"] = threshold
        docs = nlp.pipe(SHORT)
        return [[(e.start, e.end, e.label_, e._.mmcot_score) for e in d.ents] for d in docs]

    every = find(0.0)
    scores = sorted(score for found in every for *_, score in found)
    middle = scores[len(scores) // 2]
    assert scores[0] < middle
    assert find(middle) == [[m for m in found if m[-1] >= middle] for found in every]
    assert not any(find(1.0))


def test_one_token_under_a_softmax_head() -> None:
    """Its share among the tags that a Doc of one token can have: none of them is an I-."""
    nlp = fitted(crf=False)
    component = component_of(nlp)
    doc = nlp("Anna")
    emissions, _ = component.score_tags([nlp.make_doc("Anna")])
    legal = [i for i, tag in enumerate(component.tags) if tag[0] != "I"]
    shares = numpy.exp(emissions[0][0][legal])
    assert doc._.mmcot_confidence == pytest.approx(shares.max() / shares.sum(), rel=1e-5)


def test_one_by_one_as_in_a_batch(trained: Language) -> None:
    texts = [*toy.texts(), "", " \n "]
    batch = [doc._.mmcot_confidence for doc in trained.pipe(texts)]
    assert batch == pytest.approx([trained(text)._.mmcot_confidence for text in texts], rel=1e-4)
    assert all(0 < confidence <= 1 for confidence in batch)


def test_an_empty_doc_is_certain(trained: Language) -> None:
    assert trained("")._.mmcot_confidence == 1.0
    docs = list(trained.pipe(["", ""]))
    assert [doc._.mmcot_confidence for doc in docs] == [1.0, 1.0]


def test_none_before_the_component_ran(trained: Language) -> None:
    assert trained.make_doc("Anna sings")._.mmcot_confidence is None


def test_no_more_than_the_score_of_each_mention(trained: Language) -> None:
    """All mentions right is no likelier than one of them."""
    for doc in trained.pipe(toy.texts()):
        assert all(doc._.mmcot_confidence <= score * (1 + 1e-4) for score in toy.scores(doc))


def test_bytes_and_docbin_carry_it(trained_cnn: Language) -> None:
    docs = list(trained_cnn.pipe(["", *toy.texts()]))
    confidences = [doc._.mmcot_confidence for doc in docs]
    copies = [Doc(trained_cnn.vocab).from_bytes(doc.to_bytes()) for doc in docs]
    assert [doc._.mmcot_confidence for doc in copies] == confidences
    binary = DocBin(docs=docs, store_user_data=True).to_bytes()
    stored = DocBin().from_bytes(binary).get_docs(trained_cnn.vocab)
    assert [doc._.mmcot_confidence for doc in stored] == confidences


def test_two_processes_equal_one(trained: Language) -> None:
    texts = ["", " \n ", *toy.texts() * 2]
    one = [doc._.mmcot_confidence for doc in trained.pipe(texts)]
    two = [doc._.mmcot_confidence for doc in trained.pipe(texts, n_process=2, batch_size=4)]
    assert two == pytest.approx(one, rel=1e-4)


def test_entities_set_before_do_not_count_in_it(trained_cnn: Language) -> None:
    """It is the tagger's account of its own sequence, whatever becomes of it."""
    text = "Rome , here comes Carla Diaz"
    doc = trained_cnn.make_doc(text)
    doc.set_ents([Span(doc, 0, 3, label="PHRASE")])
    alone = trained_cnn(text)
    assert trained_cnn(doc)._.mmcot_confidence == alone._.mmcot_confidence


def test_the_weakest_sentence_tells_long_docs_apart() -> None:
    nlp = fitted(crf=True)
    sure = "we flew to Oslo with Anna . " * 230
    odd = sure[: len(sure) // 2] + " Ferdinand Rome Eve Lima Bo . " + sure[len(sure) // 2 :]
    first, second = nlp.pipe([sure.strip(), odd.strip()])
    assert len(first) > 1600
    assert max(first._.mmcot_confidence, second._.mmcot_confidence) < 1e-6
    assert 0 < second._.mmcot_confidence < first._.mmcot_confidence
    assert 0.01 < second._.mmcot_weakest < first._.mmcot_weakest
    loaded = Doc(nlp.vocab).from_bytes(first.to_bytes(exclude=["tensor"]))
    assert loaded._.mmcot_weakest == first._.mmcot_weakest


def test_one_sentence_is_as_sure_as_the_doc() -> None:
    nlp = fitted(crf=True)
    for doc in nlp.pipe([*SHORT, "", " ", "we flew to Oslo with Anna"]):
        assert doc._.mmcot_weakest == doc._.mmcot_confidence
    nlp.add_pipe("sentencizer", first=True, config={"punct_chars": ["with"]})
    doc = nlp("we flew to Oslo with Anna and Bo saw Eve Li in Rome")
    assert len(list(doc.sents)) == 2
    assert doc._.mmcot_weakest > doc._.mmcot_confidence

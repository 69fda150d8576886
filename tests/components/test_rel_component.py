"""What users of `mmcot_rel` rely on, from add_pipe to several processes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
import toy
import toy_rel
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example

from spacy_mmcot.corpus.extensions import list_relations
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model.bridge import torch_shim
from spacy_mmcot.types import Relation

KNOWLEDGE = {
    "noun": [{"mention": "Anna", "kind": "city", "explanation": "a place by the sea"}],
    "sentence": "Anna employs everyone in a town.",
    "caption": "an office",
}


def test_is_added_by_name_without_import() -> None:
    nlp = spacy.blank("en")
    component = nlp.add_pipe("mmcot_rel")
    assert nlp.pipe_names == ["mmcot_rel"]
    assert component.labels == ()
    assert not component.is_initialized
    meta = nlp.get_pipe_meta("mmcot_rel")
    assert (meta.requires, meta.assigns) == (["doc.ents"], ["doc._.mmcot_rel"])


def test_default_model_learns() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("mmcot_rel")
    data = toy_rel.examples(nlp)
    toy.fix_random_seed(0)
    nlp.initialize(lambda: data)
    toy.fit(nlp, data, steps=30, rate=0.005)
    assert nlp.evaluate(data)["rel_f"] == 1.0


@pytest.mark.parametrize("encoder", ["cnn", "transformer"])
def test_not_initialised(encoder: str, blank_rel: Callable[[str], Language]) -> None:
    component = toy_rel.component(blank_rel(encoder))
    doc = Doc(component.vocab, words=["Anna", "employs", "Bo"], ents=["B-PER", "O", "B-PER"])
    component.add_label("employs")
    example = Example(doc, doc.copy())
    for use in (
        lambda: component(doc),
        lambda: component.predict([doc]),
        lambda: component.predict_on_gold_mentions([example]),
        lambda: component.predict_soft_relations([doc]),
        lambda: component.update([example]),
        lambda: component.score([example]),
    ):
        with pytest.raises(MMCoTError, match=r"\[E602\] mmcot_rel is not initialised"):
            use()


def test_overfits(trained_rel: Language) -> None:
    result = trained_rel.evaluate(toy_rel.examples(trained_rel))
    assert (result["rel_p"], result["rel_r"], result["rel_f"]) == (1.0, 1.0, 1.0)
    assert set(result["rel_per_type"]) == set(toy_rel.LABELS)
    assert result["rel_e2e_f"] == 1.0
    assert toy_rel.found(trained_rel.pipe(toy_rel.texts())) == toy_rel.gold()


def test_empty_doc(trained_rel: Language) -> None:
    assert trained_rel("")._.mmcot_rel == ()
    component = toy_rel.component(trained_rel)
    assert component.predict([]) == []
    assert component.predict([Doc(trained_rel.vocab)]) == [[]]
    (soft,) = component.predict_soft_relations([Doc(trained_rel.vocab)])
    assert (soft.mentions, soft.pairs.shape, soft.probabilities.shape) == ([], (0, 2), (0, 4))


@pytest.mark.parametrize("text", [" ", "\n\n", " \t\n ", "\u00a0\u2003", "\u200b"])
def test_white_space_docs(text: str, trained_rel: Language) -> None:
    for doc in (trained_rel(text), *trained_rel.pipe([text, "", text])):
        assert doc._.mmcot_rel == ()
        assert list_relations(doc) == []


def test_docs_with_no_or_one_mention(trained_rel_cnn: Language) -> None:
    for text, n_mentions in (("nobody sings here", 0), ("Bo was born in autumn", 1), ("Bo", 1)):
        doc = trained_rel_cnn(text)
        assert (len(doc.ents), doc._.mmcot_rel) == (n_mentions, ())


def test_empty_docs_among_others(trained_rel: Language) -> None:
    texts, gold = toy_rel.texts(), toy_rel.gold()
    docs = trained_rel.pipe(["", *texts, " ", texts[3], ""])
    assert toy_rel.found(docs) == [[], *gold, [], gold[3], []]


def test_batch_equals_single(trained_rel: Language) -> None:
    texts = [*toy_rel.texts(), "", " . ".join(toy_rel.texts()[2:8]), "Anna employs Bo"]
    batch = list(trained_rel.pipe(texts, batch_size=len(texts)))
    for text, doc in zip(texts, batch, strict=True):
        single = trained_rel(text)
        assert toy_rel.found([single]) == toy_rel.found([doc])
        assert toy_rel.scores([single]) == pytest.approx(toy_rel.scores([doc]), rel=1e-4)


def test_distributions_of_a_batch_equal_single_ones() -> None:
    nlp = toy_rel.initialised()
    component = toy_rel.component(nlp)
    references = toy_rel.references(nlp)
    docs = [*references, Doc(nlp.vocab), *references[::-1]]
    for doc, soft in zip(docs, component.predict_soft_relations(docs), strict=True):
        n = len(doc.ents)
        assert soft.probabilities.shape == (n * (n - 1), 4)
        assert soft.probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
        (single,) = component.predict_soft_relations([doc])
        assert single.probabilities == pytest.approx(soft.probabilities, abs=1e-5)
        assert single.mentions == soft.mentions
        assert [doc.text[start:end] for start, end, _ in soft.mentions] == [
            ent.text for ent in doc.ents
        ]


def test_order_is_kept(trained_rel: Language) -> None:
    order = [5, 0, 9, 1, 1, 12, 3, 8] * 3
    texts = [toy_rel.texts()[i] for i in order]
    docs = list(trained_rel.pipe(texts, batch_size=5))
    assert [doc.text for doc in docs] == texts
    assert toy_rel.found(docs) == [toy_rel.gold()[i] for i in order]


def test_relations_of_a_doc_are_in_the_order_of_their_heads(
    rel_folder: Callable[[str], Path],
) -> None:
    nlp = spacy.load(rel_folder("cnn"))
    toy_rel.component(nlp).cfg["threshold"] = 0.0
    doc = nlp("Anna and Bo saw Oslo tonight")
    places = [(h.start, t.start) for h, t, _, _ in doc._.mmcot_rel]
    assert len(places) == 6
    assert places == sorted(places)


def test_predict_leaves_docs_alone(trained_rel_cnn: Language) -> None:
    people = ["Anna", "Eve Li"]
    doc = toy_rel.annotated(trained_rel_cnn, "Anna employs Eve Li", people, None)
    before = doc.to_bytes()
    ((prediction,),) = toy_rel.component(trained_rel_cnn).predict([doc])
    assert prediction[:3] == (*doc.ents, "employs")
    assert 0.5 < prediction.score <= 1
    assert doc.to_bytes() == before


def test_a_relation_joins_the_entities_of_the_doc(trained_rel_cnn: Language) -> None:
    doc = trained_rel_cnn("Carla Diaz employs Farid")
    ((head, tail, label, score),) = doc._.mmcot_rel
    assert (head.text, tail.text, label) == ("Carla Diaz", "Farid", "employs")
    assert (head.label_, tail.label_) == ("PER", "PER")
    assert {head, tail} == set(doc.ents)
    assert 0.5 < score <= 1


def test_round_trip_by_disk(trained_rel: Language, tmp_path: Path) -> None:
    trained_rel.to_disk(tmp_path / "model")
    loaded = spacy.load(tmp_path / "model")
    assert toy_rel.component(loaded).labels == toy_rel.LABELS
    assert toy_rel.component(loaded).cfg == toy_rel.component(trained_rel).cfg
    before = list(trained_rel.pipe(toy_rel.texts()))
    after = list(loaded.pipe(toy_rel.texts()))
    assert toy_rel.found(before) == toy_rel.found(after) == toy_rel.gold()
    assert toy_rel.scores(before) == toy_rel.scores(after)


def test_round_trip_by_bytes(trained_rel: Language, blank_rel: Callable[[str], Language]) -> None:
    encoder = "transformer" if trained_rel.has_pipe("transformer") else "cnn"
    loaded = blank_rel(encoder).from_bytes(trained_rel.to_bytes())
    before = list(trained_rel.pipe(toy_rel.texts()))
    after = list(loaded.pipe(toy_rel.texts()))
    assert toy_rel.found(before) == toy_rel.found(after) == toy_rel.gold()
    assert toy_rel.scores(before) == toy_rel.scores(after)


def test_a_loaded_pipeline_learns_on(trained_rel_cnn: Language, tmp_path: Path) -> None:
    trained_rel_cnn.to_disk(tmp_path / "model")
    loaded = spacy.load(tmp_path / "model")
    swapped = [("Bo", "Anna", "employs")]
    reference = toy_rel.annotated(loaded, "Anna employs Bo", ["Anna", "Bo"], swapped)
    toy.fit(loaded, [Example(loaded.make_doc(reference.text), reference)], steps=30, rate=0.005)
    assert toy_rel.names(loaded(reference.text)) == swapped


def test_two_processes_equal_one(trained_rel: Language) -> None:
    texts = ["", " \n ", *toy_rel.texts()]
    one = list(trained_rel.pipe(texts))
    two = list(trained_rel.pipe(texts, n_process=2, batch_size=6))
    assert [doc.text for doc in two] == texts
    assert toy_rel.found(one) == toy_rel.found(two) == [[], [], *toy_rel.gold()]
    assert toy_rel.scores(one) == pytest.approx(toy_rel.scores(two), rel=1e-4)


def test_a_student_does_not_see_knowledge(trained_rel: Language) -> None:
    bare = list(trained_rel.pipe(toy_rel.texts()))
    rich = [trained_rel.make_doc(text) for text in toy_rel.texts()]
    for doc in rich:
        doc._.mmcot_knowledge = KNOWLEDGE
    rich = list(trained_rel.pipe(rich))
    assert toy_rel.found(rich) == toy_rel.found(bare)
    assert toy_rel.scores(rich) == toy_rel.scores(bare)
    assert all(doc._.mmcot_knowledge == KNOWLEDGE for doc in rich)


def test_a_teacher_does_see_knowledge(bert: Path) -> None:
    """The counterpart: without it, the test above could pass on a broken path."""
    nlp = toy_rel.transformer_pipeline(bert, segment_length=16)
    data = []
    for sentence, relations in (
        ("a boss", [("Anna", "Bo", "employs")]),
        ("two strangers", []),
    ):
        reference = toy_rel.annotated(nlp, "Anna sees Bo", ["Anna", "Bo"], relations)
        predicted = nlp.make_doc(reference.text)
        predicted._.mmcot_knowledge = {"sentence": sentence}
        data.append(Example(predicted, reference))
    toy.fix_random_seed(0)
    nlp.initialize(lambda: data)
    toy.fit(nlp, data, steps=60, rate=0.005)
    assert nlp.evaluate(data)["rel_f"] == 1.0
    blind = [Example(nlp.make_doc(eg.text), eg.reference) for eg in data]
    assert nlp.evaluate(blind)["rel_f"] < 1.0


def test_relations_survive_bytes_and_docbin(trained_rel: Language) -> None:
    docs = list(trained_rel.pipe(toy_rel.texts()))
    for doc in docs:
        if trained_rel.has_pipe("transformer"):
            doc._.trf_data = None  # spacy-transformers' own, which msgpack does not take
        copy = Doc(trained_rel.vocab).from_bytes(doc.to_bytes())
        assert toy_rel.found([copy]) == toy_rel.found([doc])
        assert toy_rel.scores([copy]) == toy_rel.scores([doc])
    binary = DocBin(docs=docs, store_user_data=True).to_bytes()
    stored = list(DocBin().from_bytes(binary).get_docs(trained_rel.vocab))
    assert toy_rel.found(stored) == toy_rel.gold()
    assert toy_rel.scores(stored) == toy_rel.scores(docs)


def test_a_memory_zone_holds_no_relation_back(trained_rel: Language) -> None:
    with trained_rel.memory_zone():
        inside = toy_rel.found(trained_rel.pipe(toy_rel.texts()))
    gc.collect()
    assert inside == toy_rel.gold()
    assert toy_rel.found(trained_rel.pipe(toy_rel.texts())) == toy_rel.gold()


def test_relations_set_before_are_kept(trained_rel_cnn: Language) -> None:
    doc = trained_rel_cnn.make_doc("Anna employs Bo")
    anna, bo = Span(doc, 0, 1, label="PER"), Span(doc, 2, 3, label="PER")
    doc.set_ents([anna, bo])
    doc._.mmcot_rel = [Relation(anna, bo, "knows", 0.7)]
    doc = trained_rel_cnn(doc)
    assert toy_rel.names(doc) == [("Anna", "Bo", "knows")]
    assert toy_rel.scores([doc]) == pytest.approx([0.7])

    doc._.mmcot_rel = [Relation(bo, anna, "knows", 0.7)]
    doc = trained_rel_cnn(doc)
    assert toy_rel.names(doc) == [("Bo", "Anna", "knows"), ("Anna", "Bo", "employs")]


def test_overwrite_replaces_relations(rel_folder: Callable[[str], Path]) -> None:
    nlp = toy_rel.pipeline(overwrite=True).from_disk(rel_folder("cnn"))
    doc = nlp.make_doc("Anna employs Bo")
    anna, bo = Span(doc, 0, 1, label="PER"), Span(doc, 2, 3, label="PER")
    doc.set_ents([anna, bo])
    doc._.mmcot_rel = [Relation(anna, bo, "knows", 0.7), Relation(bo, anna, "knows", 0.7)]
    assert toy_rel.names(nlp(doc)) == [("Anna", "Bo", "employs")]


def test_running_twice_changes_nothing(trained_rel_cnn: Language) -> None:
    doc = trained_rel_cnn(toy_rel.texts()[3])
    before = toy_rel.found([doc]), toy_rel.scores([doc])
    assert before[0] != [[]]
    doc = toy_rel.component(trained_rel_cnn)(doc)
    assert (toy_rel.found([doc]), toy_rel.scores([doc])) == before


def test_pipeline_is_sound_to_spacy(trained_rel: Language) -> None:
    analysis = trained_rel.analyze_pipes(keys=["assigns", "requires"])
    assert not any(analysis["problems"].values())
    assert trained_rel.pipe_labels["mmcot_rel"] == list(toy_rel.LABELS)


def test_long_docs(trained_rel: Language) -> None:
    """More word pieces than the encoder has positions for."""
    doc = trained_rel(" . ".join(toy_rel.texts() * 2))
    assert len(doc) > 200
    ents = set(doc.ents)
    assert len(doc._.mmcot_rel) > 10
    for head, tail, label, score in doc._.mmcot_rel:
        assert {head, tail} <= ents and head != tail
        assert label in toy_rel.LABELS and 0 < score <= 1


def test_ner_and_rel_share_one_encoder_pass(rel_folder: Callable[[str], Path]) -> None:
    nlp = spacy.load(rel_folder("transformer"))
    module = torch_shim(nlp.get_pipe("transformer").model).module
    passes: list[int] = []
    module.register_forward_hook(lambda *_: passes.append(1))

    def passes_of(run: Callable[[], object]) -> int:
        passes.clear()
        run()
        return len(passes)

    def pipe() -> list[Doc]:
        return list(nlp.pipe(toy_rel.texts(), batch_size=len(toy_rel.texts())))

    def update() -> dict[str, float]:
        return nlp.update(toy_rel.examples(nlp), losses={})

    with nlp.select_pipes(disable="mmcot_rel"):
        of_ner = passes_of(pipe), passes_of(update)
    assert min(of_ner) > 0
    assert (passes_of(pipe), passes_of(update)) == of_ner
    # The listener reads what the transformer left on the Docs.
    docs = pipe()
    assert passes_of(lambda: toy_rel.component(nlp).predict(docs)) == 0


def test_an_encoder_that_has_not_run_is_an_error(rel_folder: Callable[[str], Path]) -> None:
    """spacy-transformers would hand on zeros, and the predictions would be noise."""
    nlp = spacy.load(rel_folder("transformer"))
    doc = toy_rel.annotated(nlp, "Bo works for Anna in Rome", ["Bo", "Anna", "Rome"], None)
    for factory in ("mmcot_ner", "mmcot_rel"):
        for name in nlp.pipe_names:
            if nlp.get_pipe_meta(name).factory == factory:
                with pytest.raises(MMCoTError, match=rf"\[E405\] {name} listens"):
                    nlp.get_pipe(name)(doc)
    nlp.get_pipe("transformer")(doc)
    nlp.get_pipe(toy_rel.component(nlp).name)(doc)
    assert doc._.mmcot_rel

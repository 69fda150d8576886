"""What users of `mmcot_ner` rely on, from add_pipe to several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
import toy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example

from spacy_mmcot.components import decoding
from spacy_mmcot.errors import MMCoTError

KNOWLEDGE = {
    "noun": [{"mention": "Anna", "kind": "city", "explanation": "a place by the sea"}],
    "sentence": "A concert in a town.",
    "caption": "a stage",
}


def test_is_added_by_name_without_import() -> None:
    nlp = spacy.blank("en")
    component = nlp.add_pipe("mmcot_ner")
    assert nlp.pipe_names == ["mmcot_ner"]
    assert component.labels == ()
    assert not component.is_initialized
    assert nlp.get_pipe_meta("mmcot_ner").assigns == [
        *("doc.ents", "token.ent_iob", "token.ent_type"),
        *("span._.mmcot_score", "doc._.mmcot_confidence", "doc._.mmcot_weakest"),
    ]


def test_default_model_learns() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("mmcot_ner")
    data = toy.examples(nlp)
    toy.fix_random_seed(0)
    nlp.initialize(lambda: data)
    toy.fit(nlp, data, steps=40, rate=0.005)
    assert nlp.evaluate(data)["ents_f"] == 1.0


@pytest.mark.parametrize("encoder", ["cnn", "transformer"])
def test_not_initialised(encoder: str, blank: Callable[[str], Language]) -> None:
    component = blank(encoder).get_pipe("mmcot_ner")
    doc = Doc(component.vocab, words=["Anna", "sings"])
    component.add_label("PER")
    with pytest.raises(MMCoTError, match=r"\[E602\] mmcot_ner is not initialised"):
        component(doc)
    with pytest.raises(MMCoTError, match="E602"):
        component.predict_marginals([doc])
    with pytest.raises(MMCoTError, match="E602"):
        component.update([Example.from_dict(doc, {"entities": ["U-PER", "O"]})])


def test_overfits(trained: Language) -> None:
    result = trained.evaluate(toy.examples(trained))
    assert (result["ents_p"], result["ents_r"], result["ents_f"]) == (1.0, 1.0, 1.0)
    assert set(result["ents_per_type"]) == set(toy.LABELS)
    assert toy.found(trained.pipe(toy.texts())) == toy.gold()


def test_empty_doc(trained: Language) -> None:
    assert trained("").ents == ()
    component = trained.get_pipe("mmcot_ner")
    assert component.predict([]) == []
    assert component.predict([Doc(trained.vocab)]) == [[]]
    assert component.predict_marginals([Doc(trained.vocab)])[0].shape == (0, 5)


def test_empty_docs_among_others(trained: Language) -> None:
    texts = ["", *toy.texts(), "", toy.texts()[1], ""]
    gold = [[], *toy.gold(), [], toy.gold()[1], []]
    assert toy.found(trained.pipe(texts)) == gold


@pytest.mark.parametrize("text", [" ", "\n\n", " \t\n ", "\u00a0\u2003", "\u200b"])
def test_white_space_docs(text: str, trained: Language) -> None:
    for doc in (trained(text), *trained.pipe([text, toy.texts()[1]])):
        for ent in doc.ents:
            assert ent.text == ent.text.strip()
    assert all(not token.ent_type for token in trained(" \n "))


def test_spans_neither_begin_nor_end_with_white_space(trained: Language) -> None:
    """A tagger may well want to call a line break part of a name; spaCy takes no such span."""
    texts = []
    for name in (*toy.PEOPLE, *toy.PLACES):
        for left in ("", "\n", " \n\n ", "we flew to ", "we flew to \n"):
            for right in ("", "\n", "\n\n tonight", " \n with Bo"):
                texts.append(f"{left}{name}{right}")
    mentions = 0
    for doc in trained.pipe(texts):
        for ent in doc.ents:
            assert ent.text == ent.text.strip() != ""
            mentions += 1
    assert mentions > len(texts) / 2


def test_white_space_within_a_path_is_trimmed() -> None:
    """A model that calls every token part of one mention."""
    nlp = toy.initialised()
    head = nlp.get_pipe("mmcot_ner").model.get_ref("head").shims[0].module
    head.linear.weight.data.zero_()
    head.linear.bias.data[:] = 0
    head.linear.bias.data[2] = 50.0  # I-LOC
    assert [ent.text for ent in nlp("\n New York \n\n").ents] == ["New York"]
    assert nlp("\n \n\n").ents == ()
    both = nlp("\n New York \n\n Rome \n")
    assert [ent.text for ent in both.ents] == ["New York \n\n Rome"]
    assert toy.scores(both)[0] == pytest.approx(1.0)


def test_batch_equals_single(trained: Language) -> None:
    texts = [*toy.texts(), "Bo", "", "Carla Diaz and Eve Li and Farid met Anna in Lima . " * 6]
    batch = list(trained.pipe(texts, batch_size=len(texts)))
    for text, doc in zip(texts, batch, strict=True):
        single = trained(text)
        assert toy.found([single]) == toy.found([doc])
        assert toy.scores(single) == pytest.approx(toy.scores(doc), rel=1e-4)


def test_marginals_of_a_batch_equal_single_ones(trained_cnn: Language) -> None:
    component = trained_cnn.get_pipe("mmcot_ner")
    docs = [trained_cnn.make_doc(text) for text in ["Bo", "", *toy.texts()]]
    for doc, batched in zip(docs, component.predict_marginals(docs), strict=True):
        assert batched.shape == (len(doc), len(component.tags))
        assert batched.sum(axis=1) == pytest.approx(1.0, abs=1e-4)
        assert component.predict_marginals([doc])[0] == pytest.approx(batched, abs=1e-5)


def test_order_is_kept(trained: Language) -> None:
    order = [3, 0, 6, 1, 1, 5, 2, 4] * 3
    texts = [toy.texts()[i] for i in order]
    docs = list(trained.pipe(texts, batch_size=5))
    assert [doc.text for doc in docs] == texts
    assert toy.found(docs) == [toy.gold()[i] for i in order]


def test_predict_leaves_docs_alone(trained_cnn: Language) -> None:
    doc = trained_cnn.make_doc(toy.texts()[1])
    before = doc.to_bytes()
    mentions = trained_cnn.get_pipe("mmcot_ner").predict([doc])
    assert [len(row) for row in mentions] == [2]
    assert doc.to_bytes() == before


def test_round_trip_by_disk(trained: Language, tmp_path: Path) -> None:
    trained.to_disk(tmp_path / "model")
    loaded = spacy.load(tmp_path / "model")
    assert loaded.get_pipe("mmcot_ner").labels == toy.LABELS
    before, after = list(trained.pipe(toy.texts())), list(loaded.pipe(toy.texts()))
    assert toy.found(before) == toy.found(after) == toy.gold()
    assert list(map(toy.scores, before)) == list(map(toy.scores, after))


def test_round_trip_by_bytes(trained: Language, blank: Callable[[str], Language]) -> None:
    encoder = "transformer" if trained.has_pipe("transformer") else "cnn"
    loaded = blank(encoder).from_bytes(trained.to_bytes())
    before, after = list(trained.pipe(toy.texts())), list(loaded.pipe(toy.texts()))
    assert toy.found(before) == toy.found(after) == toy.gold()
    assert list(map(toy.scores, before)) == list(map(toy.scores, after))


def test_a_loaded_pipeline_learns_on(trained: Language, tmp_path: Path) -> None:
    trained.to_disk(tmp_path / "model")
    loaded = spacy.load(tmp_path / "model")
    text = "Oslo sings in Anna tonight"
    swapped = {"entities": [(0, 4, "PER"), (14, 18, "LOC")]}
    data = [Example.from_dict(loaded.make_doc(text), swapped)]
    toy.fit(loaded, data, steps=40, rate=0.005)
    assert toy.found([loaded(text)]) == [swapped["entities"]]


def test_two_processes_equal_one(trained: Language) -> None:
    texts = ["", " \n ", *toy.texts() * 2]
    one = list(trained.pipe(texts))
    two = list(trained.pipe(texts, n_process=2, batch_size=4))
    assert [doc.text for doc in two] == texts
    assert toy.found(one) == toy.found(two)
    for left, right in zip(one, two, strict=True):
        assert toy.scores(left) == pytest.approx(toy.scores(right), rel=1e-4)


FORK = """
import sys, torch, toy
torch.set_num_threads(2)
nlp = toy.transformer_pipeline(sys.argv[1])
data = toy.examples(nlp)
nlp.initialize(lambda: data)
nlp.update(data)
one = [doc.to_json() for doc in nlp.pipe(toy.texts() * 30)]
two = [doc.to_json() for doc in nlp.pipe(toy.texts() * 30, n_process=2, batch_size=50)]
assert one == two
"""


@pytest.mark.slow
def test_two_processes_after_many_threads(bert: Path) -> None:
    """torch's threads do not survive a fork; a child that waits for them never ends."""
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(bert)],
        cwd=Path(toy.__file__).parent,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "parallelism" not in done.stderr


def test_entities_set_before_are_kept(trained: Language) -> None:
    doc = trained.make_doc("Rome , here comes Carla Diaz")
    doc.set_ents([Span(doc, 5, 6, label="SURNAME", kb_id="Q1")])
    doc = trained(doc)
    assert [(ent.text, ent.label_, ent.kb_id_) for ent in doc.ents] == [
        ("Rome", "LOC", ""),
        ("Diaz", "SURNAME", "Q1"),  # and "Carla Diaz", which holds it, is dropped
    ]
    assert 0 < doc.ents[0]._.mmcot_score <= 1
    assert doc.ents[1]._.mmcot_score is None


def test_entities_of_a_ruler_before_it_are_kept(ner_folder: Callable[[str], Path]) -> None:
    nlp = spacy.load(ner_folder("cnn"))
    ruler = nlp.add_pipe("entity_ruler", before="mmcot_ner")
    ruler.add_patterns([{"label": "CAPITAL", "pattern": "Oslo"}])
    doc = nlp("Anna sings in Oslo tonight")
    assert [(ent.text, ent.label_) for ent in doc.ents] == [("Anna", "PER"), ("Oslo", "CAPITAL")]


def test_overwrite_replaces_entities(ner_folder: Callable[[str], Path]) -> None:
    nlp = toy.pipeline(overwrite=True).from_disk(ner_folder("cnn"))
    doc = nlp.make_doc("Carla Diaz sings in Rome tonight")
    doc.set_ents([Span(doc, 1, 2, label="SURNAME"), Span(doc, 2, 3, label="VERB")])
    doc = nlp(doc)
    assert [(ent.text, ent.label_) for ent in doc.ents] == [("Carla Diaz", "PER"), ("Rome", "LOC")]
    assert all(0 < score <= 1 for score in toy.scores(doc))


def test_running_twice_changes_nothing(trained_cnn: Language) -> None:
    doc = trained_cnn(toy.texts()[3])
    before = toy.found([doc]), toy.scores(doc)
    doc = trained_cnn.get_pipe("mmcot_ner")(doc)
    assert (toy.found([doc]), toy.scores(doc)) == before


def test_a_student_does_not_see_knowledge(trained: Language) -> None:
    bare = list(trained.pipe(toy.texts()))
    rich = [trained.make_doc(text) for text in toy.texts()]
    for doc in rich:
        doc._.mmcot_knowledge = KNOWLEDGE
    rich = list(trained.pipe(rich))
    assert toy.found(rich) == toy.found(bare)
    assert [toy.scores(doc) for doc in rich] == [toy.scores(doc) for doc in bare]
    assert all(doc._.mmcot_knowledge == KNOWLEDGE for doc in rich)


def test_a_teacher_does_see_knowledge(bert: Path) -> None:
    """The counterpart: without it, the test above could pass on a broken path."""
    nlp = toy.transformer_pipeline(bert, knowledge_tags=True, segment_length=16)
    data = []
    for kind, label in (("city", "LOC"), ("singer", "PER")):
        eg = Example.from_dict(nlp.make_doc("Anna is seen here"), {"entities": [(0, 4, label)]})
        noun = [{"mention": "Anna", "kind": kind, "explanation": ""}]
        eg.predicted._.mmcot_knowledge = {"noun": noun, "sentence": f"Anna is a {kind}."}
        data.append(eg)
    toy.fix_random_seed(0)
    nlp.initialize(lambda: data)
    toy.fit(nlp, data, steps=40, rate=0.005)
    assert nlp.evaluate(data)["ents_f"] == 1.0
    blind = [Example(nlp.make_doc(eg.text), eg.reference) for eg in data]
    assert nlp.evaluate(blind)["ents_f"] < 1.0


def test_scores_are_probabilities_of_the_mention(trained_cnn: Language) -> None:
    """Against brute force over all tag sequences of a short Doc."""
    import itertools

    import numpy

    component = trained_cnn.get_pipe("mmcot_ner")
    doc = trained_cnn.make_doc("Eve Li in Oslo")
    arrays, transitions = component.score_tags([doc])
    emissions = arrays[0]
    weights, holds = [], []
    (mention, *_) = component.predict([doc])[0]
    begin, inside = (component.tags.index(f"{p}-{mention.label}") for p in "BI")
    wanted = [begin, *[inside] * (mention.end - mention.start - 1)]
    for path in itertools.product(range(len(component.tags)), repeat=len(doc)):
        steps = [-1, *path, -1]
        score = sum(emissions[t, tag] for t, tag in enumerate(path))
        score += sum(transitions[a, b] for a, b in itertools.pairwise(steps))
        weights.append(score)
        after = path[mention.end] if mention.end < len(doc) else 0
        same = list(path[mention.start : mention.end]) == wanted
        holds.append(same and after != inside)
    probabilities = numpy.exp(numpy.array(weights) - numpy.logaddexp.reduce(weights))
    assert mention.score == pytest.approx(probabilities[holds].sum(), rel=1e-4)


def test_scores_survive_bytes_and_docbin(trained: Language) -> None:
    docs = list(trained.pipe(toy.texts()))
    for doc in docs:
        assert all(0 < score <= 1 for score in toy.scores(doc))
        if trained.has_pipe("transformer"):
            doc._.trf_data = None  # spacy-transformers' own, which msgpack does not take
        copy = Doc(trained.vocab).from_bytes(doc.to_bytes())
        assert toy.scores(copy) == toy.scores(doc)
        assert toy.found([copy]) == toy.found([doc])
    binary = DocBin(docs=docs, store_user_data=True).to_bytes()
    stored = list(DocBin().from_bytes(binary).get_docs(trained.vocab))
    assert [toy.scores(doc) for doc in stored] == [toy.scores(doc) for doc in docs]
    assert sum(map(len, map(toy.scores, stored))) == 12


def test_long_docs(trained: Language) -> None:
    """More word pieces than the encoder has positions for."""
    text = " . ".join(toy.texts() * 8)
    doc = trained(text)
    assert len(doc) > 200
    names = [ent.text for ent in doc.ents]
    assert len(names) > 40
    assert set(names) & set(toy.PEOPLE) and set(names) & set(toy.PLACES)


def test_a_long_doc_among_short_ones(
    trained_cnn: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padding all to its length would take 50 times its own space."""
    limit = 500
    monkeypatch.setattr(decoding, "MAX_PADDED", limit)
    texts = [*toy.texts() * 7, " . ".join(toy.texts() * 10)]
    docs = [trained_cnn.make_doc(text) for text in texts]
    assert len(docs[-1]) * len(docs) > 5 * limit
    component = trained_cnn.get_pipe("mmcot_ner")
    arrays, _ = component.score_tags(docs)
    batches = list(decoding.pad_batches(arrays))
    assert sorted(i for indexes, _, _ in batches for i in indexes) == list(range(len(docs)))
    assert all(len(i) == 1 or padded[..., 0].size <= limit for i, padded, _ in batches)
    together = component.predict(docs)
    for doc, mentions in list(zip(docs, together, strict=True))[-15:]:
        (alone,) = component.predict([doc])
        assert [mention[:3] for mention in mentions] == [mention[:3] for mention in alone]
        assert mentions.probability == pytest.approx(alone.probability, abs=1e-4)
    for doc, marginals in zip(docs, component.predict_marginals(docs), strict=True):
        assert marginals.shape == (len(doc), len(component.tags))


def test_pipeline_is_sound_to_spacy(trained: Language) -> None:
    analysis = trained.analyze_pipes(keys=["assigns", "requires"])
    assert not any(analysis["problems"].values())
    assert trained.pipe_labels["mmcot_ner"] == list(toy.LABELS)
    assert trained.meta["labels"]["mmcot_ner"] == list(toy.LABELS)


def test_blocked_tokens_stay_blocked(trained: Language) -> None:
    text = "Rome , here comes Carla Diaz"
    found = trained(text).ents[0]
    doc = trained.make_doc(text)
    doc.set_ents([], blocked=[doc[found.start : found.end]], default="unmodified")
    doc = trained(doc)
    assert [ent.text for ent in doc.ents] == ["Carla Diaz"]
    assert not any(token.ent_type for token in doc[found.start : found.end])

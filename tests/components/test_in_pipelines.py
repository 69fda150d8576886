"""The components beside others: tokens that change behind the encoder, encoders of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
import toy
import toy_rel
from spacy.language import Language
from spacy.tokens import Doc

from spacy_mmcot.corpus.docbin import write_docs
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model import encoder

Folder = Callable[[str], Path]


@Language.component("merge_and_split")
def merge_and_split(doc: Doc) -> Doc:
    """As many tokens as before, but others."""
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[0:2])
    with doc.retokenize() as retokenizer:
        word = doc[-1].text
        retokenizer.split(doc[-1], [word[:1], word[1:]], heads=[doc[-1], doc[-1]])
    return doc


@Language.component("merge_two")
def merge_two(doc: Doc) -> Doc:
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[0:2])
    return doc


@Language.component("split_last")
def split_last(doc: Doc) -> Doc:
    with doc.retokenize() as retokenizer:
        word = doc[-1].text
        retokenizer.split(doc[-1], [word[:1], word[1:]], heads=[doc[-1], doc[-1]])
    return doc


@pytest.mark.parametrize("change", ["merge_two", "split_last", "merge_and_split"])
def test_tokens_that_change_behind_the_encoder_are_refused(ner_folder: Folder, change: str) -> None:
    nlp = spacy.load(ner_folder("transformer"))
    nlp.add_pipe(change, before="mmcot_ner")
    message = r"\[E407\] mmcot_ner: .*'Anna sings in Oslo' changed .*before='transformer'"
    with pytest.raises(MMCoTError, match=message):
        nlp("Anna sings in Oslo")
    for place in ({"first": True}, {"last": True}):
        fine = spacy.load(ner_folder("transformer"))
        fine.add_pipe(change, **place)  # type: ignore[arg-type]
        assert fine("Anna sings in Oslo").has_annotation("ENT_IOB")


def test_tokens_that_change_before_the_relations_are_refused(rel_folder: Folder) -> None:
    nlp = spacy.load(rel_folder("transformer"))
    text = next(doc.text for doc in nlp.pipe(toy_rel.texts()) if doc._.mmcot_rel)
    nlp.add_pipe("split_last", before="mmcot_rel")
    with pytest.raises(MMCoTError, match=r"\[E407\] mmcot_rel"):
        nlp(text)
    # Behind it relations keep their mentions.
    fine = spacy.load(rel_folder("transformer"))
    before = [(r.head.text, r.label, r.tail.text) for r in fine(text)._.mmcot_rel]
    assert before
    fine.add_pipe("merge_entities", last=True)
    assert [(r.head.text, r.label, r.tail.text) for r in fine(text)._.mmcot_rel] == before


def scores(nlp: Language) -> list[list[tuple[str, str, float]]]:
    docs = nlp.pipe(toy.texts())
    return [[(e.text, e.label_, pytest.approx(e._.mmcot_score)) for e in doc.ents] for doc in docs]


def test_listeners_can_be_replaced(
    ner_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nlp = spacy.load(ner_folder("transformer"))
    before = scores(nlp)
    nlp.replace_listeners("transformer", "mmcot_ner", ["model.tok2vec"])
    assert scores(nlp) == before
    nlp.remove_pipe("transformer")
    nlp.to_disk(tmp_path)
    alone = spacy.load(tmp_path)
    assert alone.pipe_names == ["mmcot_ner"]
    assert scores(alone) == before
    # Hidden letter case is noise in a loss that is near 0 already.
    monkeypatch.setattr(encoder, "HIDDEN_CASES", 0.0)
    loss = toy.fit(alone, toy.examples(alone), steps=1)["mmcot_ner"]
    assert toy.fit(alone, toy.examples(alone), steps=10)["mmcot_ner"] < loss


def test_listeners_of_relations_can_be_replaced(rel_folder: Folder, tmp_path: Path) -> None:
    nlp = spacy.load(rel_folder("transformer"))
    text = next(doc.text for doc in nlp.pipe(toy_rel.texts()) if doc._.mmcot_rel)
    before = [
        ((h.text, t.text, label), pytest.approx(score))
        for h, t, label, score in nlp(text)._.mmcot_rel
    ]
    for name in ("mmcot_ner", "mmcot_rel"):
        nlp.replace_listeners("transformer", name, ["model.tok2vec"])
    nlp.remove_pipe("transformer")
    nlp.to_disk(tmp_path)
    found = spacy.load(tmp_path)(text)._.mmcot_rel
    assert [((h.text, t.text, label), score) for h, t, label, score in found] == before


def test_a_sourced_component_is_assembled_and_stays_as_it_is(
    ner_folder: Folder, run_spacy: Callable[..., str], tmp_path: Path
) -> None:
    source = ner_folder("transformer")
    before = scores(spacy.load(source))
    sourced = {"source": str(source), "replace_listeners": ["model.tok2vec"]}
    config = spacy.blank("en").config.copy()
    config["nlp"]["pipeline"] = ["mmcot_ner", "textcat"]
    config["components"] = {"mmcot_ner": sourced, "textcat": {"factory": "textcat"}}
    config["training"].update(frozen_components=["mmcot_ner"], max_steps=2, eval_frequency=1)
    for split in ("train", "dev"):
        corpus = {"@readers": "spacy.Corpus.v1", "path": str(tmp_path / "train.spacy")}
        config["corpora"][split] = corpus
    config.to_disk(tmp_path / "config.cfg", interpolate=False)
    nlp = spacy.blank("en")
    docs = [nlp(text) for text in toy.texts()]
    for i, doc in enumerate(docs):
        doc.cats = {"A": i % 2, "B": 1 - i % 2}
    write_docs(tmp_path / "train.spacy", docs)

    config["nlp"]["pipeline"] = ["mmcot_ner"]
    config["components"] = {"mmcot_ner": sourced}
    config.to_disk(tmp_path / "assemble.cfg", interpolate=False)
    run_spacy("assemble", tmp_path / "assemble.cfg", tmp_path / "assembled")
    assert scores(spacy.load(tmp_path / "assembled")) == before
    run_spacy("train", tmp_path / "config.cfg", "--output", tmp_path / "trained")
    trained = spacy.load(tmp_path / "trained" / "model-last")
    assert trained.pipe_names == ["mmcot_ner", "textcat"]
    assert scores(trained) == before


@pytest.mark.parametrize("component", ["mmcot_ner", "mmcot_rel"])
def test_a_threshold_is_a_probability(component: str) -> None:
    with pytest.raises(MMCoTError, match=rf"E409.+{component}: threshold is 40.*0\.0 to 1\.0"):
        spacy.blank("en").add_pipe(component, config={"threshold": 40})

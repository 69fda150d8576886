"""Which labels `mmcot_ner` knows, and what it says about those it does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import toy
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.training.initialize import init_nlp

from spacy_mmcot.distillation.soft_labels import set_soft_labels
from spacy_mmcot.errors import MMCoTError


def test_labels_come_from_the_data() -> None:
    nlp = toy.initialised()
    component = nlp.get_pipe("mmcot_ner")
    assert component.is_initialized
    assert component.labels == component.label_data == toy.LABELS
    assert component.tags == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def test_labels_can_be_given() -> None:
    nlp = toy.pipeline()
    nlp.config["initialize"]["components"]["mmcot_ner"] = {"labels": ["PER", "MISC", "LOC"]}
    nlp.initialize(lambda: toy.examples(nlp))
    assert nlp.get_pipe("mmcot_ner").labels == ("LOC", "MISC", "PER")


def test_labels_can_be_added_before_initialise() -> None:
    nlp = toy.pipeline()
    component = nlp.get_pipe("mmcot_ner")
    assert component.add_label("MISC") == 1
    assert component.add_label("MISC") == 0
    assert component.add_label("LOC") == 1
    assert component.labels == ("LOC", "MISC")
    nlp.initialize(lambda: toy.examples(nlp))
    assert component.labels == ("LOC", "MISC", "PER")
    assert component.model.get_ref("head").get_dim("nO") == 7


def test_labels_suffice_to_initialise_without_data() -> None:
    nlp = toy.pipeline()
    nlp.get_pipe("mmcot_ner").add_label("PER")
    nlp.initialize()
    assert nlp("Anna sings").has_annotation("ENT_IOB")


def test_no_label_can_be_added_after_initialise() -> None:
    component = toy.initialised().get_pipe("mmcot_ner")
    assert component.add_label("PER") == 0
    with pytest.raises(MMCoTError, match=r"\[E601\] mmcot_ner .*'LOC', 'PER'.*'MISC'"):
        component.add_label("MISC")
    assert component.labels == toy.LABELS


def test_no_labels_at_all() -> None:
    nlp = toy.pipeline()
    data = [Example.from_dict(nlp.make_doc("nobody sings"), {"entities": []})]
    with pytest.raises(MMCoTError, match=r"\[E600\] mmcot_ner has no labels"):
        nlp.initialize(lambda: data)


def test_labels_of_soft_labels_count() -> None:
    nlp = toy.pipeline()
    eg = Example(nlp.make_doc("Anna sings"), nlp.make_doc("Anna sings"))
    set_soft_labels(eg.reference, ["O", "B-ART", "I-ART"], numpy.full((2, 3), 1 / 3))
    nlp.initialize(lambda: [eg])
    assert nlp.get_pipe("mmcot_ner").labels == ("ART",)


def test_a_gold_label_that_was_not_initialised() -> None:
    nlp = toy.initialised()
    eg = Example.from_dict(nlp.make_doc("Anna sings"), {"entities": [(0, 4, "ARTIST")]})
    with pytest.raises(MMCoTError, match=r"\[E603\] mmcot_ner: .*'ARTIST'.*'LOC', 'PER'"):
        nlp.update([eg])


def test_initialise_looks_past_the_first_docs() -> None:
    """The label of the last of many docs."""
    nlp = toy.pipeline()
    data = toy.examples(nlp) * 20
    data.append(Example.from_dict(nlp.make_doc("Acme sings"), {"entities": [(0, 4, "ORG")]}))
    nlp.initialize(lambda: data)
    assert nlp.get_pipe("mmcot_ner").labels == ("LOC", "ORG", "PER")


def test_initialise_with_empty_docs_first() -> None:
    nlp = toy.pipeline()
    empty = [Example(Doc(nlp.vocab), Doc(nlp.vocab)) for _ in range(12)]
    nlp.initialize(lambda: [*empty, *toy.examples(nlp)])
    assert nlp.get_pipe("mmcot_ner").labels == toy.LABELS
    assert len(nlp("Anna sings")) == 2


@pytest.mark.parametrize("bad", [None, 3, []], ids=["none", "a number", "no function"])
def test_initialise_wants_a_function(bad: object) -> None:
    component = toy.pipeline().get_pipe("mmcot_ner")
    with pytest.raises((TypeError, ValueError), match="E930"):
        component.initialize(bad)


def test_two_components_of_different_names() -> None:
    nlp = toy.pipeline()
    nlp.add_pipe("mmcot_ner", name="products", config=toy.settings())
    nlp.get_pipe("products").add_label("PRODUCT")
    nlp.get_pipe("mmcot_ner").add_label("PER")
    nlp.initialize()
    assert nlp.pipe_labels == {"mmcot_ner": ["PER"], "products": ["PRODUCT"]}
    losses = nlp.update([Example.from_dict(nlp.make_doc("so"), {"entities": ["-"]})], losses={})
    assert set(losses) == {"mmcot_ner", "products"}


def write_config(nlp: Language, path: Path, train: Path) -> None:
    config = nlp.config.copy()
    corpus = {"@readers": "spacy_mmcot.Corpus.v1", "path": str(train)}
    config["corpora"] = {"train": corpus, "dev": dict(corpus)}
    config.to_disk(path)


def test_init_labels_writes_them_and_a_config_reads_them(
    run_spacy: Callable[..., str], tmp_path: Path
) -> None:
    nlp = toy.pipeline()
    train = tmp_path / "train.spacy"
    DocBin(docs=[eg.reference for eg in toy.examples(nlp)]).to_disk(train)
    write_config(nlp, tmp_path / "config.cfg", train)
    run_spacy("init", "labels", tmp_path / "config.cfg", tmp_path / "labels")
    saved = tmp_path / "labels" / "mmcot_ner.json"
    assert json.loads(saved.read_text("utf-8")) == list(toy.LABELS)

    saved.write_text(json.dumps([*toy.LABELS, "MISC"]), "utf-8")
    labels = {"@readers": "spacy.read_labels.v1", "path": str(saved)}
    other = spacy.util.load_config(tmp_path / "config.cfg")
    other["initialize"]["components"] = {"mmcot_ner": {"labels": labels}}
    made = init_nlp(other)
    assert made.get_pipe("mmcot_ner").labels == ("LOC", "MISC", "PER")


def test_a_second_initialisation_starts_from_scratch() -> None:
    nlp = spacy.blank("en")
    component = nlp.add_pipe("mmcot_ner")
    for labels in (["PER", "LOC"], ["LOC", "MISC", "ORG", "PER"], ["PER", "LOC"]):
        component.initialize(lambda: toy.examples(nlp), labels=labels)
        assert component.labels == tuple(sorted(labels))
        assert component.predict_marginals([nlp.make_doc("Anna")])[0].shape == (
            1,
            2 * len(labels) + 1,
        )


@pytest.mark.parametrize("bad", ["PER", ["PER", 3], ["PER", ""], {"labels": ["PER"]}])
def test_labels_of_another_form(bad: Any) -> None:
    nlp = toy.pipeline()
    component: Any = nlp.get_pipe("mmcot_ner")
    with pytest.raises(MMCoTError, match=r"\[E613\] mmcot_ner: .*'?PER'?.*init labels"):
        component.initialize(lambda: toy.examples(nlp), labels=bad)

"""Which labels `mmcot_rel` knows, which of them a pair may have, and its settings in configs."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import toy
import toy_rel
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.training.initialize import init_nlp

from spacy_mmcot.distillation.soft_labels import SoftRelations, set_soft_relations
from spacy_mmcot.errors import MMCoTError

ALL = ["banned_from", "born_in", "employs"]


def test_labels_and_types_come_from_the_data() -> None:
    component = toy_rel.component(toy_rel.initialised())
    assert component.is_initialized
    assert component.labels == toy_rel.LABELS
    assert component.cfg["types"] == ["LOC", "PER"]
    assert component.model.get_dim("nO") == 4


def test_labels_can_be_added_before_initialise() -> None:
    nlp = toy_rel.pipeline()
    component = toy_rel.component(nlp)
    assert [component.add_label(label) for label in ("knows", "knows", "employs")] == [1, 0, 1]
    assert component.labels == ("employs", "knows")
    nlp.initialize(lambda: toy_rel.examples(nlp))
    assert component.labels == ("banned_from", "born_in", "employs", "knows")


def test_labels_suffice_to_initialise_without_data() -> None:
    nlp = toy_rel.pipeline()
    toy_rel.component(nlp).add_label("knows")
    nlp.initialize()
    assert nlp("Anna knows Bo").ents
    assert nlp.pipe_labels["mmcot_rel"] == ["knows"]


def test_no_label_can_be_added_after_initialise() -> None:
    component = toy_rel.component(toy_rel.initialised())
    assert component.add_label("employs") == 0
    with pytest.raises(MMCoTError, match=r"\[E601\] mmcot_rel .*'banned_from'.*'knows'"):
        component.add_label("knows")
    assert component.labels == toy_rel.LABELS


def test_no_labels_at_all() -> None:
    nlp = toy_rel.pipeline()
    doc = toy_rel.annotated(nlp, "Anna knows Bo", ["Anna", "Bo"], [])
    with pytest.raises(MMCoTError, match=r"\[E600\] mmcot_rel has no labels"):
        nlp.initialize(lambda: [Example(nlp.make_doc(doc.text), doc)])


def test_labels_of_soft_relations_count() -> None:
    nlp = toy_rel.pipeline()
    reference = nlp.make_doc("Anna knows Acme")
    rows = numpy.array([[0.2, 0.8]], dtype="float32")
    mentions = [(0, 4, "PER"), (11, 15, "ORG")]
    set_soft_relations(reference, SoftRelations(["knows"], mentions, numpy.array([[0, 1]]), rows))
    nlp.initialize(lambda: [Example(nlp.make_doc(reference.text), reference)])
    component = toy_rel.component(nlp)
    assert (component.labels, component.cfg["types"]) == (("knows",), ["ORG", "PER"])


def test_initialise_looks_past_the_first_docs_and_past_empty_ones() -> None:
    nlp = toy_rel.pipeline()
    data = [Example(Doc(nlp.vocab), Doc(nlp.vocab)) for _ in range(12)]
    data += toy_rel.examples(nlp) * 4
    late = toy_rel.annotated(nlp, "Anna loves Bo", ["Anna", "Bo"], [("Anna", "Bo", "loves")])
    data.append(Example(nlp.make_doc(late.text), late))
    nlp.initialize(lambda: data)
    assert toy_rel.component(nlp).labels == (*toy_rel.LABELS, "loves")


@pytest.mark.parametrize("bad", [None, 3, []], ids=["none", "a number", "no function"])
def test_initialise_wants_a_function(bad: object) -> None:
    component = toy_rel.component(toy_rel.pipeline())
    with pytest.raises((TypeError, ValueError), match="E930"):
        component.initialize(bad)


SCHEMA = {"labels": ["employs"], "types": ["PER"], "legal": None, "log_prior": [0.0, 0.0]}


@pytest.mark.parametrize(
    "bad",
    [
        ["employs"],
        {"labels": ["employs"]},
        {**SCHEMA, "labels": "employs"},
        {**SCHEMA, "labels": ["employs", 3]},
        {**SCHEMA, "types": [""]},
    ],
)
def test_labels_of_another_form(bad: Any) -> None:
    nlp = toy_rel.pipeline()
    with pytest.raises(MMCoTError, match=r"\[E613\] mmcot_rel: .*'employs'.*init labels"):
        toy_rel.component(nlp).initialize(lambda: toy_rel.examples(nlp), labels=bad)


def test_a_second_initialisation_starts_from_scratch() -> None:
    nlp = toy_rel.pipeline(legal=toy_rel.LEGAL)
    component = toy_rel.component(nlp)
    every = toy_rel.examples(nlp)
    few = [eg for eg in every if "employs" in eg.text]
    for data, labels in ((few, ("employs",)), (every, toy_rel.LABELS), (few, ("employs",))):
        component.initialize(lambda data=data: data)
        assert component.labels == labels
        assert component.cfg["legal"] == toy_rel.LEGAL
        (soft,) = component.predict_soft_relations([every[2].reference])
        assert soft.probabilities.shape == (2, 1 + len(labels))


def test_two_components_of_different_names() -> None:
    nlp = toy_rel.pipeline()
    nlp.add_pipe("mmcot_rel", name="family", config=toy_rel.settings())
    toy_rel.component(nlp).add_label("employs")
    nlp.get_pipe("family").add_label("married")
    nlp.initialize()
    assert nlp.pipe_labels["mmcot_rel"] == ["employs"]
    assert nlp.pipe_labels["family"] == ["married"]


@pytest.mark.parametrize("bad", ["learned", "", "null"])
def test_legal_of_another_word(bad: str) -> None:
    with pytest.raises(MMCoTError, match=rf"\[E610\] mmcot_rel: legal is '{bad}'.*null"):
        toy_rel.pipeline(legal=bad)


@pytest.mark.parametrize("legal", [toy_rel.LEGAL, None])
def test_a_map_that_allows_what_is_gold_warns_of_nothing(legal: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=r"\[W600\]")
        toy_rel.initialised(legal=legal)


def test_illegal_labels_are_never_predicted() -> None:
    """Not even by a model that has learned nothing, under a threshold that lets all through."""
    nlp = toy_rel.initialised(legal=toy_rel.LEGAL, threshold=0.0)
    component = toy_rel.component(nlp)
    assert component.cfg["legal"] == toy_rel.LEGAL
    found = [r for doc in nlp.pipe(toy_rel.texts()) for r in doc._.mmcot_rel]
    assert len(found) > 50
    for head, tail, label, score in found:
        assert label in toy_rel.LEGAL[head.label_][tail.label_]
        assert 0 < score <= 1
    for soft in component.predict_soft_relations(toy_rel.references(nlp)):
        for (head, tail), row in zip(soft.pairs, soft.probabilities, strict=True):
            types = soft.mentions[head][2], soft.mentions[tail][2]
            allowed = toy_rel.LEGAL.get(types[0], {}).get(types[1], [])
            assert {ALL[i] for i in numpy.flatnonzero(row[1:])} <= set(allowed)
            assert row.sum() == pytest.approx(1.0, abs=1e-5)


def test_without_legal_any_label_may_be_predicted() -> None:
    """The counterpart: the untrained model of the test above does say what is illegal."""
    nlp = toy_rel.initialised(threshold=0.0)
    found = [r for doc in nlp.pipe(toy_rel.texts()) for r in doc._.mmcot_rel]
    assert any(head.label_ == "LOC" for head, _, _, _ in found)


def test_a_gold_label_that_the_map_rules_out_teaches_nothing() -> None:
    with pytest.warns(
        UserWarning, match=r"\[W600\] mmcot_rel: .* rules out (\d+) of the (\d+) gold"
    ):
        nlp = toy_rel.initialised(legal={"PER": {"LOC": ALL}}, negatives=None)
    doc = toy_rel.annotated(nlp, "Anna employs Bo", ["Anna", "Bo"], [("Anna", "Bo", "employs")])
    (target,) = toy_rel.component(nlp).build_targets([Example(nlp.make_doc(doc.text), doc)])
    # The ruled out pair is left out; the other direction has no relation.
    assert target.gold.tolist() == [0]
    data = toy_rel.examples(nlp)
    losses = toy.fit(nlp, data, steps=30)
    assert numpy.isfinite(losses["mmcot_rel"])
    found = [label for doc in nlp.pipe(toy_rel.texts()) for _, _, label, _ in doc._.mmcot_rel]
    assert set(found) == {"banned_from", "born_in"}
    # Gold relations that cannot be predicted count as missed.
    result = nlp.evaluate(data)
    assert result["rel_p"] == 1.0
    assert result["rel_r"] < 1.0


def test_legal_types_come_from_a_label_scheme(tmp_path: Path) -> None:
    relations: dict[str, Any] = {}
    for head, tails in toy_rel.LEGAL.items():
        for tail, labels in tails.items():
            for label in labels:
                relations[label] = {"definition": label, "head": head, "tail": tail}
    scheme = tmp_path / "scheme.yml"
    entities = {"PER": "people", "LOC": "places"}
    scheme.write_text(json.dumps({"entities": entities, "relations": relations}), encoding="utf-8")
    nlp = toy_rel.initialised(legal=str(scheme))
    found = toy_rel.component(nlp).cfg["legal"]
    pairs = {(h, t, label) for h, tails in found.items() for t in tails for label in tails[t]}
    assert pairs == {(r["head"], r["tail"], label) for label, r in relations.items()}
    scheme.unlink()
    nlp.to_disk(tmp_path / "nlp")
    assert toy_rel.component(spacy.load(tmp_path / "nlp")).cfg["legal"] == found
    with pytest.raises(MMCoTError, match=r"none\.yml"):
        toy_rel.initialised(legal="none.yml")


def test_legal_survives_a_round_trip(tmp_path: Path) -> None:
    nlp = toy_rel.fitted(steps=1, legal=toy_rel.LEGAL)
    nlp.to_disk(tmp_path / "model")
    loaded = spacy.load(tmp_path / "model")
    assert toy_rel.component(loaded).cfg["legal"] == toy_rel.LEGAL


def test_threshold() -> None:
    nlp = toy_rel.fitted(steps=3)
    component = toy_rel.component(nlp)
    counts = []
    for threshold in (0.0, 0.3, 0.5, 0.8, 1.1):
        component.cfg["threshold"] = threshold
        found = [doc._.mmcot_rel for doc in nlp.pipe(toy_rel.texts())]
        counts.append(sum(map(len, found)))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == sum(len(d.ents) * (len(d.ents) - 1) for d in nlp.pipe(toy_rel.texts()))
    assert counts[-1] == 0
    assert toy_rel.component(toy_rel.pipeline(threshold=0.25)).cfg["threshold"] == 0.25


def write_corpus(nlp: Language, path: Path) -> Path:
    DocBin(docs=toy_rel.references(nlp), store_user_data=True).to_disk(path)
    return path


def test_find_threshold(run_spacy: Callable[..., str], tmp_path: Path) -> None:
    nlp = toy_rel.fitted(steps=8)
    nlp.to_disk(tmp_path / "model")
    data = write_corpus(nlp, tmp_path / "dev.spacy")
    output = run_spacy(
        *("find-threshold", tmp_path / "model", data, "mmcot_rel", "threshold", "rel_f"),
        *("--n_trials", 5),
    )
    assert "Best threshold" in output
    rows = re.findall(r"^([\d.]+) +([\d.]+) *$", output, re.MULTILINE)
    scores = {float(threshold): float(score) for threshold, score in rows}
    assert set(scores) == {0.0, 0.25, 0.5, 0.75, 1.0}
    component = toy_rel.component(nlp)
    for threshold, score in scores.items():
        component.cfg["threshold"] = threshold
        expected = nlp.evaluate(toy_rel.examples(nlp))["rel_f"]
        assert score == pytest.approx(expected, abs=1e-3)
    assert len(set(scores.values())) > 2


def write_config(
    nlp: Language, path: Path, train: Path, training: dict[str, Any] | None = None
) -> Path:
    config = nlp.config.copy()
    corpus = {"@readers": "spacy_mmcot.Corpus.v1", "path": str(train)}
    config["corpora"] = {"train": corpus, "dev": dict(corpus)}
    config["training"].update(training or {})
    config.to_disk(path)
    return path


def test_init_labels_writes_them_and_a_config_reads_them(
    run_spacy: Callable[..., str], tmp_path: Path
) -> None:
    nlp = toy_rel.pipeline(legal=toy_rel.LEGAL)
    train = write_corpus(nlp, tmp_path / "train.spacy")
    config = write_config(nlp, tmp_path / "config.cfg", train)
    run_spacy("init", "labels", config, tmp_path / "labels")
    path = tmp_path / "labels" / "mmcot_rel.json"
    saved = json.loads(path.read_text("utf-8"))
    assert (saved["labels"], saved["types"]) == (ALL, ["LOC", "PER"])
    assert saved["legal"] == toy_rel.LEGAL
    assert len(saved["log_prior"]) == 4

    saved["types"].append("ORG")
    path.write_text(json.dumps(saved), "utf-8")
    other = spacy.util.load_config(config)
    labels = {"@readers": "spacy.read_labels.v1", "path": str(path)}
    other["initialize"]["components"]["mmcot_rel"] = {"labels": labels}
    component = toy_rel.component(init_nlp(other))
    assert component.cfg["types"] == ["LOC", "PER", "ORG"]
    assert component.labels == toy_rel.LABELS


def test_train_on_found_mentions_end_to_end(
    run_spacy: Callable[..., str], bert: Path, tmp_path: Path
) -> None:
    """`spacy train` with mmcot_ner annotating what mmcot_rel learns from. The transformer must
    annotate too: a listener that predicts during training reads what stands on the Doc."""
    nlp = toy_rel.transformer_pipeline(bert)
    train = write_corpus(nlp, tmp_path / "train.spacy")
    settings = {
        "annotating_components": ["transformer", "mmcot_ner"],
        "max_steps": 60,
        "eval_frequency": 20,
        "dropout": 0.0,
        "optimizer": {"@optimizers": "Adam.v1", "learn_rate": 0.003},
    }
    config = write_config(nlp, tmp_path / "config.cfg", train, settings)
    output = run_spacy("train", config, "--output", tmp_path / "out")
    assert "REL_F" in output and "REL_E2E_F" in output
    loaded = spacy.load(tmp_path / "out" / "model-best")
    result = loaded.evaluate(toy_rel.examples(loaded))
    assert result["ents_f"] > 0.9
    assert result["rel_f"] > 0.9
    assert result["rel_e2e_f"] > 0.8
    performance = loaded.meta["performance"]
    assert performance["rel_f"] == pytest.approx(result["rel_f"], abs=1e-3)

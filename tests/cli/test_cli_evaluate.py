"""evaluate: the metrics file that tables are made from, and one-line errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
import toy
from click.testing import Result
from spacy.tokens import Doc, DocBin, Span

from spacy_mmcot.evaluation.predictions import read_predictions
from spacy_mmcot.evaluation.scores import count_relations
from spacy_mmcot.types import ID_KEY, Relation

Command = Callable[..., Result]
Fails = Callable[..., str]


def test_metrics_of_a_perfect_pipeline(
    command: Command, model: Path, toy_data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "made" / "on" / "the" / "way" / "metrics.json"
    result = command("evaluate", model, toy_data, "--output", output)
    assert result.exit_code == 0, result.output
    metrics = json.loads(output.read_text("utf-8"))
    assert [metrics[f"ents_{key}"] for key in "prf"] == [1.0, 1.0, 1.0]
    assert [metrics[f"seqeval_{key}"] for key in "prf"] == [1.0, 1.0, 1.0]
    assert set(metrics["ents_per_type"]) == set(toy.LABELS)
    assert 0 <= metrics["ents_ece"] < 0.05
    assert metrics["docs"] == len(toy.texts())
    assert metrics["words_per_second"] > 0
    size = sum(file.stat().st_size for file in model.rglob("*") if file.is_file())
    assert metrics["model_mb"] == round(size / 1e6, 1) > 0
    assert metrics["training"] is None
    assert "100.00" in result.output and "PER" in result.output


def wrong_in_part(tmp_path: Path) -> Path:
    """The toy corpus, with another label on the first mention of each doc that has one, without
    its last mention, and with ids."""
    docs = []
    for number, eg in enumerate(toy.examples(spacy.blank("en"))):
        doc = eg.reference
        doc.user_data[ID_KEY] = f"toy-{number}"
        first, *others = [Span(doc, e.start, e.end, label=e.label) for e in doc.ents] or [None]
        if first is not None:
            other = "LOC" if first.label_ == "PER" else "PER"
            first = Span(doc, first.start, first.end, label=other)
            doc.set_ents([first, *others[:-1]], default="outside")
        docs.append(doc)
    path = tmp_path / "wrong.spacy"
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


def test_what_is_almost_right(command: Command, model: Path, tmp_path: Path) -> None:
    """Every doc with mentions has two, all found: one under another label, one that gold lacks."""
    data, output = wrong_in_part(tmp_path), tmp_path / "metrics.json"
    result = command("evaluate", model, data, "-o", output)
    assert result.exit_code == 0, result.output
    metrics = json.loads(output.read_text("utf-8"))
    assert [metrics[f"ents_{key}"] for key in "prf"] == [0, 0, 0]
    assert metrics["ents_ece"] > 0.9


def test_predictions_are_written(command: Command, model: Path, tmp_path: Path) -> None:
    data, path = wrong_in_part(tmp_path), tmp_path / "new" / "found.jsonl"
    output = tmp_path / "metrics.json"
    result = command("evaluate", model, data, "--predictions", path, "-o", output)
    assert result.exit_code == 0, result.output
    docs = read_predictions(path)
    assert [doc.id for doc in docs] == [f"toy-{i}" for i in range(len(toy.texts()))]
    assert [doc.text for doc in docs] == toy.texts()
    found = [[(e.start, e.end, e.label) for e in doc.entities] for doc in docs]
    assert found == toy.gold()
    nlp = spacy.load(model)
    for doc, run in zip(docs, nlp.pipe(toy.texts()), strict=True):
        assert [e.score for e in doc.entities] == pytest.approx(toy.scores(run))
        assert doc.confidence == pytest.approx(run._.mmcot_confidence)
        assert doc.words == len(run)
        assert doc.relations is None
    result = command("compare", path, path)
    assert result.exit_code == 0 and "+0.00" in result.output
    assert command("cascade", path).exit_code == 0


def test_docs_without_an_id_are_numbered(
    command: Command, model: Path, toy_data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "found.jsonl"
    assert command("evaluate", model, toy_data, "--predictions", path).exit_code == 0
    docs = read_predictions(path)
    assert [doc.id for doc in docs] == [str(i) for i in range(len(toy.texts()))]
    assert [[(e.start, e.end, e.label) for e in doc.gold or []] for doc in docs] == toy.gold()


def test_predictions_need_an_id_a_doc(fails: Fails, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    folder.mkdir()
    data = wrong_in_part(tmp_path)
    for name in ("a.spacy", "b.spacy"):
        (folder / name).write_bytes(data.read_bytes())
    path = tmp_path / "found.jsonl"
    assert "'toy-0'" in fails("E808", "evaluate", model, folder, "--predictions", path)
    assert not path.exists()


def test_training_cost_is_reported(
    command: Command, model: Path, toy_data: Path, tmp_path: Path
) -> None:
    cost = {"steps": 12, "seconds": 3.5}
    meta = json.loads((model / "meta.json").read_text("utf-8"))
    (model / "meta.json").write_text(json.dumps({**meta, "mmcot_training": cost}), "utf-8")
    result = command("evaluate", model, toy_data, "-o", tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text("utf-8"))["training"] == cost
    assert "3.5 s (12 steps)" in result.output


def test_without_output_it_only_shows(command: Command, model: Path, toy_data: Path) -> None:
    before = sorted(toy_data.parent.iterdir())
    result = command("evaluate", model, toy_data)
    assert result.exit_code == 0
    assert "100.00" in result.output
    assert sorted(toy_data.parent.iterdir()) == before


def test_a_folder_of_data_and_docs_without_labels(
    command: Command, model: Path, toy_data: Path, bare_data: Path, tmp_path: Path
) -> None:
    """Docs that nobody labelled are no misses and no false alarms."""
    folder = tmp_path / "data"
    folder.mkdir()
    for path in (toy_data, bare_data):
        (folder / path.name).write_bytes(path.read_bytes())
    result = command("evaluate", model, folder, "-o", tmp_path / "metrics.json")
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert metrics["docs"] == 2 * len(toy.texts())
    assert metrics["ents_f"] == metrics["seqeval_f"] == 1.0


def test_gold_without_any_entity(command: Command, model: Path, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    doc = nlp("nobody sings here tonight")
    doc.set_ents([], default="outside")
    DocBin(docs=[doc, Doc(nlp.vocab)]).to_disk(tmp_path / "none.spacy")
    result = command("evaluate", model, tmp_path / "none.spacy", "-o", tmp_path / "metrics.json")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "metrics.json").read_text("utf-8"))["seqeval_f"] == 0.0


def test_knowledge_is_hidden_unless_asked_for(command: Command, bert: Path, tmp_path: Path) -> None:
    """A teacher that can tell two posts apart by their knowledge alone."""
    nlp = toy.transformer_pipeline(bert, knowledge_tags=True, segment_length=16)
    data = []
    for kind, label in (("city", "LOC"), ("singer", "PER")):
        doc = nlp.make_doc("Anna is seen here")
        eg = toy.Example.from_dict(doc, {"entities": [(0, 4, label)]})
        noun = [{"mention": "Anna", "kind": kind, "explanation": ""}]
        knowledge = {"noun": noun, "sentence": f"Anna is a {kind}."}
        eg.predicted._.mmcot_knowledge = eg.reference._.mmcot_knowledge = knowledge
        data.append(eg)
    toy.fix_random_seed(0)
    nlp.initialize(lambda: data)
    toy.fit(nlp, data, steps=60, rate=0.005)
    assert nlp.evaluate(data)["ents_f"] == 1.0
    nlp.to_disk(tmp_path / "teacher")
    docbin = DocBin(docs=[eg.reference for eg in data], store_user_data=True)
    docbin.to_disk(tmp_path / "data.spacy")
    found = []
    for options in ([], ["--knowledge"]):
        output = tmp_path / "metrics.json"
        result = command(
            "evaluate", tmp_path / "teacher", tmp_path / "data.spacy", "-o", output, *options
        )
        assert result.exit_code == 0, result.output
        found.append(json.loads(output.read_text("utf-8"))["ents_f"])
    assert found[0] < found[1] == 1.0


def test_broken_data(fails: Fails, model: Path, broken_data: tuple[str, Path]) -> None:
    code, path = broken_data
    assert str(path) in fails(code, "evaluate", model, path)


def test_data_without_labels(fails: Fails, model: Path, bare_data: Path) -> None:
    assert str(bare_data) in fails("E705", "evaluate", model, bare_data)


REL_MODEL = {"@architectures": "spacy_mmcot.PairClassifier.v1", "tok2vec": toy.TOK2VEC}


def related_docs() -> list[Doc]:
    """The toy corpus: a person who sings in a place is `at` it, one who leaves a place not."""
    docs = []
    for eg in toy.examples(spacy.blank("en")):
        doc = eg.reference
        people = [ent for ent in doc.ents if ent.label_ == "PER"]
        places = [ent for ent in doc.ents if ent.label_ == "LOC"]
        met = people and "sings" in doc.text
        doc._.mmcot_rel = [Relation(people[0], places[0], "at", 1.0)] if met else []
        docs.append(doc)
    return docs


@pytest.fixture(scope="module")
def related_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("related") / "related.spacy"
    DocBin(docs=related_docs(), store_user_data=True).to_disk(path)
    return path


@pytest.fixture(scope="module")
def relation_models(tmp_path_factory: pytest.TempPathFactory, related_data: Path) -> Path:
    """Pipelines `alone` (mmcot_rel) and `both` (mmcot_ner before it), fitted to the corpus."""
    folder = tmp_path_factory.mktemp("relations")
    for name in ("alone", "both"):
        nlp = toy.pipeline() if name == "both" else spacy.blank("en")
        nlp.add_pipe("mmcot_rel", config={"model": REL_MODEL, "negatives": None})
        gold = list(DocBin().from_disk(related_data).get_docs(nlp.vocab))
        data = [toy.Example(nlp.make_doc(doc.text), doc) for doc in gold]
        toy.fix_random_seed(0)
        nlp.initialize(lambda data=data: data)
        toy.fit(nlp, data, steps=60)
        nlp.to_disk(folder / name)
    return folder


def test_relations_and_entities(
    command: Command, relation_models: Path, related_data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "metrics.json"
    result = command("evaluate", relation_models / "both", related_data, "-o", output)
    assert result.exit_code == 0, result.output
    metrics = json.loads(output.read_text("utf-8"))
    keys = ["ents_f", "seqeval_f", "rel_p", "rel_r", "rel_f", "rel_macro_f", "rel_e2e_f"]
    assert [metrics[key] for key in keys] == [1.0] * len(keys)
    assert metrics["rel_per_type"] == {"at": {"p": 1.0, "r": 1.0, "f": 1.0}}
    n_relations = sum(len(doc._.mmcot_rel) for doc in related_docs())
    assert metrics["rel_confusion"]["at"] == {"at": n_relations}
    titles = ("Entities (strict)", "Relations on gold mentions", "Relations end to end")
    assert all(title in result.output for title in titles)


def test_relations_alone_are_given_gold_entities(
    command: Command, relation_models: Path, related_data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "metrics.json"
    model = relation_models / "alone"
    result = command("evaluate", model, related_data, "-o", output)
    assert result.exit_code == 0, result.output
    metrics = json.loads(output.read_text("utf-8"))
    assert metrics["rel_f"] == metrics["rel_e2e_f"] == 1.0
    # Gold entities are no finding of the pipeline.
    assert [key for key in metrics if key.startswith(("ents", "seqeval"))] == []
    assert "Entities" not in result.output and "calibration" not in result.output
    n_relations = sum(len(doc._.mmcot_rel) for doc in related_docs())
    assert metrics["rel_confusion"]["at"] == {"at": n_relations}


def test_data_labelled_with_what_the_pipeline_does_not_find(
    fails: Fails, relation_models: Path, toy_data: Path
) -> None:
    line = fails("E705", "evaluate", relation_models / "alone", toy_data)
    assert str(toy_data) in line and "mmcot_rel" in line


def test_entities_are_scored_where_nobody_labelled_relations(
    command: Command, relation_models: Path, toy_data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "metrics.json"
    result = command("evaluate", relation_models / "both", toy_data, "-o", output)
    assert result.exit_code == 0, result.output
    metrics = json.loads(output.read_text("utf-8"))
    assert metrics["ents_f"] == 1.0
    assert [key for key in metrics if key.startswith("rel")] == []


def test_predictions_of_relations(
    command: Command, relation_models: Path, related_data: Path, tmp_path: Path
) -> None:
    """Entities that a pipeline was given are none of its findings."""
    n_relations = sum(len(doc._.mmcot_rel) for doc in related_docs())
    for name in ("both", "alone"):
        path = tmp_path / f"{name}.jsonl"
        arguments = (relation_models / name, related_data, "--predictions", path)
        assert command("evaluate", *arguments).exit_code == 0
        docs = read_predictions(path)
        counts = count_relations(docs).sum(axis=0).tolist()
        assert counts == [n_relations] * 3
        assert all((doc.gold is None) == (name == "alone") for doc in docs)
        assert all(r.score is not None for doc in docs for r in doc.relations or ())
    pair = (tmp_path / "alone.jsonl", tmp_path / "both.jsonl")
    result = command("compare", *pair)
    assert result.exit_code == 0, result.output
    assert "relations, end to end" in result.output and "entities" not in result.output


def test_output_that_cannot_be_written(
    fails: Fails, model: Path, toy_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    fails("E103", "evaluate", model, toy_data, "-o", tmp_path / "file" / "metrics.json")


@pytest.mark.parametrize("damage", ["absent", "empty", "config", "meta", "weights", "no weights"])
@pytest.mark.parametrize("name", ["evaluate", "calibrate", "teach"])
def test_pipelines_that_cannot_be_loaded(
    name: str, damage: str, fails: Fails, model: Path, toy_data: Path, tmp_path: Path
) -> None:
    weights = model / "mmcot_ner" / "model"
    if damage == "absent":
        model = tmp_path / "no-such-model"
    elif damage == "empty":
        model = tmp_path / "empty"
        model.mkdir()
    elif damage == "config":
        (model / "config.cfg").write_text("[nlp]\nlang = ", "utf-8")
    elif damage == "meta":
        (model / "meta.json").write_text("{", "utf-8")
    elif damage == "weights":
        weights.write_bytes(weights.read_bytes()[:2000])
    else:
        weights.unlink()
    output = ["-o", tmp_path / "taught.spacy"] if name == "teach" else []
    line = fails("E700", name, model, toy_data, *output)
    assert str(model) in line


def test_a_package_that_is_not_installed(fails: Fails, toy_data: Path) -> None:
    assert "en_no_such_pipeline" in fails("E700", "evaluate", "en_no_such_pipeline", toy_data)


def test_a_gpu_that_is_not_there_is_one_line(
    fails: Callable[..., str], command: Command, model: Path, toy_data: Path, tmp_path: Path
) -> None:
    if spacy.prefer_gpu():
        spacy.require_cpu()
        pytest.skip("there is a GPU")
    page = tmp_path / "page.html"
    for arguments in (
        ("evaluate", model, toy_data),
        ("calibrate", model, toy_data),
        ("teach", model, toy_data, "-o", tmp_path / "taught.spacy"),
        ("report", page, "--data", toy_data, "--pipeline", f"a={model}"),
        ("review", model, toy_data, "-o", page),
    ):
        assert "The GPU 0 cannot be used" in fails("E702", *arguments, "--gpu-id", 0)

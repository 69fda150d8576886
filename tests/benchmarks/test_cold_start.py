"""`benchmarks cold-start`: what a process costs before its first document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app


@pytest.mark.slow
def test_a_wheel_and_its_pipeline_start_in_processes_of_their_own(
    toy_transformer_model: Path, tmp_path: Path
) -> None:
    written = tmp_path / "cold.json"
    words = ["cold-start", str(toy_transformer_model), "--rounds", "1", "--json", str(written)]
    result = CliRunner().invoke(app, words)
    if "No matching distribution" in result.output:
        pytest.skip("no package index")
    assert result.exit_code == 0, result.output
    figures = json.loads(written.read_text("utf-8"))
    for name in ("cold_cpu_s", "cold_rss_mb", "environment_mb"):
        assert 0 < figures[name] < figures[f"torch_{name}"]
    assert figures["environment_mb"] < 600


def test_no_pipeline_is_an_error_with_a_cure(tmp_path: Path) -> None:
    words = ["cold-start", str(tmp_path / "nothing"), "--rounds", "1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    assert "[E700]" in result.output
    assert "Traceback" not in result.output

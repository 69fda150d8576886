"""benchmark ladder: several pipelines over the same texts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from click.testing import Result


def test_two_pipelines(
    command: Callable[..., Result], model: Path, toy_data: Path, tmp_path: Path
) -> None:
    other, output = tmp_path / "other", tmp_path / "ladder.json"
    shutil.copytree(model, other)
    done = command(
        *("benchmark", "ladder", model, other),
        *("--data", toy_data, "--rounds", 1, "--json", output),
    )
    assert done.exit_code == 0, done.output
    figures = json.loads(output.read_text("utf-8"))
    assert list(figures) == [str(model), str(other)]
    assert figures[str(model)]["times"] == 1
    assert all(row["words_per_second"] > 0 for row in figures.values())
    assert str(other) in done.output


def test_one_pipeline_named_twice(fails: Callable[..., str], model: Path, toy_data: Path) -> None:
    line = fails("E738", "benchmark", "ladder", model, model, "--data", toy_data)
    assert str(model) in line

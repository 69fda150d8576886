"""The ladder of students: its plan and its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from research.__main__ import app
from research.plan import read_plan
from research.results import append_result

REPOSITORY = Path(__file__).parents[2]


def test_every_student_of_the_plan_learns_from_the_same_posts_of_one_teacher() -> None:
    plan = read_plan(REPOSITORY / "research" / "plans" / "ladder.yaml")
    students = [run for run in plan.runs.values() if run.teacher]
    assert len(students) == 3
    assert {run.teacher for run in students} == {"teacher"}
    assert len({tuple(run.train) for run in students}) == 1
    assert all((REPOSITORY / run.config).is_file() for run in plan.runs.values())


def result(run: str, seed: int, f: float, speed: int, **description: Any) -> dict[str, Any]:
    metrics = {"ents_f": f, "words_per_second": speed, "model_mb": 10.0 + seed, "training": None}
    return {
        **{"schema": 1, "experiment": "ladder", "run": run, "seed": seed, "evaluated_on": "dev"},
        **{"metrics": metrics, "also_on": {}, "other_pictures": {}, "description": description},
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results.jsonl"
    for line in (
        result("teacher", 1, 0.85, 1000, knowledge=True),
        result("minilm", 1, 0.81, 2000),
        result("minilm", 2, 0.80, 2400),
        result("cnn", 1, 0.10, 9),
        # Repeated: the last result counts.
        result("cnn", 1, 0.765, 19_800),
        {**result("cnn", 1, 0.9, 5), "experiment": "other"},
    ):
        append_result(path, line)
    return path


def table(results: Path, *arguments: object) -> Result:
    words = ["ladder", *arguments, "--results", results]
    return CliRunner().invoke(app, list(map(str, words)))


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_the_table_of_what_each_run_measured_itself(results: Path) -> None:
    done = table(results)
    assert done.exit_code == 0, done.output
    assert cells(done.stdout)[2:] == [
        ["minilm", "80.50", "1, 2", "2,200", "1.0", "11.5"],
        ["cnn", "76.50", "1", "19,800", "9.0", "11.0"],
    ]


def test_the_table_of_speeds_side_by_side(results: Path, tmp_path: Path) -> None:
    speeds = {
        "models/ladder/minilm-1/model-best": {"words_per_second": 2500, "times": 1.0},
        "models/ladder/cnn-1/model-best": {"words_per_second": 30_000, "times": 12.0},
    }
    (tmp_path / "speeds.json").write_text(json.dumps(speeds), "utf-8")
    done = table(results, tmp_path / "speeds.json")
    assert [row[3:5] for row in cells(done.stdout)[2:]] == [["2,500", "1.0"], ["30,000", "12.0"]]


def test_no_run_of_the_plan(results: Path) -> None:
    done = table(results, "--plan", "nothing")
    assert done.exit_code == 1 and "holds no run of the plan nothing" in done.stderr

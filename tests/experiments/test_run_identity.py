"""When a finished run still counts: as long as what it was made of is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.experiments.plan import Plan
from spacy_mmcot.experiments.run import Runner

RUNS: dict[str, Any] = {
    "teacher": {"config": "teacher.cfg", "train": ["train"]},
    "student": {"config": "student.cfg", "train": ["train", "more"], "teacher": "teacher"},
}


def write_config(path: str, steps: int) -> None:
    text = f"""
    [system]
    seed = 0
    [training]
    max_steps = {steps}
    seed = ${{system.seed}}
    dropout = 0.1
    """
    Path(path).write_text(text, "utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "student"):
        write_config(f"{name}.cfg", steps=10)
    for name in ("train.spacy", "more.spacy", "dev.spacy"):
        Path(name).write_text(name, "utf-8")
    return tmp_path


def identity(name: str, seed: int = 1, **changes: Any) -> str:
    plan = Plan(name="x", **{"runs": RUNS, **changes})
    here = Path()
    return Runner(plan, here, here / "models", here / "results.jsonl")._identity(name, seed)


def test_the_same_input_is_the_same_run(folder: Path) -> None:
    assert identity("student") == identity("student")
    assert identity("student") != identity("teacher")
    assert identity("student", seed=2) != identity("student")


@pytest.mark.parametrize("name", ["more.spacy", "train.spacy", "dev.spacy"])
def test_other_files_make_another_run(name: str, folder: Path) -> None:
    before = identity("student")
    Path(name).write_text("changed", "utf-8")
    assert identity("student") != before


@pytest.mark.parametrize("name", ["student.cfg", "teacher.cfg"])
def test_other_settings_make_another_student(name: str, folder: Path) -> None:
    before = identity("student")
    write_config(name, steps=20)
    assert identity("student") != before


def test_what_changes_no_setting_changes_no_run(folder: Path) -> None:
    before = identity("student")
    config = Path("student.cfg").read_text("utf-8")
    Path("student.cfg").write_text(f"# a comment\n{config}", "utf-8")
    assert identity("student") == before
    # An override to the value that stands there already.
    assert identity("student", overrides={"training.max_steps": 10}) == before


def test_an_override_of_nothing_is_an_error(folder: Path) -> None:
    with pytest.raises(MMCoTError, match=r"\[E707\] teacher.cfg .*trining -> dropout"):
        identity("teacher", overrides={"trining.dropout": 0.2})


def test_other_overrides_make_another_run(folder: Path) -> None:
    before = identity("student")
    assert identity("student", overrides={"training.max_steps": 5}) != before
    run = {**RUNS["student"], "overrides": {"training.dropout": 0.2}}
    assert identity("student", runs={**RUNS, "student": run}) != before


def test_more_seeds_and_other_runs_change_nothing(folder: Path) -> None:
    before = identity("student")
    assert identity("student", seeds=[4, 5]) == before
    other = {"config": "teacher.cfg", "train": ["more"]}
    assert identity("student", runs={**RUNS, "other": other}) == before
    seeds = {**RUNS["student"], "seeds": [1]}
    assert identity("student", runs={**RUNS, "student": seeds}) == before


@pytest.mark.parametrize("name", ["more.spacy", "student.cfg", "teacher.cfg"])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    Path(name).unlink()
    with pytest.raises(MMCoTError, match=rf"\[E100\] {name}"):
        identity("student")

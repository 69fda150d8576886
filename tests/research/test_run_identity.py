"""When a finished run still counts: as long as what it was made of is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from research.plan import Plan, read_plan
from research.run import Runner, _folder_of
from spacy_mmcot.errors import MMCoTError

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


def test_a_student_of_other_teachers_is_another_one(folder: Path) -> None:
    def student(*seeds: int) -> str:
        return identity(
            "student", runs={**RUNS, "student": {**RUNS["student"], "teacher_seeds": seeds}}
        )

    assert student() == student(1) == identity("student")
    assert len({student(), student(2), student(1, 2), student(1, 2, 3)}) == 4


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


SETTINGS = """
    [nlp]
    pipeline = ["transformer"]
    [components]
    [components.transformer]
    [components.transformer.model]
    source = "here"
    {vision}
    [corpora]
    [corpora.train]
    limit = 0
    {pictures}
    """
SPELLED_OUT = """vision = null
    visual_prompts = 4
    picture_dropout = 0.5
    picture_swap = 0.15
    picture_matching = 0.2"""
ON = """visual_prompts = 4
    [components.transformer.model.vision]
    width = 8"""


def with_settings(vision: str = "", pictures: str = "") -> str:
    """The student's identity with these settings in its config."""
    write_config("student.cfg", steps=10)
    config = Path("student.cfg").read_text("utf-8")
    config += SETTINGS.format(vision=vision, pictures=pictures)
    Path("student.cfg").write_text(config, "utf-8")
    return identity("student")


def test_settings_that_are_off_change_no_run(folder: Path) -> None:
    before = with_settings()
    assert with_settings(pictures='pictures = "none"') == before
    assert with_settings(vision="vision = null") == before
    assert with_settings(SPELLED_OUT, 'pictures = "none"') == before
    # What says how pictures are used says nothing while none are seen.
    assert with_settings(SPELLED_OUT.replace("0.5", "0.9")) == before


def test_settings_that_are_on_make_another_run(folder: Path) -> None:
    off = with_settings()
    seeing = with_settings(ON)
    dropout = with_settings(ON.replace("visual_prompts = 4", "picture_dropout = 0.5"))
    real = with_settings(pictures='pictures = "real"')
    more = with_settings(ON.replace("visual_prompts = 4", "visual_prompts = 8"))
    assert len({off, seeing, dropout, real, more}) == 5


def test_an_override_can_switch_vision_off(folder: Path) -> None:
    before = with_settings()
    assert with_settings(ON) != before
    run = {**RUNS["student"], "overrides": {"components.transformer.model.vision": None}}
    assert identity("student", runs={**RUNS, "student": run}) == before


def test_what_is_measured_is_no_part_of_what_is_trained(folder: Path) -> None:
    """A teacher that is measured in more ways need not teach again."""

    def line(name: str, ways: list[str], **changes: Any) -> str:
        teacher = {**RUNS["teacher"], "pictures": ways}
        plan = Plan(name="x", runs={**RUNS, "teacher": teacher}, **changes)
        runner = Runner(plan, Path(), Path("models"), Path("results.jsonl"))
        trained = runner._identity(name, 1)
        assert trained == identity(name)
        return runner._measured(plan.runs[name], trained)

    assert line("teacher", ["none"]) == identity("teacher")
    assert line("student", ["real", "black"]) == identity("student")
    lines = [
        line("teacher", ["none"]),
        line("teacher", ["real"]),
        line("teacher", ["real", "none"]),
        line("teacher", ["none", "real"]),
        line("teacher", ["none"], ambiguous=["train"]),
        line("teacher", ["real"], ambiguous=["train"]),
    ]
    assert len(set(lines)) == len(lines)
    # Found out before anything is trained.
    with pytest.raises(MMCoTError, match=r"\[E100\] no-such-part\.spacy"):
        line("teacher", ["none"], ambiguous=["no-such-part"])


def test_a_run_scored_on_another_file_is_another_run(folder: Path) -> None:
    before = identity("teacher")
    other = {**RUNS["teacher"], "evaluate_on": "more"}
    assert identity("teacher", runs={**RUNS, "teacher": other}) != before
    same = {**RUNS["teacher"], "evaluate_on": "dev"}
    assert identity("teacher", runs={**RUNS, "teacher": same}) == before


def test_further_files_of_the_plan_count_for_runs_that_read_text_alone(folder: Path) -> None:
    def measured(name: str, *also_on: str) -> str:
        teacher = {**RUNS["teacher"], "knowledge": True}
        plan = Plan(name="x", runs={**RUNS, "teacher": teacher}, also_on=list(also_on))
        runner = Runner(plan, Path(), Path("models"), Path("results.jsonl"))
        return runner._measured(plan.runs[name], runner._identity(name, 1))

    before = measured("student", "more")
    assert len({measured("student"), before, measured("student", "more", "train")}) == 3
    assert measured("teacher", "more") == measured("teacher")
    Path("more.spacy").write_text("changed", "utf-8")
    assert measured("student", "more") != before


def test_files_of_one_name_in_several_folders(folder: Path) -> None:
    for name in ("a", "b"):
        Path(name).mkdir()
        Path(name, "train.spacy").write_text(name, "utf-8")
    files = [Path("a/train.spacy"), Path("b/train.spacy"), Path("more.spacy")]
    linked = _folder_of(files, Path("links"))
    found = {path.name: path.read_text("utf-8") for path in sorted(linked.iterdir())}
    assert found == {"more.spacy": "more.spacy", "train.spacy": "a", "train-1.spacy": "b"}


def test_grains_spelled_out_as_all_change_no_run(folder: Path) -> None:
    before = with_settings()
    assert with_settings(vision="segment_grains = null") == before
    assert with_settings(vision='segment_grains = ["caption"]') != before


def test_the_pace_of_a_pipeline_is_no_part_of_it(folder: Path) -> None:
    for name in ("teacher", "student"):
        with Path(f"{name}.cfg").open("a") as config:
            config.write('\n[nlp]\nlang = "en"\nbatch_size = 256\n')
    before = identity("student")
    assert identity("student", overrides={"nlp.batch_size": 7}) == before
    assert identity("student", overrides={"nlp.lang": "de"}) != before


def test_the_finished_runs_of_the_project_still_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever changes a config, or what makes an identity, so that results.jsonl no longer fits
    the plan that its lines come from, learns it here. The corpus stands in for the real one."""
    repository = Path(__file__).parents[2]
    monkeypatch.chdir(repository)
    for part in ("train", "unlabelled", "dev"):
        (tmp_path / f"{part}.spacy").write_text(part, "utf-8")
    plan = read_plan(Path("research/plans/low_resource_ner.yaml"))
    runner = Runner(plan, tmp_path, tmp_path / "models", tmp_path / "results.jsonl")
    assert {name: runner._identity(name, 1) for name in ("baseline", "teacher", "student")} == {
        "baseline": "4b2c7ae630f224b9",
        "teacher": "752028529187f2d5",
        "student": "b09365452e2b0805",
    }


@pytest.mark.parametrize("name", ["more.spacy", "student.cfg", "teacher.cfg"])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    Path(name).unlink()
    with pytest.raises(MMCoTError, match=rf"\[E100\] {name}"):
        identity("student")

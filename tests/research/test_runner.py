"""When a run is trained, measured, or taken from the results: the steps themselves are replaced by
ones that only note their calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from research import steps
from research.plan import Plan
from research.results import read_results
from research.run import Runner, link_files, resolve_config
from spacy_mmcot.errors import MMCoTError

RUNS: dict[str, Any] = {
    "teacher": {"config": "teacher.cfg", "train": ["train"]},
    "student": {"config": "student.cfg", "train": ["train", "more"], "teacher": "teacher"},
}
BOTH = ["train teacher-1", "train student-1"]


def write_config(path: Path, steps: int) -> None:
    text = f"""
    [system]
    seed = 0
    [corpora]
    [corpora.dev]
    tokens = "pipeline"
    [training]
    max_steps = {steps}
    seed = ${{system.seed}}
    dropout = 0.1
    """
    path.write_text(text, "utf-8")


class Study:
    """A folder with a corpus and configs, and the calls of the steps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[str] = []
        self.thresholds: list[dict[str, float]] = []
        self.overrides: list[dict[str, Any]] = []
        for name in ("teacher", "student"):
            write_config(folder / f"{name}.cfg", steps=10)
        for part in ("train", "more", "dev"):
            self.write(part, part)

    def write(self, part: str, content: str) -> None:
        path = self.folder / f"{part}.spacy"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, "utf-8")

    def train(self, config: Path, output: Path, overrides: dict[str, Any]) -> None:
        self.calls.append(f"train {output.name}")
        self.overrides.append(overrides)
        (output / "model-best").mkdir()
        (output / "model-best" / "weights").write_text(output.name, "utf-8")

    def label(self, teachers: list[Path], files: list[Path], output: Path, length: int) -> None:
        names = "+".join(path.parent.name for path in teachers)
        self.calls.append(f"label {names} {'+'.join(file.stem for file in files)} {length}")
        output.write_text(names, "utf-8")

    def evaluate(self, model: Path, data: Path, **options: Any) -> dict[str, Any]:
        known = " knowledge" if options["knowledge"] else ""
        self.thresholds.append(options["thresholds"])
        self.calls.append(f"evaluate {model.parent.name} {data.stem} {options['pictures']}{known}")
        return {"ents_f": 0.5, "training": {"steps": 10, "seconds": 1.0}}

    def run(self, plan: str = "x", seed: int = 1, keep: bool = False, **changes: Any) -> list[str]:
        """Run a plan's seed. Returns the calls that this took, evaluations left out."""
        self.calls.clear()
        runs = {
            name: {**run, "config": str(self.folder / run["config"])}
            for name, run in changes.pop("runs", RUNS).items()
        }
        todo = Plan.model_validate({"name": plan, "runs": runs, **changes})
        runner = Runner(
            todo,
            self.folder,
            self.folder / "models",
            self.folder / "results.jsonl",
            keep_models=keep,
        )
        for name, number in todo.order(seeds=[seed]):
            runner.run(name, number)
        return [call for call in self.calls if call.startswith("train")]

    def lines(self, plan: str = "x") -> list[dict[str, Any]]:
        return read_results(self.folder / "results.jsonl", plan)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    study = Study(tmp_path)
    monkeypatch.setattr(steps, "train_pipeline", study.train)
    monkeypatch.setattr(steps, "label_softly", study.label)
    monkeypatch.setattr(steps, "evaluate_pipeline", study.evaluate)
    return study


def change(run: str, **settings: Any) -> dict[str, Any]:
    """The plan's runs with other settings of one."""
    return {**RUNS, run: {**RUNS[run], **settings}}


def test_a_plan_runs_once(study: Study) -> None:
    assert study.run() == BOTH
    assert study.calls == [
        *("train teacher-1", "evaluate teacher-1 dev none"),
        *("label teacher-1 train+more 0", "train student-1", "evaluate student-1 dev none"),
    ]
    assert [line["run"] for line in study.lines()] == ["teacher", "student"]
    assert study.run() == [] and study.calls == []
    assert study.run(seed=2) == ["train teacher-2", "train student-2"]
    assert len({line["identity"] for line in study.lines()}) == 4


def test_a_training_gets_its_paths_and_overrides(study: Study) -> None:
    own = change("student", overrides={"training.dropout": 0.3})
    study.run(runs=own, overrides={"training.max_steps": 3})
    teacher, student = study.overrides
    corpus = study.folder / "models" / "x"
    assert teacher == {
        "corpora.dev.tokens": "gold",
        "training.before_to_disk": None,
        "training.max_steps": 3,
        "system.seed": 1,
        "paths.train": str(corpus / "teacher-1" / "corpus"),
        "paths.dev": str(study.folder / "dev.spacy"),
    }
    assert student["training.dropout"] == 0.3


def test_other_files_make_other_runs(study: Study) -> None:
    study.run()
    study.write("more", "changed")
    assert study.run() == ["train student-1"]
    study.write("train", "changed")
    assert study.run() == BOTH
    study.write("dev", "changed")
    assert study.run() == BOTH


def test_other_settings_make_other_runs(study: Study) -> None:
    study.run()
    write_config(study.folder / "student.cfg", steps=20)
    assert study.run() == ["train student-1"]
    # A student of another teacher is another student.
    write_config(study.folder / "teacher.cfg", steps=20)
    assert study.run() == BOTH
    other = {"training.dropout": 0.2}
    assert study.run(runs=change("student", overrides=other)) == ["train student-1"]
    assert study.run(overrides={"training.max_steps": 5}) == BOTH


def test_what_changes_no_setting_repeats_no_run(study: Study) -> None:
    study.run()
    config = study.folder / "student.cfg"
    config.write_text(f"# a comment\n{config.read_text('utf-8')}", "utf-8")
    assert study.run() == []
    # The value that stands there already.
    assert study.run(overrides={"training.max_steps": 10}) == []
    assert study.run(seeds=[1, 4, 5]) == []
    assert study.run(runs={**RUNS, "other": {"config": "teacher.cfg", "train": ["more"]}}) == [
        "train other-1"
    ]


def test_the_mean_of_teachers_of_several_seeds(study: Study) -> None:
    study.run()
    one = change("student", teacher_seeds=[1])
    assert study.run(runs=one) == []
    two = change("student", teacher_seeds=[2, 1], seeds=[1])
    assert study.run(runs=two) == ["train teacher-2", "train student-1"]
    assert "label teacher-2+teacher-1 train+more 0" in study.calls
    assert study.run(runs=change("student", teacher_seeds=[1, 2], seeds=[1])) == ["train student-1"]


def test_soft_labels_are_shared_by_the_students_of_a_teacher(study: Study) -> None:
    runs = {
        **RUNS,
        "prompted": {**RUNS["student"], "prompt_length": 4, "overrides": {"training.dropout": 0.0}},
    }
    study.run(runs=runs)
    # With prompt targets for the one that needs them.
    assert [call for call in study.calls if call.startswith("label")] == [
        "label teacher-1 train+more 4"
    ]


def test_more_measurements_need_no_training_while_the_pipeline_is_there(study: Study) -> None:
    study.run(keep=True)
    more = change("student", pictures=["real", "none", "black"])
    assert study.run(runs=more, keep=True) == []
    assert study.calls == [f"evaluate student-1 dev {way}" for way in ("real", "none", "black")]
    line = study.lines()[-1]
    assert list(line["other_pictures"]) == ["none", "black"]
    assert study.run(runs=more, keep=True, ambiguous=["train"]) == []
    assert len(study.lines()) == 5
    # Another file to score is another run: training was evaluated on it.
    assert study.run(runs=change("teacher", evaluate_on="more")) == BOTH
    assert study.lines()[-2]["evaluated_on"] == "more"


def test_further_files_are_scored_for_runs_that_read_text_alone(study: Study) -> None:
    outside = study.folder.parent / f"{study.folder.name}-outside.spacy"
    outside.write_text("outside", "utf-8")
    study.write("changed/one", "one")
    runs = change("teacher", knowledge=True, also_on=[str(outside)])
    study.run(runs=runs, also_on=["changed/one", "dev"])
    teacher, student = study.lines()
    assert list(teacher["also_on"]) == [str(outside)]
    assert list(student["also_on"]) == ["changed/one"]
    assert "evaluate teacher-1 dev none knowledge" in study.calls
    assert set(student["data"]) == {"train", "more", "dev", "changed/one"}
    assert study.run(runs=runs, also_on=["changed/one", "dev"], keep=True) == ["train student-1"]
    study.write("changed/one", "other")
    study.run(runs=runs, also_on=["changed/one", "dev"], keep=True)
    assert study.calls == ["evaluate student-1 dev none", "evaluate student-1 one none"]


def test_another_threshold_is_scored_without_a_training(study: Study) -> None:
    sections = "[components]\n[components.ner]\nthreshold = 0.4\n[nlp]\npipeline = ['ner']\n"
    with (study.folder / "teacher.cfg").open("a", encoding="utf-8") as config:
        config.write(f"\n{sections}")
    assert study.run(keep=True) == BOTH
    study.thresholds.clear()
    lower = change("teacher", overrides={"components.ner.threshold": 0.1})
    assert study.run(runs=lower, keep=True) == []
    assert study.thresholds == [{"ner": 0.1}]


def test_plans_share_what_is_the_same_in_them(study: Study) -> None:
    study.run(keep=True)
    others = {"base": RUNS["teacher"], "pupil": {**RUNS["student"], "teacher": "base"}}
    others["pupil"] |= {"overrides": {"training.dropout": 0.2}}
    assert study.run("other", runs=others) == ["train pupil-1"]
    base, pupil = study.lines("other")
    assert (base["run"], base["identity"]) == ("base", study.lines()[0]["identity"])
    assert pupil["identity"] != study.lines()[1]["identity"]
    own, copy = (
        study.folder / "models" / name / "model-best" / "weights"
        for name in ("x/teacher-1", "other/base-1")
    )
    assert own.samefile(copy)


def test_which_pipelines_stay(study: Study) -> None:
    def kept() -> list[str]:
        return sorted(path.parent.name for path in (study.folder / "models").glob("x/*/model-best"))

    study.run()
    assert kept() == ["teacher-1"]
    assert study.run(keep=True) == ["train student-1"]
    assert kept() == ["student-1", "teacher-1"]
    assert len(study.lines()) == 2


def test_a_line_says_all_that_its_figures_depend_on(study: Study) -> None:
    study.run(overrides={"training.max_steps": 7})
    teacher, student = study.lines()
    assert student["schema"] == 1
    given = {"max_steps": 7, "seed": 1, "dropout": 0.1}
    assert student["config"]["training"] == given | {"before_to_disk": None}
    assert student["data"]["train"] == teacher["data"]["train"] != student["data"]["more"]
    assert student["overrides"] == {"training.max_steps": 7}
    assert {"spacy-mmcot", "spacy", "torch", "python"} <= student["versions"].keys()
    assert student["seconds"]["train"] == 1.0 and student["seconds"]["evaluate"] >= 0
    assert json.loads(json.dumps(student)) == student


@pytest.mark.parametrize("name", ["more.spacy", "student.cfg"])
def test_a_missing_file_is_named_before_anything_is_trained(name: str, study: Study) -> None:
    (study.folder / name).unlink()
    with pytest.raises(MMCoTError, match=rf"\[E100\] .*{name}"):
        study.run(runs={"student": {**RUNS["student"], "teacher": None}})
    assert study.calls == [] and study.lines() == []


def test_an_override_of_nothing_is_an_error(study: Study) -> None:
    with pytest.raises(MMCoTError, match=r"\[E707\] .*teacher.cfg .*trining -> dropout"):
        resolve_config(str(study.folder / "teacher.cfg"), {"trining.dropout": 0.2})


def test_files_of_one_name_in_several_folders(study: Study) -> None:
    for part in ("a/train", "b/train", "more"):
        study.write(part, part)
    files = [study.folder / f"{part}.spacy" for part in ("a/train", "b/train", "more")]
    linked = link_files(files, study.folder / "links")
    found = {path.name: path.read_text("utf-8") for path in sorted(linked.iterdir())}
    assert found == {"more.spacy": "more", "train.spacy": "a/train", "train-1.spacy": "b/train"}

"""experiment: a plan run for real on tiny data, stopped and gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import srsly
import toy
from click.testing import Result

Command = Callable[..., Result]
Fails = Callable[..., str]

REPOSITORY = Path(__file__).parents[2]
TOTAL_STEPS = "training.optimizer.learn_rate.total_steps"
TINY = {
    TOTAL_STEPS: 4,
    "training.eval_frequency": 2,
    "training.optimizer.learn_rate.warmup_steps": 1,
}


def write_plan(folder: Path, **runs: dict[str, Any]) -> Path:
    path = folder / "plan.yaml"
    srsly.write_yaml(path, {"name": "tiny", "seeds": [1], "overrides": TINY, "runs": runs})
    return path


def small_config(folder: Path) -> Path:
    """The baseline's training settings around a pipeline without a transformer."""
    from spacy.util import load_config

    config = load_config(REPOSITORY / "configs" / "baseline.cfg")
    config["nlp"]["pipeline"] = ["mmcot_ner"]
    config["components"] = {"mmcot_ner": {"factory": "mmcot_ner", **toy.settings()}}
    config.to_disk(folder / "small.cfg")
    return folder / "small.cfg"


@pytest.mark.slow
def test_a_plan_runs_stops_and_goes_on(
    command: Command, corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = str(small_config(tmp_path))
    plan = write_plan(
        tmp_path,
        student={"config": config, "train": ["train", "unlabelled"], "teacher": "teacher"},
        teacher={"config": config, "train": ["train"]},
        baseline={
            **{"config": config, "train": ["train"]},
            **{"overrides": {"components.mmcot_ner.soft_weight": 0.0}},
            **{"also_on": [str(corpus / "test.spacy")]},
        },
    )
    models, results = tmp_path / "models", tmp_path / "results.jsonl"

    def run() -> tuple[list[str], list[dict[str, Any]]]:
        """The runs that were started, and the lines of the results file."""
        done = command("experiment", plan, corpus, "--output", models, "--results", results)
        assert done.exit_code == 0, (done.output, capfd.readouterr())
        capfd.readouterr()
        started = [row for row in done.output.splitlines() if row.startswith("── tiny: ")]
        lines = results.read_text("utf-8").splitlines()
        return started, [json.loads(row) for row in lines if row.endswith("}")]

    started, lines = run()
    assert [row.split()[2] for row in started] == ["teacher,", "student,", "baseline,"]
    assert [(row["run"], row["seed"]) for row in lines] == [
        *(("teacher", 1), ("student", 1), ("baseline", 1))
    ]
    for row in lines:
        assert row["experiment"] == "tiny"
        assert row["evaluated_on"] == "dev"
        assert 0 <= row["metrics"]["ents_f"] <= 1
        assert row["metrics"]["docs"] == 8
        assert row["metrics"]["ents_per_type"]
        assert row["overrides"] == TINY
    assert list(lines[2]["also_on"]) == ["test"]
    # The teacher stays for students to come, the others only cost space.
    folders = [path.name for path in (models / "tiny").iterdir() if path.is_dir()]
    assert folders == ["teacher-1"]

    assert run() == ([], lines)

    # Without one line, that run alone is repeated, here after half a line that a kill left.
    kept = [json.dumps(row) + "\n" for row in lines if row["run"] != "baseline"]
    results.write_text("".join(kept) + json.dumps(lines[2])[:50], "utf-8")
    started, again = run()
    assert [row.split()[2] for row in started] == ["baseline,"]
    assert [row["run"] for row in again] == ["teacher", "student", "baseline"]
    assert again[2]["identity"] == lines[2]["identity"]
    assert again[2]["metrics"]["ents_f"] == lines[2]["metrics"]["ents_f"]


@pytest.mark.slow
def test_a_failing_step_is_named_and_what_is_finished_stays(
    command: Command, corpus: Path, tmp_path: Path
) -> None:
    config = str(small_config(tmp_path))
    plan = write_plan(
        tmp_path,
        good={"config": config, "train": ["train"]},
        bad={
            "config": config,
            "train": ["train"],
            "overrides": {"training.optimizer.learn_rate.total_steps": "many"},
        },
    )
    results = tmp_path / "results.jsonl"
    options = ("--output", tmp_path / "models", "--results", results)
    done = command("experiment", plan, corpus, *options)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("✘ [E704]") and "spacy train" in line
    assert [json.loads(row)["run"] for row in results.open(encoding="utf-8")] == ["good"]


@pytest.mark.slow
def test_pictures_are_read_in_every_way_that_the_plan_names(
    command: Command, corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = str(small_config(tmp_path))
    results = tmp_path / "results.jsonl"
    options = ("--output", tmp_path / "models", "--results", results, "--keep-models")

    def run(ways: list[str], *also_on: str) -> tuple[str, list[dict[str, Any]]]:
        plan = {"name": "tiny", "seeds": [1], "overrides": TINY, "ambiguous": ["train"]}
        only = {"config": config, "train": ["train"], "pictures": ways, "also_on": [*also_on]}
        srsly.write_yaml(tmp_path / "plan.yaml", {**plan, "runs": {"student": only}})
        done = command("experiment", tmp_path / "plan.yaml", corpus, *options)
        assert done.exit_code == 0, (done.output, capfd.readouterr())
        lines = results.read_text("utf-8").splitlines()
        return done.output, [json.loads(row) for row in lines]

    def read(line: dict[str, Any]) -> list[tuple[str, int]]:
        every = [line["metrics"], *line["other_pictures"].values(), *line["also_on"].values()]
        assert all(metrics["ambiguous_n"] >= 0 for metrics in every)
        return [(metrics["pictures"], metrics["docs_with_picture"]) for metrics in every]

    _, (line,) = run(["none"])
    assert read(line) == [("none", 0)]
    trained = (tmp_path / "models" / "tiny" / "student-1" / "trained").stat().st_mtime_ns

    test = str(corpus / "test.spacy")
    shown, (_, line) = run(["real", "none", "shuffled"], test)
    assert read(line) == [("real", 8), ("none", 0), ("shuffled", 8), ("real", 8)]
    assert "student, no pictures" in shown and "student, shuffled pictures" in shown
    # More is measured, but nothing trained anew.
    assert (tmp_path / "models" / "tiny" / "student-1" / "trained").stat().st_mtime_ns == trained
    assert len(run(["real", "none", "shuffled"], test)[1]) == 2


def test_no_plan(fails: Fails, corpus: Path, tmp_path: Path) -> None:
    fails("E100", "experiment", tmp_path / "absent.yaml", corpus)
    (tmp_path / "plan.yaml").write_text("name: [", "utf-8")
    fails("E703", "experiment", tmp_path / "plan.yaml", corpus)


def test_missing_data_and_config(fails: Fails, corpus: Path, tmp_path: Path) -> None:
    options = ("--output", tmp_path / "models", "--results", tmp_path / "results.jsonl")
    config = str(small_config(tmp_path))
    plan = write_plan(tmp_path, a={"config": config, "train": ["no-such-part"]})
    assert "no-such-part.spacy" in fails("E100", "experiment", plan, corpus, *options)
    plan = write_plan(tmp_path, a={"config": "no-such.cfg", "train": ["train"]})
    assert "no-such.cfg" in fails("E100", "experiment", plan, corpus, *options)
    assert not (tmp_path / "results.jsonl").exists()


def test_runs_and_seeds_that_are_not_in_the_plan(
    fails: Fails, corpus: Path, tmp_path: Path
) -> None:
    plan = write_plan(tmp_path, a={"config": "a.cfg", "train": ["train"]})
    fails("E702", "experiment", plan, corpus, "--only", "b")
    fails("E706", "experiment", plan, corpus, "--seed", 9)

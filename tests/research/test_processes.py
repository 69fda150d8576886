"""Plans with real trainings: in this process where it serves, in processes of their own where they
are killed or share a results file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly
import toy
from click.testing import Result
from spacy.util import load_config
from typer.testing import CliRunner

from research.__main__ import app
from spacy_mmcot import __version__, read_docs, write_docs
from spacy_mmcot.corpus.extensions import register_extensions, set_image
from spacy_mmcot.distillation.soft_labels import get_soft_labels
from spacy_mmcot.evaluation.predictions import read_predictions
from spacy_mmcot.evaluation.scores import compute_f, count_entities

REPOSITORY = Path(__file__).parents[2]
STEPS = 4
OVERRIDES = {
    "training.optimizer.learn_rate.total_steps": STEPS,
    "training.optimizer.learn_rate.warmup_steps": 1,
    "training.eval_frequency": STEPS,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus and a config that train in a second."""
    register_extensions()
    docs = [eg.reference for eg in toy.examples(spacy.blank("en"))]
    for doc in docs[:3]:
        set_image(doc, b"no picture is opened")
    for part in ("train", "more", "changed/one", "changed/two"):
        write_docs(tmp_path / f"{part}.spacy", docs)
    write_docs(tmp_path / "dev.spacy", docs[:4])
    config = load_config(REPOSITORY / "configs" / "student.cfg")
    config["nlp"]["pipeline"] = ["mmcot_ner"]
    config["components"] = {"mmcot_ner": {"factory": "mmcot_ner", **toy.settings()}}
    config.to_disk(tmp_path / "small.cfg")
    return tmp_path


def make_arguments(folder: Path, runs: dict[str, Any], *options: object, **plan: Any) -> list[str]:
    """The arguments of `python -m research` for a plan of these runs."""
    small = {"config": str(folder / "small.cfg"), "train": ["train"]}
    runs = {name: {**small, **run} for name, run in runs.items()}
    fields = {"name": "tiny", "seeds": [1, 2], "overrides": OVERRIDES, **plan, "runs": runs}
    path = folder / f"{fields['name']}.yaml"
    srsly.write_yaml(path, fields)
    arguments = ["run", path, folder, "--results", folder / "results.jsonl"]
    return list(map(str, [*arguments, "--output", folder / "models", *options]))


def run_plan(folder: Path, runs: dict[str, Any], *options: object, **plan: Any) -> Result:
    return CliRunner().invoke(app, make_arguments(folder, runs, *options, **plan))


def read_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text("utf-8").splitlines()]


def test_a_plan_with_real_trainings(folder: Path) -> None:
    runs = {
        "teacher": {"knowledge": True},
        "student": {
            **{"train": ["train", "more"], "teacher": "teacher", "teacher_seeds": [2, 1]},
            **{"seeds": [1], "pictures": ["none", "real"]},
        },
    }
    plan: dict[str, Any] = {"also_on": ["changed/one"], "ambiguous": ["train"]}
    done = run_plan(folder, runs, "--only", "student", "--keep-models", **plan)
    assert done.exit_code == 0, done.output
    lines = read_lines(folder)
    assert [(line["run"], line["seed"]) for line in lines] == [
        *(("teacher", 2), ("teacher", 1), ("student", 1))
    ]
    _, teacher, student = lines
    assert student["config"]["training"]["max_steps"] == STEPS
    assert student["config"]["components"]["mmcot_ner"]["model"]["crf"] is True
    assert student["data"].keys() == {"train", "more", "dev", "changed/one"}
    assert student["versions"]["spacy-mmcot"] == __version__
    assert student["seconds"]["train"] == student["metrics"]["training"]["seconds"] > 0
    # The last step has the number max_steps, the first one 0.
    assert student["metrics"]["training"]["steps"] == STEPS + 1
    # What reads knowledge is not scored on copies that have none.
    assert teacher["also_on"] == {} and student["also_on"]["changed/one"]["docs"] == 7
    pictures = [student["metrics"], student["other_pictures"]["real"]]
    assert [(m["pictures"], m["docs_with_picture"]) for m in pictures] == [("none", 0), ("real", 3)]
    assert all(metrics["ambiguous_n"] == 0 for metrics in pictures)
    assert "student, real pictures" in done.output

    # What was found is there for `compare`.
    for line in (teacher, student):
        path = folder / "models" / "tiny" / f"{line['run']}-1.predictions.jsonl"
        found = read_predictions(path)
        assert len(found) == line["metrics"]["docs"] == 4
        assert compute_f(count_entities(found).sum(0)) == pytest.approx(line["metrics"]["ents_f"])

    # The student learnt from the mean of both teachers.
    (labelled,) = (folder / "models" / "tiny" / "teacher-2").glob("labelled-*.spacy")
    docs = list(read_docs(labelled, spacy.blank("en").vocab))
    assert len(docs) == 14
    teachers = [spacy.load(folder / "models" / "tiny" / f"teacher-{n}/model-best") for n in (1, 2)]
    tags = teachers[0].get_pipe("mmcot_ner").tags
    first, second = (nlp.get_pipe("mmcot_ner").predict_marginals(docs[:1])[0] for nlp in teachers)
    assert get_soft_labels(docs[0], tags) == pytest.approx((first + second) / 2, abs=2e-3)


def test_a_failing_step_is_named_and_what_is_finished_stays(folder: Path) -> None:
    bad = {"training.optimizer.learn_rate.total_steps": "many"}
    done = run_plan(folder, {"good": {}, "bad": {"overrides": bad}}, "--seed", 1)
    assert done.exit_code == 1
    assert "✘ [E704]" in done.stderr and "train" in done.stderr.splitlines()[-1]
    assert [line["run"] for line in read_lines(folder)] == ["good"]


def test_what_cannot_be_run(folder: Path) -> None:
    def fail(runs: dict[str, Any], *options: object) -> str:
        done = run_plan(folder, runs, *options)
        assert done.exit_code == 1
        (line,) = done.stderr.splitlines()
        return line

    assert "[E100] " in fail({"a": {"train": ["no-such-part"]}}, "--seed", 1)
    assert "no-such.cfg" in fail({"a": {"config": "no-such.cfg"}}, "--seed", 1)
    assert "[E702] 'b'" in fail({"a": {}}, "--only", "b")
    assert "[E706] " in fail({"a": {}}, "--seed", 9)
    assert not (folder / "results.jsonl").exists()
    done = CliRunner().invoke(app, ["run", str(folder / "absent.yaml"), str(folder)])
    assert done.exit_code == 1 and "[E100] " in done.stderr


def start(folder: Path, runs: dict[str, Any], *options: object, **plan: Any) -> Any:
    arguments = make_arguments(folder, runs, *options, **plan)
    return subprocess.Popen(
        [sys.executable, "-m", "research", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: Any) -> str:
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
def test_processes_share_results_and_wait_for_the_same_run(folder: Path) -> None:
    runs = {"teacher": {}, "student": {"train": ["more"], "teacher": "teacher"}}
    both = [start(folder, runs, "--seed", 1, "--keep-models", name=name) for name in ("a", "b")]
    shown = "".join(map(finish, both))
    # Each run has its heading twice, its training once: `spacy train` says where it saves.
    assert shown.count("── a: teacher") == shown.count("── b: teacher") == 1
    assert shown.count("Saved pipeline to output directory") == 2
    lines = read_lines(folder)
    assert sorted((line["experiment"], line["run"]) for line in lines) == [
        *(("a", "student"), ("a", "teacher"), ("b", "student"), ("b", "teacher"))
    ]
    assert len({line["identity"] for line in lines}) == 2


@pytest.mark.slow
def test_a_run_killed_half_way_is_run_again(folder: Path, wait_until: Callable[..., None]) -> None:
    runs: dict[str, Any] = {"first": {}, "second": {"overrides": {"training.dropout": 0.2}}}
    process = start(folder, runs, "--seed", 1)
    training = folder / "models" / "tiny" / "second-1" / "corpus"
    wait_until(training.is_dir)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (first,) = read_lines(folder)
    assert first["run"] == "first"

    done = run_plan(folder, runs, "--seed", 1)
    assert done.exit_code == 0, done.output
    assert "── tiny: second, seed 1" in done.output and "── tiny: first" not in done.output
    assert [line["run"] for line in read_lines(folder)] == ["first", "second"]
    assert read_lines(folder)[0] == first
    assert not training.exists()


@pytest.fixture
def wait_until() -> Callable[..., None]:
    def wait(condition: Callable[[], bool], seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.05)

    return wait

"""Plans run by real processes: side by side on one results file, and killed half way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly
import toy
from spacy.util import load_config

from spacy_mmcot import __version__
from spacy_mmcot.corpus.docbin import read_docs, write_docs
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
    """A corpus and a config that train in seconds."""
    docs = [eg.reference for eg in toy.examples(spacy.blank("en"))]
    for part in ("train", "more", "changed/one", "changed/two"):
        write_docs(tmp_path / f"{part}.spacy", docs)
    write_docs(tmp_path / "dev.spacy", docs[:4])
    config = load_config(REPOSITORY / "configs" / "baseline.cfg")
    config["nlp"]["pipeline"] = ["mmcot_ner"]
    config["components"] = {"mmcot_ner": {"factory": "mmcot_ner", **toy.settings()}}
    config.to_disk(tmp_path / "small.cfg")
    return tmp_path


def run_of(**settings: Any) -> dict[str, Any]:
    return {"config": "small.cfg", "train": ["train"], **settings}


def start(folder: Path, runs: dict[str, Any], *options: object, **plan: Any) -> Any:
    fields = {"name": "tiny", "seeds": [1, 2], "overrides": OVERRIDES, **plan, "runs": runs}
    path = folder / f"{fields['name']}.yaml"
    srsly.write_yaml(path, fields)
    arguments = ["-m", "spacy", "mmcot", "experiment", path, folder]
    arguments += ["--results", folder / "results.jsonl", "--output", folder / "models", *options]
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: Any) -> str:
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return output


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.slow
def test_a_line_says_all_that_its_figures_depend_on(folder: Path) -> None:
    runs = {"baseline": run_of(), "reader": run_of(knowledge=True, evaluate_on="more")}
    also_on = ["changed/one", "changed/two"]
    finish(start(folder, runs, "--seed", 1, also_on=also_on))
    baseline, reader = lines_of(folder)
    assert baseline["seed"] == baseline["config"]["system"]["seed"] == 1
    assert baseline["config"]["training"]["max_steps"] == STEPS
    assert baseline["config"]["components"]["mmcot_ner"]["model"]["crf"] is True
    assert baseline["data"].keys() == {"train", "dev", *also_on}
    assert baseline["data"]["train"] == baseline["data"]["changed/one"] != baseline["data"]["dev"]
    assert baseline["seconds"]["train"] == baseline["metrics"]["training"]["seconds"]
    assert baseline["seconds"]["evaluate"] > 0
    assert baseline["versions"]["spacy-mmcot"] == __version__
    assert baseline["versions"]["spacy"] == spacy.__version__
    assert {"torch", "python"} <= baseline["versions"].keys()
    scores = {part: found["docs"] for part, found in baseline["also_on"].items()}
    assert scores == {"changed/one": 7, "changed/two": 7}
    # What reads knowledge is not scored on copies that have none.
    assert reader["also_on"] == {} and reader["evaluated_on"] == "more"
    assert reader["data"].keys() == {"train", "more"}
    # What was found is there for `compare`.
    for line in (baseline, reader):
        found = read_predictions(folder / "models" / "tiny" / f"{line['run']}-1.predictions.jsonl")
        assert len(found) == line["metrics"]["docs"]
        assert compute_f(count_entities(found).sum(0)) == pytest.approx(line["metrics"]["ents_f"])
    assert finish(start(folder, runs, "--seed", 1, also_on=also_on)).count("── tiny") == 0

    # A copy that changes is scored again.
    (folder / "changed" / "one.spacy").write_bytes((folder / "dev.spacy").read_bytes())
    shown = finish(start(folder, runs, "--seed", 1, also_on=also_on))
    assert [line for line in shown.splitlines() if line.startswith("── tiny")] == [
        "── tiny: baseline, seed 1"
    ]


@pytest.mark.slow
def test_processes_with_different_seeds_share_a_results_file(folder: Path) -> None:
    runs = {
        "teacher": run_of(),
        "student": run_of(train=["train", "more"], teacher="teacher"),
    }
    both = [start(folder, runs, "--seed", seed) for seed in (1, 2)]
    for process in both:
        finish(process)
    found = sorted((line["run"], line["seed"]) for line in lines_of(folder))
    assert found == [("student", 1), ("student", 2), ("teacher", 1), ("teacher", 2)]
    assert len({line["identity"] for line in lines_of(folder)}) == 4
    assert "── tiny" not in finish(start(folder, runs))


@pytest.mark.slow
def test_processes_with_the_same_runs_wait_for_each_other(folder: Path) -> None:
    runs = {"teacher": run_of(), "student": run_of(train=["more"], teacher="teacher")}
    both = [start(folder, runs, "--seed", 1, "--keep-models", name=name) for name in ("a", "b")]
    shown = "".join(map(finish, both))
    # Each run has its heading twice, its training once: `spacy train` says where it saves.
    assert shown.count("── a: teacher") == shown.count("── b: teacher") == 1
    assert shown.count("Saved pipeline to output directory") == 2
    lines = lines_of(folder)
    assert sorted((line["experiment"], line["run"]) for line in lines) == [
        *(("a", "student"), ("a", "teacher"), ("b", "student"), ("b", "teacher"))
    ]
    assert len({line["identity"] for line in lines}) == 2


@pytest.mark.slow
def test_a_run_killed_half_way_is_run_again(folder: Path) -> None:
    runs = {"first": run_of(), "second": run_of(overrides={"training.dropout": 0.2})}
    process = start(folder, runs, "--seed", 1)
    training = folder / "models" / "tiny" / "second-1" / "corpus"
    for _ in range(3000):
        if training.is_dir():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert training.is_dir()
    (first,) = lines_of(folder)
    assert first["run"] == "first"

    shown = finish(start(folder, runs, "--seed", 1))
    assert "── tiny: second, seed 1" in shown and "── tiny: first" not in shown
    assert [line["run"] for line in lines_of(folder)] == ["first", "second"]
    assert lines_of(folder)[0] == first
    assert not training.exists()


@pytest.mark.slow
def test_the_mean_of_two_seeds_of_a_teacher(folder: Path) -> None:
    runs = {
        "teacher": run_of(),
        "student": run_of(
            train=["train", "more"], teacher="teacher", teacher_seeds=[2, 1], seeds=[1]
        ),
    }
    finish(start(folder, runs, "--only", "student"))
    lines = (folder / "results.jsonl").read_text("utf-8").splitlines()
    done = [(line["run"], line["seed"]) for line in map(json.loads, lines)]
    assert done == [("teacher", 2), ("teacher", 1), ("student", 1)]
    (taught,) = (folder / "models" / "tiny" / "teacher-2").glob("taught-*-teacher-1.spacy")
    docs = list(read_docs(taught, spacy.blank("en").vocab))
    teachers = [
        spacy.load(folder / "models" / "tiny" / f"teacher-{seed}" / "model-best") for seed in (1, 2)
    ]
    tags = teachers[0].get_pipe("mmcot_ner").tags
    first, second = (nlp.get_pipe("mmcot_ner").predict_marginals(docs[:1])[0] for nlp in teachers)
    assert get_soft_labels(docs[0], tags) == pytest.approx((first + second) / 2, abs=2e-3)


@pytest.mark.slow
def test_plans_share_what_is_the_same_in_them(folder: Path) -> None:
    runs = {"teacher": run_of(), "student": run_of(train=["more"], teacher="teacher", seeds=[1])}
    finish(start(folder, runs, "--only", "student", "--keep-models"))
    first = lines_of(folder)
    # The same training under another name, and one that needs it as its teacher.
    others = {"base": run_of(), "pupil": run_of(train=["train", "more"], teacher="base")}
    shown = finish(start(folder, others, "--seed", 1, name="other"))
    assert "── other: pupil, seed 1" in shown
    base, pupil = lines_of(folder)[len(first) :]
    assert (base["experiment"], base["run"]) == ("other", "base")
    assert base["metrics"] == first[0]["metrics"] and base["finished"] == first[0]["finished"]
    assert pupil["run"] == "pupil" and pupil["identity"] != first[1]["identity"]
    own, copy = (
        folder / "models" / name / "model-best" for name in ("tiny/teacher-1", "other/base-1")
    )
    weights = "mmcot_ner/model"
    assert (own / weights).samefile(copy / weights)


@pytest.mark.slow
def test_a_teacher_is_trained_where_a_student_needs_it(folder: Path) -> None:
    runs = {"teacher": run_of(), "student": run_of(train=["more"], teacher="teacher")}
    finish(start(folder, runs, "--seed", 1))
    shutil.rmtree(folder / "models")
    # As in a fresh clone, with the results file at hand: nothing is left to do.
    assert "── tiny" not in finish(start(folder, runs, "--seed", 1))
    runs["another"] = run_of(teacher="teacher")
    shown = finish(start(folder, runs, "--seed", 1))
    assert [line for line in shown.splitlines() if line.startswith("── tiny")] == [
        "── tiny: another, seed 1",
        "── tiny: teacher, seed 1",
    ]
    done = ["teacher", "student", "another"]
    assert [line["run"] for line in lines_of(folder)] == done
    kept = [path.name for path in (folder / "models" / "tiny").iterdir() if path.is_dir()]
    assert kept == ["teacher-1"]
    finish(start(folder, runs, "--seed", 1, "--keep-models"))
    assert [line["run"] for line in lines_of(folder)] == done
    for name in done:
        assert (folder / "models" / "tiny" / f"{name}-1" / "model-best").is_dir()

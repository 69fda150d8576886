"""The project files: what `spacy project run` reads, and that their steps fit together."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from weasel.util.config import load_project_config

ROOT = Path(__file__).parents[1]
# Folders of a project that only its runs write to.
MADE = ("corpus/", "training/", "metrics/", "packages/", "report/", "models/")
# What a workflow of the studies finds after the demo, or outside.
GIVEN = ("../corpus/demo/", "/data/")


def read_project(folder: str) -> dict[str, Any]:
    return load_project_config(ROOT / folder, overrides={"vars.data": "/data"})


@pytest.fixture(params=["", "research"])
def folder(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_demo_is_the_only_workflow_of_the_root_and_runs_no_study() -> None:
    project = read_project("")
    assert list(project["workflows"]) == ["all"]
    text = (ROOT / "project.yml").read_text("utf-8")
    assert len(text.splitlines()) <= 250
    assert not re.search(r"\b(tests|research|benchmarks)[/. ]", text)


def test_workflows_name_commands_and_every_command_serves_one(folder: str) -> None:
    project = read_project(folder)
    steps = {step for workflow in project["workflows"].values() for step in workflow}
    assert steps == {command["name"] for command in project["commands"]}


def test_every_dependency_is_there_or_made_before(folder: str) -> None:
    project = read_project(folder)
    commands = {command["name"]: command for command in project["commands"]}
    for name, workflow in project["workflows"].items():
        made: set[str] = set()
        for step in workflow:
            for path in commands[step]["deps"]:
                if f"{path}/".startswith(MADE):
                    assert path in made, f"{name}: {step} needs {path}, which no earlier step makes"
                elif not path.startswith(GIVEN):
                    assert (ROOT / folder / path).exists(), f"{step} needs {path}"
            made.update(commands[step].get("outputs", ()))


def list_words(command: dict[str, Any]) -> list[str]:
    """The words of a command's script, those of commands in quotes too."""
    words = [word for line in command["script"] for word in shlex.split(line)]
    return [part for word in words for part in shlex.split(word)]


def test_what_a_step_reads_is_a_dependency_or_made_by_itself(folder: str) -> None:
    """What a step reads and does not list would not run it again when it changes."""
    for command in read_project(folder)["commands"]:
        listed = {*command["deps"], *command.get("outputs", ())}
        words = list_words(command)
        written = {
            words[i + 1] for i, word in enumerate(words) if word in ("--output", "--answers-out")
        }
        for word in words:
            if word.startswith(("configs/", "scripts/", "assets/", "plans/", *GIVEN)):
                inside = any(path.startswith(f"{word}/") for path in listed)
                assert word in listed | written or inside, f"{command['name']} reads {word}"


def test_outputs_of_the_demo_are_named_in_its_scripts() -> None:
    for command in read_project("")["commands"]:
        words = list_words(command)
        for path in command["outputs"]:
            parents = {str(parent) for parent in Path(path).parents}
            assert {path, *parents} & set(words) or path == "packages/smoke.json", path


def test_the_switch_for_labels_is_read_by_each_step_that_depends_on_it() -> None:
    """Without labels there is neither teacher nor baseline; all else that is made has a way."""
    runs: dict[str, dict[str, list[str]]] = {}
    for labels in ("gold", "none"):
        project = load_project_config(ROOT, overrides={"vars.labels": labels})
        runs[labels] = {}
        for command in project["commands"]:
            lines = [line for line in command["script"] if not _is_left_out(line)]
            runs[labels][command["name"]] = [word for line in lines for word in _split(line)]
    for labels, other in (("gold", "none"), ("none", "gold")):
        assert labels in runs[labels]["convert"]
        for words in runs[labels].values():
            assert f"{labels}={other}" not in words
    assert "--from" in runs["none"]["teach"] and "--from" not in runs["gold"]["teach"]
    assert not runs["none"]["teacher"]
    for step in ("evaluate", "report"):
        assert not any("teacher" in w or "baseline" in w for w in runs["none"][step])
        assert any("teacher" in word for word in runs["gold"][step])


def _is_left_out(line: str) -> bool:
    """Whether a line of a script, or one of the commands in it, has a condition that fails."""
    first = _split(line)[0:3]
    return first[1] == "scripts/only_if.py" and first[2] in ("gold=none", "none=gold")


def _split(line: str) -> list[str]:
    """The words of a line, without the commands in quotes that are left out."""
    words: list[str] = []
    for word in shlex.split(line):
        if " " not in word:
            words.append(word)
        elif not _is_left_out(word):
            words += shlex.split(word)
    return words


@pytest.mark.parametrize("keep", [0, 2])
def test_hidden_labels_are_those_of_train_and_every_split_has_posts(
    tmp_path: Path, keep: int
) -> None:
    made = [
        {"id": str(i), "text": "Ada", "split": split, "entities": [], "relations": []}
        for i, split in enumerate(["train"] * 20 + ["test"] * 2)
    ]
    path = tmp_path / "posts.jsonl"
    path.write_text("".join(f"{json.dumps(post)}\n" for post in made), "utf-8")
    command = [sys.executable, "scripts/hide_labels.py"]
    subprocess.run([*command, "gold", path], cwd=ROOT, check=True)
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == made
    subprocess.run([*command, "none", path, "--keep", str(keep)], cwd=ROOT, check=True)
    posts = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    labelled = [post["id"] for post in posts if "entities" in post]
    assert labelled == [*map(str, range(keep)), "20", "21"]
    assert {post["split"] for post in posts} == {"train", "unlabelled", "dev", "test"}


# Who works where, in German: a text for each name. No post has a label.
PEOPLE = ["Anna Krug", "Jonas Weber", "Mia Thoma", "Emil Hartwig", "Greta Lohse"]
HOUSES = ["Nordbank", "Klinikum Fulda", "Stadtwerke Jena", "Hansewerft"]
LINES = ["{} arbeitet bei {}.", "Seit Mai ist {} bei {} angestellt.", "{} verlässt {} im Herbst."]

SCHEME = """
language: German
domain: Meldungen aus der Wirtschaft
entities:
  PERSON: Menschen mit ihrem Namen
  FIRMA: Unternehmen und Einrichtungen
relations:
  angestellt_bei: {definition: eine Person arbeitet dort, head: PERSON, tail: FIRMA}
"""


@pytest.mark.slow
def test_a_project_without_labels_in_german_ends_in_a_wheel(
    tmp_path: Path, bert_source: str
) -> None:
    for folder in ("configs", "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    text = (ROOT / "project.yml").read_text("utf-8")
    asked = re.sub(r"(?m)^  elicit:\n(    .*\n)+", "  elicit: {conclusion: {variants: 1}}\n", text)
    (tmp_path / "project.yml").write_text(asked, "utf-8")
    (tmp_path / "scheme.yml").write_text(SCHEME, "utf-8")
    posts, answers = [], []
    for i in range(20):
        person, house = PEOPLE[i % 5], HOUSES[i % 4]
        posts.append({"id": f"m{i}", "text": LINES[i % 3].format(person, house)})
        entities = [("PERSON", person), ("FIRMA", house)]
        conclusion = {
            "entities": [{"mention": m, "label": label, "sure": "high"} for label, m in entities],
            "relations": [
                {"head": person, "label": "angestellt_bei", "tail": house, "sure": "medium"}
            ],
        }
        answers.append({"id": f"m{i}", "conclusion": conclusion})
    for name, rows in (("posts", posts), ("answers", answers)):
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines, "utf-8")
    settings = {
        **{"labels": "none", "lang": "de", "encoder": bert_source, "sentence": posts[0]["text"]},
        **{"posts": "posts.jsonl", "recorded": "answers.jsonl", "scheme": "scheme.yml"},
        "student_steps": "500",
    }
    given = [word for name, value in settings.items() for word in (f"--vars.{name}", value)]
    first = run_project(tmp_path, given)
    found = json.loads((tmp_path / "packages" / "smoke.json").read_text("utf-8"))
    assert {"PERSON", "FIRMA"} & {label for _, label, _ in found["entities"]}
    assert "no labels in corpus/demo/gold/test.spacy" in first
    assert not list((tmp_path / "metrics").iterdir())
    assert not list((tmp_path / "training" / "teacher").iterdir())
    assert (tmp_path / "report" / "index.html").exists()
    steps = read_project("")["workflows"]["all"]
    assert run_project(tmp_path, given).count("nothing changed") == len(steps)


def run_project(folder: Path, settings: list[str]) -> str:
    """Run the workflow in a folder. Returns what it prints."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "spacy", "project", "run", "all", folder, *settings]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return run.stdout

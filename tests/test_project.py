"""The project files: what `spacy project run` reads, and that their steps fit together."""

from __future__ import annotations

import re
import shlex
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
                if path.startswith(MADE):
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
            assert {path, *parents} & set(words) or path == "metrics/smoke.json", path

"""project.yml: what `spacy project run` will read, and that its steps fit together."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from weasel.util.config import load_project_config

ROOT = Path(__file__).parents[1]
# Made by a run, not by hand.
MADE = ("corpus/", "training/", "metrics/", "packages/", "report/", "results/")
# A file that every clone has, and that experiments add to.
KEPT = ("research/results.jsonl",)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return load_project_config(ROOT, overrides={"vars.data": "../data"})


def test_workflows_name_commands_and_every_command_serves_one(project: dict[str, Any]) -> None:
    commands = {command["name"] for command in project["commands"]}
    steps = {step for workflow in project["workflows"].values() for step in workflow}
    assert steps == commands
    names = {"all", "twitter2017", "twitter2015", "mnre", "low_resource"}
    assert names <= set(project["workflows"])


def test_every_dependency_is_there_or_made_before(project: dict[str, Any]) -> None:
    commands = {command["name"]: command for command in project["commands"]}
    for workflow in project["workflows"].values():
        made: set[str] = set()
        for step in workflow:
            for path in commands[step]["deps"]:
                if path.startswith("../data"):
                    continue
                if path.startswith(MADE) and path not in KEPT:
                    assert path in made, f"{step} needs {path}, which no earlier step makes"
                else:
                    assert (ROOT / path).exists(), f"{step} needs {path}"
            made.update(commands[step].get("outputs", ()))


def test_scripts_name_files_that_are_dependencies(project: dict[str, Any]) -> None:
    """What a step reads and does not list would not run it again when it changes."""
    for command in project["commands"]:
        listed = {*command["deps"], *command.get("outputs", ())}
        for line in command["script"]:
            for word in shlex.split(line):
                if word.startswith(("configs/", "scripts/", "assets/")):
                    assert word in listed, f"{command['name']} reads {word}"

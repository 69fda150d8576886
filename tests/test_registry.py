"""Every name that setup.cfg declares works in a process that never imported the package.

One process looks all of them up. It runs outside the repository, so that it sees the package as
installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NAME = re.compile(r"\bspacy_mmcot\.\w+\.v\d+\b")

LOOK_UP = """
import json
import sys
from importlib.metadata import distribution

import spacy
import spacy_transformers  # annotation_setters is a registry of its own

registered, factories = json.loads(sys.argv[1])
installed = {}
for point in distribution("spacy-mmcot").entry_points:
    installed.setdefault(point.group, {})[point.name] = point.value
assert "spacy_mmcot" not in sys.modules
resolved = {}
for group, name in registered:
    found = getattr(spacy.registry, group).get(name)
    resolved[name] = f"{found.__module__}:{found.__qualname__}"
pipes = {}
for name in factories:
    nlp = spacy.blank("en")
    nlp.add_pipe(name)
    pipes[name] = [nlp.pipe_names, spacy.util.load_model_from_config(nlp.config).pipe_names]
print(json.dumps({"installed": installed, "resolved": resolved, "pipes": pipes}))
"""


def declared() -> dict[str, dict[str, str]]:
    """setup.cfg's entry points: group -> name -> module:attribute."""
    config = ConfigParser(delimiters=("=",))
    config.optionxform = str  # type: ignore[assignment, method-assign]
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    groups = {}
    for group, lines in config["options.entry_points"].items():
        pairs = (line.split("=", 1) for line in lines.strip().splitlines())
        groups[group] = {name.strip(): target.strip() for name, target in pairs}
    return groups


DECLARED = declared()
FACTORIES = sorted(DECLARED["spacy_factories"])
REGISTERED = [
    (group.removeprefix("spacy_"), name, target)
    for group, names in DECLARED.items()
    if group not in ("console_scripts", "spacy_cli", "spacy_factories")
    for name, target in names.items()
]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    wanted = json.dumps([[(group, name) for group, name, _ in REGISTERED], FACTORIES])
    done = subprocess.run(
        [sys.executable, "-c", LOOK_UP, wanted],
        cwd=sys.prefix,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_installed_entry_points_are_the_declared_ones(found: dict[str, Any]) -> None:
    message = "setup.cfg has changed since the last install: install again"
    assert found["installed"] == DECLARED, message


def test_every_name_resolves_to_its_target(found: dict[str, Any]) -> None:
    assert found["resolved"] == {name: target for _, name, target in REGISTERED}


def test_each_factory_adds_a_pipe_and_its_config_rebuilds_it(found: dict[str, Any]) -> None:
    assert found["pipes"] == {name: [[name], [name]] for name in FACTORIES}


def test_names_have_one_form() -> None:
    assert [name for _, name, _ in REGISTERED if not NAME.fullmatch(name)] == []
    assert [name for name in FACTORIES if not name.startswith("mmcot_")] == []


def test_every_name_in_use_is_declared() -> None:
    files = [*ROOT.glob("spacy_mmcot/**/*.py"), *ROOT.glob("configs/**/*.cfg")]
    used = {name for file in files for name in NAME.findall(file.read_text("utf-8"))}
    assert used <= {name for _, name, _ in REGISTERED}

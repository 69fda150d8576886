"""Every name that setup.cfg declares works in a process that never imported the package.

The processes run outside the repository, so that they see the package as installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAME = re.compile(r"\bspacy_mmcot\.\w+\.v\d+\b")

INSTALLED = """
import json
from importlib.metadata import distribution

groups = {}
for point in distribution("spacy-mmcot").entry_points:
    groups.setdefault(point.group, {})[point.name] = point.value
print(json.dumps(groups))
"""

RESOLVE = """
import sys
import spacy

group, name = sys.argv[1:]
if group == "annotation_setters":
    import spacy_transformers  # the registry is its own
assert "spacy_mmcot" not in sys.modules
found = getattr(spacy.registry, group).get(name)
print(found.__module__, found.__qualname__)
"""

ADD_PIPE = """
import sys
import spacy

nlp = spacy.blank("en")
nlp.add_pipe(sys.argv[1])
print(nlp.pipe_names, spacy.util.load_model_from_config(nlp.config).pipe_names)
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


def fresh(*command: str) -> str:
    done = subprocess.run(
        command, cwd=sys.prefix, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_installed_entry_points_are_the_declared_ones() -> None:
    installed = json.loads(fresh(sys.executable, "-c", INSTALLED))
    assert installed == DECLARED, "setup.cfg has changed since the last install: install again"


@pytest.mark.parametrize(("group", "name", "target"), REGISTERED, ids=[r[1] for r in REGISTERED])
def test_name_resolves(group: str, name: str, target: str) -> None:
    module, attribute = fresh(sys.executable, "-c", RESOLVE, group, name).split()
    assert f"{module}:{attribute}" == target


@pytest.mark.parametrize("name", FACTORIES)
def test_factory_adds_a_pipe_and_its_config_rebuilds_it(name: str) -> None:
    assert fresh(sys.executable, "-c", ADD_PIPE, name) == f"['{name}'] ['{name}']"


@pytest.mark.parametrize("name", sorted(DECLARED["console_scripts"]))
def test_console_script_starts(name: str) -> None:
    script = Path(sysconfig.get_path("scripts")) / name
    assert f"Usage: {name}" in fresh(str(script), "--help")


@pytest.mark.parametrize("name", sorted(DECLARED["spacy_cli"]))
def test_spacy_command_starts(name: str) -> None:
    assert f"spacy {name}" in fresh(sys.executable, "-m", "spacy", name, "--help")


def test_names_have_one_form() -> None:
    assert [name for _, name, _ in REGISTERED if not NAME.fullmatch(name)] == []
    assert [name for name in FACTORIES if not name.startswith("mmcot_")] == []


def test_every_name_in_use_is_declared() -> None:
    files = [*ROOT.glob("spacy_mmcot/**/*.py"), *ROOT.glob("configs/**/*.cfg")]
    used = {name for file in files for name in NAME.findall(file.read_text("utf-8"))}
    assert used <= {name for _, name, _ in REGISTERED}

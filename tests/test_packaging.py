"""What a user gets from a built wheel or source distribution."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import PackageNotFoundError, PathDistribution, distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "spacy_mmcot"
BUILD = "import sys; from setuptools import build_meta; {}(sys.argv[1])"

# Everything that git would take: code, prompts, type marker; and configs and demo corpus, which are
# linked into the package.
SHIPPED = sorted(
    (Path(folder) / name).relative_to(ROOT).as_posix()
    for folder, _, names in os.walk(PACKAGE, followlinks=True)
    for name in names
    if "__pycache__" not in folder
)


def build(kind: str, source: Path, output: Path) -> Path:
    """Build a copy of the sources without an index, as `pip wheel --no-build-isolation` does."""
    output.mkdir()
    code = BUILD.format(f"build_meta.build_{kind}")
    done = subprocess.run(
        [sys.executable, "-c", code, str(output)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (built,) = output.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    source = folder / "source"
    leave_out = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(PACKAGE, source / PACKAGE.name, ignore=leave_out)
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    built = build("sdist", source, folder / "dist")
    with tarfile.open(built) as archive:
        archive.extractall(folder)
    return folder / built.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    return build("wheel", sdist, sdist.parent / "wheel")


def test_sdist_holds_the_whole_package(sdist: Path) -> None:
    assert [name for name in SHIPPED if not (sdist / name).is_file()] == []


def test_wheel_holds_the_whole_package_and_no_more(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert sorted(names) == SHIPPED
    assert {"spacy_mmcot/py.typed"} <= set(names)
    assert any(name.endswith(".jinja") for name in names)


def test_wheel_carries_its_license(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("licenses/LICENSE"))
        assert b"Apache License" in archive.read(name)


# spaCy itself imports weasel, and with it httpx, typer and rich.
FOREIGN = {
    "sklearn",
    "scipy",
    "seqeval",
    "openai",
    "httpx2",
    "pyarrow",
    "matplotlib",
    "json_repair",
}
FIRST_DOC = """
import json, sys
import spacy_mmcot
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"torch", "spacy", "transformers"}, loaded
import spacy

doc = spacy.load(sys.argv[1])("Anna sings in Oslo")
print(json.dumps([[ent.text for ent in doc.ents], sorted(sys.modules)]))
"""


def link_requirements(own: PathDistribution, folder: Path) -> set[str]:
    """Link into a folder what a distribution requires without extras, and what that requires in
    turn, from the running environment. Returns their names."""
    waiting, linked = list(own.requires or ()), set[str]()
    while waiting:
        needed = Requirement(waiting.pop())
        if needed.name in linked or (needed.marker and not needed.marker.evaluate({"extra": ""})):
            continue
        linked.add(needed.name)
        try:
            found = distribution(needed.name)
        except PackageNotFoundError:
            continue  # of another platform
        waiting += found.requires or ()
        for name in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (folder / name).exists():
                (folder / name).symlink_to(found.locate_file(name))
    return linked


def test_a_student_runs_on_what_the_wheel_requires(
    wheel: Path, toy_transformer_model: Path, tmp_path: Path
) -> None:
    """And imports nothing of training and elicitation. `-S` hides the other packages."""
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (metadata,) = tmp_path.glob("*.dist-info")
    linked = link_requirements(PathDistribution(metadata), tmp_path)
    assert {"spacy", "torch", "transformers"} <= linked
    assert not {"scikit-learn", "seqeval", "aiohttp", "openai", "genai-prices"} & linked
    done = subprocess.run(
        [sys.executable, "-S", "-c", FIRST_DOC, str(toy_transformer_model)],
        env={"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found, modules = json.loads(done.stdout.splitlines()[-1])
    assert found == ["Anna", "Oslo"]
    assert {name.partition(".")[0] for name in modules} & FOREIGN == set()

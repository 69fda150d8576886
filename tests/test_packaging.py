"""What a user gets from a built wheel or source distribution."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

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

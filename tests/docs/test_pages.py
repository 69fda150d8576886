"""Settings, commands, fields and links on the pages exist, with the values that the pages give."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import typer.main

import spacy_mmcot
from spacy_mmcot import types
from spacy_mmcot.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "examples").glob("*/README.md"))


def test_every_setting_of_a_config_is_described_with_its_default() -> None:
    page = (ROOT / "docs" / "CONFIGS.md").read_text("utf-8")
    described = 0
    for part in re.split(r"^###? ", page, flags=re.MULTILINE)[1:]:
        heading = re.match(r"`\[([\w.]+)\]`(?: in `([\w./]+)`)?\n", part)
        rows = dict(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", part, re.MULTILINE))
        if heading is None or not rows:
            continue
        name, file = heading[1], ROOT / (heading[2] or "configs/student.cfg")
        written = dict(line.split(" = ", 1) for line in _block(file, name) if " = " in line)
        wanted = set(written) - _OF_SPACY.get(name, set())
        assert set(rows) == wanted, f"[{name}]"
        assert {key: written[key] for key in rows} == rows, f"[{name}]"
        described += len(rows)
    assert described > 90


# Settings of spaCy that are not described here.
_OF_SPACY = {
    "training": {
        *("train_corpus", "dev_corpus", "gpu_allocator", "before_to_disk", "before_update"),
    }
}


def _block(path: Path, name: str) -> list[str]:
    found = re.search(
        rf"^\[{re.escape(name)}\]\n(.*?)(?=^\[|\Z)", path.read_text("utf-8"), re.M | re.S
    )
    assert found is not None, name
    return [line for line in found[1].splitlines() if line and not line.startswith("#")]


def test_the_readme_lists_every_command_and_no_other() -> None:
    table = (ROOT / "README.md").read_text("utf-8").split("## The commands")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)
    group = typer.main.get_command(app)
    assert sorted(listed) == sorted(group.commands)  # type: ignore[attr-defined]


def test_every_key_of_a_docs_user_data_is_described() -> None:
    page = (ROOT / "docs" / "DATA_FORMAT.md").read_text("utf-8")
    keys = [value for name, value in vars(types).items() if name.endswith("_KEY")]
    assert len(keys) > 8
    for key in keys:
        shown = key if isinstance(key, str) else '("._.", "' + key[1] + '", None, None)'
        assert f"| `{shown}` |" in page, key


def test_every_field_of_posts_and_answers_is_described() -> None:
    page = (ROOT / "docs" / "DATA_FORMAT.md").read_text("utf-8")
    for record in (types.Post, types.Answers):
        for field in record.model_fields:
            assert f"| `{field}` |" in page or field == "id"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.name}")
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name}: {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", found.read_text("utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", t).strip().lower().replace(" ", "-") for t in titles}
            assert anchor in anchors, f"{page.name}: {target}"


def test_pages_and_examples_import_from_the_public_api_alone() -> None:
    texts = {page: page.read_text("utf-8") for page in PAGES}
    texts |= {path: path.read_text("utf-8") for path in (ROOT / "examples").rglob("*.py")}
    imported = set()
    for path, text in texts.items():
        assert not re.search(r"^\s*(from|import) spacy_mmcot\.", text, re.MULTILINE), path.name
        for names in re.findall(r"^\s*from spacy_mmcot import (.+)$", text, re.MULTILINE):
            imported |= set(names.split(", "))
    assert len(imported) > 8
    assert imported <= set(spacy_mmcot.__all__)


def test_the_tables_of_steps_are_those_of_the_project_file() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "project_page.py"))
    cure = "python scripts/project_page.py"
    assert script["make_page"]() == script["PAGE"].read_text("utf-8"), cure


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.split("\n## Develop")[0].split()) <= 900

from __future__ import annotations

from pathlib import Path

import pytest

from spacy_mmcot.elicitation.elicit import ElicitConfig, read_config
from spacy_mmcot.elicitation.prompts import KINDS
from spacy_mmcot.errors import MMCoTError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "project.yml"
    path.write_text(text)
    return path


def test_dimensions_variants_and_models(tmp_path: Path) -> None:
    block = "vars:\n  elicit:\n    style: {variants: 3}\n    noun:\n"
    config = read_config(written(tmp_path, block))
    assert config.variants() == {"noun": 1, "style": 3} and list(config.variants()) == [
        "noun",
        "style",
    ]
    assert config.only({"style", "image"}).variants() == {"style": 3, "image": 1}


@pytest.mark.parametrize("text", ["", "vars:\n  name: x\n", "title: x\n"])
def test_without_a_block_all_dimensions_are_asked(tmp_path: Path, text: str) -> None:
    config = read_config(written(tmp_path, text))
    assert config == ElicitConfig() and list(config.variants()) == list(KINDS)


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ("{colour: {}}", "colour"),
        ("{noun: {variants: 2}}", "noun has 2 variants"),
        ("{style: {variants: 0}}", "at least 1"),
        ("{style: {variants: many}}", "many"),
        ("{style: {size: 1}}", "size is unknown"),
        ("{}", "no dimension"),
        ("[noun]", "noun"),
    ],
)
def test_a_broken_block_is_named(tmp_path: Path, block: str, problem: str) -> None:
    path = written(tmp_path, f"vars:\n  elicit: {block}\n")
    with pytest.raises(MMCoTError, match=rf"E322.+project\.yml.+{problem}"):
        read_config(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MMCoTError, match="E100"):
        read_config(tmp_path / "none.yml")
    with pytest.raises(MMCoTError, match="E102"):
        read_config(written(tmp_path, "vars: {a"))


def test_the_projects_own_block_asks_for_everything() -> None:
    config = read_config(Path(__file__).parents[2] / "project.yml")
    assert list(config.variants()) == list(KINDS)

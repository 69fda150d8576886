from __future__ import annotations

from pathlib import Path

import pytest

from spacy_mmcot.elicitation.elicit import Ask, choose_dimensions
from spacy_mmcot.elicitation.prompts import KINDS
from spacy_mmcot.errors import MMCoTError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "project.yml"
    path.write_text(text)
    return path


def test_dimensions_and_variants(tmp_path: Path) -> None:
    block = "vars:\n  elicit:\n    style: {variants: 3}\n    noun:\n"
    path = written(tmp_path, block)
    assert list(choose_dimensions(path).items()) == [("noun", Ask()), ("style", Ask(variants=3))]
    chosen = choose_dimensions(path, {"style", "image"})
    assert chosen == {"style": Ask(variants=3), "image": Ask()}


@pytest.mark.parametrize("text", ["", "vars:\n  name: x\n", "title: x\n"])
def test_without_a_block_all_dimensions_are_asked(tmp_path: Path, text: str) -> None:
    assert list(choose_dimensions(written(tmp_path, text))) == list(KINDS)


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ("{colour: {}}", "colour"),
        ("{noun: {variants: 2}}", "noun has 2 variants"),
        ("{style: {variants: 0}}", "at least 1"),
        ("{style: {variants: many}}", "many"),
        ("{style: {size: 1}}", "size is unknown"),
        ("{}", "no dimension"),
        ("[noun]", r"noun.+an object, \{"),
    ],
)
def test_a_broken_block_is_named(tmp_path: Path, block: str, problem: str) -> None:
    path = written(tmp_path, f"vars:\n  elicit: {block}\n")
    with pytest.raises(MMCoTError, match=rf"E322.+project\.yml.+{problem}"):
        choose_dimensions(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MMCoTError, match="E100"):
        choose_dimensions(tmp_path / "none.yml")
    with pytest.raises(MMCoTError, match=r"E101.+project\.yml, line 2"):
        choose_dimensions(written(tmp_path, "vars:\n\telicit:"))
    with pytest.raises(MMCoTError, match="E105"):
        (tmp_path / "latin.yml").write_bytes("title: caf\xe9\n".encode("latin-1"))
        choose_dimensions(tmp_path / "latin.yml")


def test_the_projects_own_block_asks_for_everything() -> None:
    config = choose_dimensions(Path(__file__).parents[2] / "project.yml")
    assert list(config) == list(KINDS)

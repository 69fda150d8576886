from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from spacy.language import Language

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def nlp() -> Language:
    return spacy.blank("en")


@pytest.fixture(scope="session")
def demo() -> Path:
    return REPOSITORY / "assets" / "demo"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of public benchmark text, which is no part of the repository."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the public benchmark text is not at hand")
    return folder


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Write rows, a JSON line each, to a file in the test's folder."""

    def write(name: str, *rows: object) -> Path:
        path = tmp_path / name
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        path.write_text("".join(lines), encoding="utf-8")
        return path

    return write

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from spacy_mmcot.elicitation import engine
from spacy_mmcot.elicitation.store import AnswerStore
from spacy_mmcot.types import Entity, Post
from tests.llm_server import LLMServer

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def llm_server() -> Iterator[LLMServer]:
    with LLMServer() as server:
        yield server


@pytest.fixture
def endpoint(llm_server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> LLMServer:
    """The server that commands ask, without a word on the command line."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0815")
    monkeypatch.setenv("OPENAI_BASE_URL", llm_server.url)
    return llm_server


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fraction of the seconds between tries."""
    for name, seconds in (("_FIRST_WAIT", 0.02), ("_LONGEST_WAIT", 0.1), ("_FIRST_PAUSE", 0.05)):
        monkeypatch.setattr(engine, name, seconds)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AnswerStore]:
    with AnswerStore(tmp_path / "answers.sqlite") as opened:
        yield opened


@pytest.fixture
def posts() -> list[Post]:
    """Twelve train posts, each with a caption and one mention."""
    return [
        Post(
            id=f"p{i}",
            text=f"Anna{i} sings in Oslo tonight",
            entities=[Entity(start=0, end=len(f"Anna{i}"), label="PER")],
            caption=f"a stage with {i} lamps",
        )
        for i in range(12)
    ]


@pytest.fixture
def demo() -> Path:
    return REPOSITORY / "assets" / "demo"

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import ChatServer

from spacy_mmcot.types import Entity, Post
from tests.llm_server import LLMServer

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    server = ChatServer()
    yield server
    server.close()


@pytest.fixture
def llm_server() -> Iterator[LLMServer]:
    with LLMServer() as server:
        yield server


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


@pytest.fixture
def shared_data() -> Path:
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    return folder

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import toy
import toy_rel
from spacy.language import Language

ENCODERS = ("cnn", "transformer")


@pytest.fixture(scope="session")
def bert(toy_bert: Path) -> Path:
    return toy_bert


@pytest.fixture(scope="session")
def blank(bert: Path) -> Callable[[str], Language]:
    """An uninitialised pipeline of one of ENCODERS."""

    def make(encoder: str) -> Language:
        if encoder == "cnn":
            return toy.pipeline()
        return toy.transformer_pipeline(bert, prompt="conditional", prompt_length=2)

    return make


@pytest.fixture(scope="session")
def trained_bytes(blank: Callable[[str], Language]) -> dict[str, bytes]:
    """What a pipeline of each encoder saves once it is fitted to the toy corpus."""
    saved = {}
    for encoder in ENCODERS:
        nlp = blank(encoder)
        data = toy.examples(nlp)
        toy.fix_random_seed(0)
        nlp.initialize(lambda data=data: data)
        toy.fit(nlp, data, steps=20 if encoder == "cnn" else 60, rate=0.005)
        saved[encoder] = nlp.to_bytes()
    return saved


@pytest.fixture(params=ENCODERS)
def trained(
    request: pytest.FixtureRequest,
    blank: Callable[[str], Language],
    trained_bytes: dict[str, bytes],
) -> Language:
    return blank(request.param).from_bytes(trained_bytes[request.param])


@pytest.fixture
def trained_cnn(blank: Callable[[str], Language], trained_bytes: dict[str, bytes]) -> Language:
    return blank("cnn").from_bytes(trained_bytes["cnn"])


@pytest.fixture(scope="session")
def blank_rel(bert: Path) -> Callable[[str], Language]:
    """An uninitialised pipeline with mmcot_rel: behind a ruler, or on a transformer that it shares
    with mmcot_ner."""

    def make(encoder: str) -> Language:
        if encoder == "cnn":
            return toy_rel.pipeline()
        return toy_rel.transformer_pipeline(bert, prompt="conditional", prompt_length=2)

    return make


@pytest.fixture(scope="session")
def trained_rel_bytes(blank_rel: Callable[[str], Language]) -> Callable[[str], bytes]:
    """What a pipeline of one of ENCODERS saves once it is fitted to the toy relations."""

    @functools.cache
    def fit(encoder: str) -> bytes:
        nlp = blank_rel(encoder)
        data = toy_rel.examples(nlp)
        toy.fix_random_seed(0)
        nlp.initialize(lambda: data)
        steps, rate = (20, 0.01) if encoder == "cnn" else (130, 0.003)
        toy.fit(nlp, data, steps=steps, rate=rate)
        return nlp.to_bytes()

    return fit


@pytest.fixture(params=ENCODERS)
def trained_rel(
    request: pytest.FixtureRequest,
    blank_rel: Callable[[str], Language],
    trained_rel_bytes: Callable[[str], bytes],
) -> Language:
    return blank_rel(request.param).from_bytes(trained_rel_bytes(request.param))


@pytest.fixture
def trained_rel_cnn(
    blank_rel: Callable[[str], Language], trained_rel_bytes: Callable[[str], bytes]
) -> Language:
    return blank_rel("cnn").from_bytes(trained_rel_bytes("cnn"))

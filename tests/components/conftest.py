"""Pipelines that are fitted to the toy corpora, once a test run. Tests share the fixtures that are
pipelines and leave them as they are; a test that changes one loads its own from the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
import toy
import toy_rel
from click.testing import CliRunner
from spacy.cli import app
from spacy.language import Language
from typer.main import get_command

ENCODERS = ("cnn", "transformer")

Blank = Callable[[str], Language]
Folder = Callable[[str], Path]
SharedFolder = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def bert(toy_bert: Path) -> Path:
    return toy_bert


@pytest.fixture(scope="session")
def blank(bert: Path) -> Blank:
    """An uninitialised pipeline with mmcot_ner on one of ENCODERS."""

    def make(encoder: str) -> Language:
        if encoder == "cnn":
            return toy.pipeline()
        return toy.transformer_pipeline(bert, prompt="conditional", prompt_length=2)

    return make


@pytest.fixture(scope="session")
def ner_folder(shared_folder: SharedFolder, blank: Blank) -> Folder:
    """Where the fitted pipeline of an encoder is."""

    def fit(encoder: str, folder: Path) -> None:
        nlp = blank(encoder)
        data = toy.examples(nlp)
        toy.fix_random_seed(0)
        nlp.initialize(lambda: data)
        toy.fit(nlp, data, steps=20 if encoder == "cnn" else 60, rate=0.005)
        nlp.to_disk(folder)

    return lambda encoder: shared_folder(f"ner-{encoder}", lambda folder: fit(encoder, folder))


@pytest.fixture(scope="session", params=ENCODERS)
def trained(request: pytest.FixtureRequest, ner_folder: Folder) -> Language:
    return spacy.load(ner_folder(request.param))


@pytest.fixture(scope="session")
def trained_cnn(ner_folder: Folder) -> Language:
    return spacy.load(ner_folder("cnn"))


@pytest.fixture(scope="session")
def blank_rel(bert: Path) -> Blank:
    """An uninitialised pipeline with mmcot_rel: behind a ruler, or on a transformer that it shares
    with mmcot_ner."""

    def make(encoder: str) -> Language:
        if encoder == "cnn":
            return toy_rel.pipeline()
        return toy_rel.transformer_pipeline(bert, prompt="conditional", prompt_length=2)

    return make


@pytest.fixture(scope="session")
def rel_folder(shared_folder: SharedFolder, blank_rel: Blank) -> Folder:
    """Where the fitted pipeline of an encoder is."""

    def fit(encoder: str, folder: Path) -> None:
        nlp = blank_rel(encoder)
        data = toy_rel.examples(nlp)
        toy.fix_random_seed(0)
        nlp.initialize(lambda: data)
        steps, rate = (20, 0.01) if encoder == "cnn" else (130, 0.003)
        toy.fit(nlp, data, steps=steps, rate=rate)
        nlp.to_disk(folder)

    return lambda encoder: shared_folder(f"rel-{encoder}", lambda folder: fit(encoder, folder))


@pytest.fixture(scope="session", params=ENCODERS)
def trained_rel(request: pytest.FixtureRequest, rel_folder: Folder) -> Language:
    return spacy.load(rel_folder(request.param))


@pytest.fixture(scope="session")
def trained_rel_cnn(rel_folder: Folder) -> Language:
    return spacy.load(rel_folder("cnn"))


@pytest.fixture
def run_spacy(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command of `python -m spacy` in this process. Returns what it printed."""

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(get_command(app), list(map(str, arguments)))
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output + capfd.readouterr().out

    return run

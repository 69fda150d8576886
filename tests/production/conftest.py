from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from click.testing import Result
from spacy.language import Language

from spacy_mmcot.production import annotate as module
from spacy_mmcot.production.job import load_pipeline

Command = Callable[..., Result]


@pytest.fixture(scope="session")
def model(toy_model: Path) -> str:
    """The folder of a pipeline that is fitted to the toy corpus."""
    return str(toy_model)


@pytest.fixture(scope="session")
def loaded(model: str) -> Language:
    return spacy.load(model)


@pytest.fixture(scope="session")
def related(toy_bert: Path) -> Language:
    """Entities and relations, over an encoder with a conditional prompt."""
    import toy
    import toy_rel

    nlp = toy_rel.transformer_pipeline(toy_bert, prompt="conditional", prompt_length=2)
    data = toy_rel.examples(nlp)
    toy.fix_random_seed(0)
    nlp.initialize(lambda: data)
    toy.fit(nlp, data, steps=60, rate=0.005)
    docs = list(nlp.pipe(toy_rel.texts()))
    assert sum(len(doc.ents) for doc in docs) > 20 and sum(map(len, toy_rel.found(docs))) > 10
    return nlp


@pytest.fixture
def annotate(
    model: str, loaded: Language, command: Command, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Run the command `annotate` with the fitted pipeline in this process. It is loaded once for
    all tests."""
    monkeypatch.setattr(
        module, "load_pipeline", lambda name: loaded if name == model else load_pipeline(name)
    )
    return functools.partial(command, "annotate", model)


@pytest.fixture
def started(model: str) -> Callable[..., subprocess.Popen[str]]:
    """Start `annotate` as a process of its own."""

    def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "spacy", "mmcot", "annotate", model, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )

    return start

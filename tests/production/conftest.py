from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import toy
from click.testing import Result
from typer.testing import CliRunner

from spacy_mmcot.cli.main import app

Command = Callable[..., Result]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a pipeline that is fitted to the toy corpus."""
    nlp = toy.initialised()
    toy.fit(nlp, toy.examples(nlp), steps=40)
    folder = tmp_path_factory.mktemp("fitted") / "model"
    nlp.to_disk(folder)
    return str(folder)


@pytest.fixture
def annotate(model: str) -> Command:
    """Run `annotate` with the fitted pipeline in this process."""

    def run(*arguments: object) -> Result:
        words = ["annotate", model, *map(str, arguments)]
        return CliRunner().invoke(app, words, env={"COLUMNS": "200"})

    return run


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

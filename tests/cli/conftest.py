from __future__ import annotations

import json
import shutil
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
import spacy.cli
import toy
from click.testing import Result
from spacy.tokens import Doc, DocBin
from typer.testing import CliRunner

REPOSITORY = Path(__file__).parents[2]
DEMO = REPOSITORY / "assets" / "demo"
SIZES = {"train": 24, "unlabelled": 12, "dev": 8, "test": 8}

Command = Callable[..., Result]


@pytest.fixture(scope="session")
def python_spacy(command: Command) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`python -m spacy`, in this process: a start of its own for each call would take most of the
    time. An error that nothing catches ends in its traceback on stderr."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = list(map(str, arguments))
        if words[0] == "mmcot":
            result = command(*words[1:])
        else:
            environment = {"COLUMNS": "200", "NO_COLOR": "1"}
            result = CliRunner().invoke(spacy.cli._util.app, words, env=environment)
        errors = result.stderr
        if result.exc_info and not isinstance(result.exception, SystemExit):
            errors += "".join(traceback.format_exception(result.exception))
        return subprocess.CompletedProcess(words, result.exit_code, result.stdout, errors)

    return run


@pytest.fixture(scope="session")
def corpus(shared_folder: Callable[..., Path], command: Command) -> Path:
    """A part of the demo corpus as `convert` writes it: train, unlabelled, dev, test .spacy."""
    return shared_folder("demo-part", lambda folder: convert_demo(folder, command))


def convert_demo(folder: Path, command: Command) -> None:
    left = dict(SIZES)
    chosen = []
    for line in (DEMO / "posts.jsonl").read_text("utf-8").splitlines():
        post = json.loads(line)
        if left[post["split"]]:
            left[post["split"]] -= 1
            post["image"] = str(DEMO / post["image"])
            chosen.append(json.dumps(post) + "\n")
    (folder / "posts.jsonl").write_text("".join(chosen), "utf-8")
    answers = ("--answers", DEMO / "answers.jsonl")
    result = command("convert", folder / "posts.jsonl", *answers, "-o", folder)
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="session")
def bert(toy_bert: Path) -> Path:
    return toy_bert


def write_docs(path: Path, docs: list[Doc]) -> Path:
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy corpus with its labels."""
    docs = [eg.reference for eg in toy.examples(spacy.blank("en"))]
    return write_docs(tmp_path_factory.mktemp("toy") / "toy.spacy", docs)


@pytest.fixture(scope="session")
def bare_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy corpus without labels, one doc with knowledge."""
    nlp = toy.pipeline()
    docs = [nlp.make_doc(text) for text in toy.texts()]
    docs[1]._.mmcot_knowledge = {"sentence": "A singer is on stage."}
    return write_docs(tmp_path_factory.mktemp("bare") / "bare.spacy", docs)


@pytest.fixture
def model(toy_model: Path, tmp_path: Path) -> Path:
    """The folder of a pipeline that is fitted to the toy corpus, the test's own."""
    return shutil.copytree(toy_model, tmp_path / "model")


@pytest.fixture
def broken(tmp_path: Path) -> dict[str, Path]:
    """Data that no command can use, by the code of the error that says so."""
    (tmp_path / "no-files").mkdir()
    (tmp_path / "notes.spacy").write_text("these are notes", "utf-8")
    (tmp_path / "empty.spacy").write_bytes(b"")
    write_docs(tmp_path / "no-docs.spacy", [])
    whole = DocBin(docs=[spacy.blank("en")("Anna sings")]).to_bytes()
    (tmp_path / "half.spacy").write_bytes(whole[: len(whole) // 2])
    return {
        "E100": tmp_path / "absent.spacy",
        "E203": tmp_path / "no-files",
        "E201": tmp_path / "notes.spacy",
        "E201 empty": tmp_path / "empty.spacy",
        "E201 half": tmp_path / "half.spacy",
        "E202": tmp_path / "no-docs.spacy",
    }


BROKEN = ("E100", "E203", "E201", "E201 empty", "E201 half", "E202")


@pytest.fixture(params=BROKEN)
def broken_data(request: pytest.FixtureRequest, broken: dict[str, Path]) -> tuple[str, Path]:
    return request.param.split()[0], broken[request.param]

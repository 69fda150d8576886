"""What the tests of all folders share: expensive folders made once a run, toy pipelines on disk,
and the command line in this process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from click.testing import Result

# Read when torch and transformers are imported, so this stands before that. No test asks the hub,
# and a process has one thread: two that wait for each other take several times as long.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The names alone: importing tiny takes the seconds in which torch and transformers load.
FAMILIES = ("bert", "roberta", "deberta-v2", "distilbert", "electra", "mpnet")

SharedFolder = Callable[[str, Callable[[Path], object]], Path]
REPOSITORY = Path(__file__).parents[1]

Command = Callable[..., "Result"]


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> SharedFolder:
    """`shared_folder(name, make)` is a folder that `make(folder)` fills once in a test run, also
    with many pytest-xdist workers. Use it in a session fixture for what takes over a second, such
    as a trained pipeline:

        @pytest.fixture(scope="session")
        def trained(shared_folder: SharedFolder) -> Path:
            return shared_folder("trained-ner", lambda folder: train().to_disk(folder))

    The name stands for the content: one name, one `make`. Other tests read the folder at the same
    time, so whoever changes it works on a copy (shutil.copytree).
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # that of all workers
    root = root / "shared"
    root.mkdir(exist_ok=True)

    def get(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = root / name, root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                folder.mkdir(exist_ok=True)
                make(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def tiny_source(shared_folder: SharedFolder) -> Callable[[str], str]:
    """The folder of a family's tiny encoder, made when first asked for."""

    def make(family: str, folder: Path) -> None:
        from tiny import save_encoder

        save_encoder(family, folder)

    return lambda family: str(shared_folder(f"tiny-{family}", lambda folder: make(family, folder)))


@pytest.fixture(scope="session", params=FAMILIES)
def source(request: pytest.FixtureRequest, tiny_source: Callable[[str], str]) -> str:
    """The folder of a tiny encoder, each family in turn."""
    return tiny_source(request.param)


@pytest.fixture(scope="session")
def bert_source(tiny_source: Callable[[str], str]) -> str:
    return tiny_source("bert")


@pytest.fixture(scope="session")
def toy_bert(shared_folder: SharedFolder) -> Path:
    """The folder of toy.write_bert's encoder."""

    def make(folder: Path) -> None:
        import toy

        toy.write_bert(folder)

    return shared_folder("toy-bert", make)


@pytest.fixture(scope="session")
def toy_model(shared_folder: SharedFolder) -> Path:
    """The folder of a pipeline (mmcot_ner on spaCy's CNN) that is fitted to the toy corpus."""

    def make(folder: Path) -> None:
        import toy

        nlp = toy.initialised()
        toy.fit(nlp, toy.examples(nlp), steps=40)
        nlp.to_disk(folder)

    return shared_folder("toy-model", make)


@pytest.fixture(scope="session")
def toy_transformer_model(shared_folder: SharedFolder, toy_bert: Path) -> Path:
    """The folder of a pipeline (transformer, mmcot_ner) that is fitted to the toy corpus."""

    def make(folder: Path) -> None:
        import toy

        nlp = toy.transformer_pipeline(toy_bert)
        data = toy.examples(nlp)
        toy.fix_random_seed(0)
        nlp.initialize(lambda: data)
        toy.fit(nlp, data, steps=60, rate=0.005)
        nlp.to_disk(folder)

    return shared_folder("toy-transformer-model", make)


@pytest.fixture(scope="session")
def command() -> Command:
    """Run the command line in this process, with a terminal wide enough for whole messages."""

    def run(*arguments: object) -> Result:
        from typer.testing import CliRunner

        from spacy_mmcot.cli.main import app

        return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})

    return run


@pytest.fixture(scope="session")
def fails(command: Command) -> Callable[..., str]:
    """Run a command that must end in one line of an error with this code. Returns the line."""

    def run(code: str, *arguments: object) -> str:
        result = command(*arguments)
        assert result.exit_code == 1, (result.output, result.exception)
        assert isinstance(result.exception, SystemExit)
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"✘ [{code}] ")
        return line

    return run


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


@pytest.fixture
def mnre(tmp_path: Path) -> Callable[..., Path]:
    """Write rows, each a dict or a raw line, to a file."""

    def write(*rows: dict[str, Any] | bytes, name: str = "train.txt") -> Path:
        path = tmp_path / name
        lines = [line if isinstance(line, bytes) else repr(line).encode() for line in rows]
        path.write_bytes(b"\n".join(lines) + b"\n")
        return path

    return write

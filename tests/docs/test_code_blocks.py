"""The code blocks of README.md, docs/*.md, CONTRIBUTING.md and the examples.

Python is run, in order, page by page. Commands are parsed by the real command lines. A block for
which neither is possible says why.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import PIL.Image
import pytest
import spacy
import toy
import toy_rel
import typer.main
from spacy.cli._util import app as spacy_app
from spacy.training import Example
from spacy.util import load_config
from typer.testing import CliRunner
from weasel.util.config import load_project_config

from spacy_mmcot.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "examples").glob("*/README.md"))

# The line above a block that cannot run here.
_REASON = re.compile(r"<!-- not run: (.+) -->\s*$")
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# These commands need no model and no network, and their input files are in the prepared folder.
_RUN = ("spacy-mmcot convert", "spacy-mmcot plan")


class Block(NamedTuple):
    page: Path
    line: int
    kind: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for found in _FENCE.finditer(text):
        before = text[: found.start()]
        reason = _REASON.search(before)
        line = before.count("\n") + 1
        yield Block(page, line, found[1], found[2], reason[1] if reason else None)


ALL = [block for page in PAGES for block in blocks(page)]
BASH = [block for block in ALL if block.kind == "bash"]


def commands(text: str) -> list[str]:
    """The commands of a block: continued lines joined, comments left out, `a && b` apart."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines()]
    return [part.strip() for line in lines for part in line.split(" && ") if part.strip()]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder after a run: a small student for entities and relations, an encoder, a
    picture, and a corpus."""
    folder = tmp_path_factory.mktemp("project")
    source = toy.write_bert(folder / "encoder")
    nlp = toy_rel.transformer_pipeline(source)
    data = toy_rel.examples(nlp)
    toy.fix_random_seed(0)
    nlp.initialize(lambda: data)
    toy.fit(nlp, data, steps=3, rate=0.003)
    (folder / "training" / "student").mkdir(parents=True)
    nlp.to_disk(folder / "training" / "student" / "model-best")
    (folder / "photos").mkdir()
    PIL.Image.new("RGB", (32, 24), "teal").save(folder / "photos" / "17.jpg")
    (folder / "corpus").mkdir()
    posts = ROOT / "assets" / "demo" / "posts.jsonl"
    shutil.copy(posts, folder / "my_annotations.jsonl")
    shutil.copy(posts, folder / "corpus" / "posts.jsonl")
    shutil.copy(ROOT / "project.yml", folder / "project.yml")
    shutil.copy(ROOT / "assets" / "demo" / "scheme.yml", folder / "scheme.yml")
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "packages").mkdir()
    return folder


@contextlib.contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_runs(page: Path, project: Path) -> None:
    nlp = spacy.blank("en")
    example = Example.from_dict(nlp.make_doc("Anna sings"), {"tags": ["NOUN", "VERB"]})
    # Names that a page may use without defining them, as its text says.
    names: dict[str, object] = {"__name__": page.stem, "example": example}
    if page.name == "EVALUATION.md":
        names.update(texts=toy.texts(), send=str, keep=str)
    with in_folder(project):
        for block in blocks(page):
            if block.kind == "python" and block.reason is None:
                # The name and line make a traceback point at the page.
                text = "\n" * block.line + block.text
                exec(compile(text, str(page), "exec"), names)


@pytest.mark.parametrize("block", BASH, ids=str)
def test_commands_are_as_the_command_lines_take_them(block: Block, project: Path) -> None:
    if block.reason is not None:
        pytest.skip(f"the page says why: {block.reason}")
    with in_folder(project):
        for command in commands(block.text):
            check(command, block.page)


def test_cheap_commands_run(project: Path) -> None:
    done = []
    with in_folder(project):
        for block in BASH:
            for command in commands(block.text):
                words = shlex.split(command)
                if command.startswith(_RUN) and all(map(_is_at_hand, words[2:])):
                    result = CliRunner().invoke(app, words[1:], prog_name="spacy-mmcot")
                    assert result.exit_code == 0, f"{block}: {command}\n{result.output}"
                    done.append(command)
    assert {command.split()[1] for command in done} == {"convert", "plan"}


def _is_at_hand(word: str) -> bool:
    made = ("corpus/gold", "corpus/answers.sqlite", "corpus/posts.jsonl", "scheme.yml")
    return word.startswith("--") or word in made or Path(word).exists()


def test_blocks_of_other_kinds_and_skipped_ones_are_few() -> None:
    kinds = {block.kind for block in ALL}
    assert kinds <= {"python", "bash", "json", "yaml", "ini", "text"}, kinds
    excused = [block for block in ALL if block.reason is not None]
    assert len(excused) <= 2, [str(block) for block in excused]
    assert all(len(block.reason or "") > 10 for block in excused)


def test_a_wrong_command_is_found(project: Path) -> None:
    for wrong in (
        "spacy-mmcot evaluate model dev.spacy --no-such-option",
        "spacy-mmcot convert posts.jsonl",
        "spacy-mmcot enlighten",
        "python -m benchmarks soak model --docs many",
        "python -m spacy train configs/student.cfg --components.transformer.model.sauce x",
        "python -m spacy project run everything .",
        "make tea",
        "python scripts/nothing.py",
        "pip install -e '.[nothing]' -c constraints.txt",
        "rm -rf /",
    ):
        with in_folder(project), pytest.raises(AssertionError):
            check(wrong, ROOT / "README.md")
            print(f"not found: {wrong}")


def check(command: str, page: Path) -> None:
    """Raises AssertionError if the command could not be run as written."""
    words = shlex.split(command)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    for beginning, checker in _CHECKERS.items():
        if " ".join(words).startswith(beginning + " ") or " ".join(words) == beginning:
            checker(words[len(beginning.split()) :], page)
            return
    raise AssertionError(f"{page.name}: unknown command {command!r}")


def _mmcot(words: list[str], page: Path) -> None:
    _parse(typer.main.get_command(app), "spacy-mmcot", words)


def _parse(command: Any, name: str, words: list[str]) -> Any:
    """The context of the innermost command. Its arguments are parsed and checked, not run."""
    while hasattr(command, "commands"):
        assert words and words[0] in command.commands, f"{name} has no command {words[:1]}"
        name, command, words = words[0], command.commands[words[0]], words[1:]
    try:
        return command.make_context(name, list(words))
    # Typer may raise the errors of its bundled click.
    except Exception as error:
        raise AssertionError(f"{name} {shlex.join(words)}: {error}") from error


def _benchmarks(words: list[str], page: Path) -> None:
    from benchmarks.__main__ import app as benchmarks_app

    _parse(typer.main.get_command(benchmarks_app), "benchmarks", words)


def _spacy(words: list[str], page: Path) -> None:
    context = _parse(typer.main.get_command(spacy_app), "spacy", words)
    if words[0] == "train":
        config = load_config(ROOT / words[1])
        for name in (word for word in context.args if word.startswith("--") and "." in word):
            section = config
            for part in name.removeprefix("--").split("."):
                assert part in section, f"{words[1]} has no setting {name}"
                section = section[part]


def _project_run(words: list[str], page: Path) -> None:
    config = load_project_config(ROOT, overrides={"vars.data": "data"})
    steps = {command["name"] for command in config["commands"]} | set(config["workflows"])
    assert words[0] in steps, f"project.yml has no {words[0]}"
    for word in words:
        if word.startswith("--vars."):
            assert word.removeprefix("--vars.") in config["vars"]


def _make(words: list[str], page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(words) <= set(targets), words


def _script(words: list[str], page: Path) -> None:
    assert (ROOT / words[0]).is_file() or (page.parent / words[0]).is_file(), words[0]


def _pip(words: list[str], page: Path) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for extras in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        assert set(extras.split(",")) <= set(setup["options.extras_require"]), extras
    if "-c" in words:
        assert (ROOT / words[words.index("-c") + 1]).is_file()


def _uvicorn(words: list[str], page: Path) -> None:
    uvicorn = pytest.importorskip("uvicorn", reason="the extra `service` is not installed")
    _parse(uvicorn.main, "uvicorn", words)
    assert (page.parent / f"{words[0].partition(':')[0]}.py").is_file()


def _folder(words: list[str], page: Path) -> None:
    name = words[0].removeprefix("../")
    made = f"spacy-mmcot init {name} " in page.read_text("utf-8")
    assert made or (ROOT / name).is_dir(), words


def _docker(words: list[str], page: Path) -> None:
    dockerfile = (page.parent / "Dockerfile").read_text("utf-8")
    for option, form in (("--target", "FROM base AS {}"), ("--build-arg", "ARG {}")):
        if option in words:
            value = words[words.index(option) + 1].partition("=")[0]
            assert form.format(value) in dockerfile.splitlines(), words


def _known(words: list[str], page: Path) -> None:
    """A command of the shell or of a tool outside this project."""


_CHECKERS: dict[str, Callable[[list[str], Path], None]] = {
    "spacy-mmcot": _mmcot,
    "python -m spacy mmcot": _mmcot,
    "python -m benchmarks": _benchmarks,
    "python -m spacy project run": _project_run,
    "spacy project run": _project_run,
    "python -m spacy": _spacy,
    "python -m venv": _known,
    "python": _script,
    "make": _make,
    "pip install": _pip,
    "uvicorn": _uvicorn,
    "cd": _folder,
    "export": _known,
    "curl": _known,
    "docker": _docker,
    ".": _known,
}

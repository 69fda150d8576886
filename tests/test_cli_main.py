"""What every command of the command line promises. Commands run in this process where nothing
depends on the process; the installed scripts are started as users start them."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from spacy_mmcot import __version__
from spacy_mmcot.cli.main import app, plain_errors

Command = Callable[..., Result]
SCRIPT = (str(Path(sysconfig.get_path("scripts")) / "spacy-mmcot"),)
SPACY = (sys.executable, "-m", "spacy", "mmcot")
COMMANDS = sorted(command.name for command in app.registered_commands if command.name)
GROUPS = sorted(group.name for group in app.registered_groups if group.name)

HEAVY = {
    *("torch", "transformers", "spacy", "spacy_transformers", "thinc", "numpy"),
    *("openai", "PIL", "jinja2", "matplotlib", "ray", "pyarrow"),
}


def run(
    *command: str, cwd: Path | None = None, encoding: str = "utf-8"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd or sys.prefix,
        env={**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": encoding},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture(params=[SCRIPT, SPACY], ids=["spacy-mmcot", "spacy mmcot"])
def program(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return request.param


def test_help_lists_every_command_with_a_description(program: tuple[str, ...]) -> None:
    done = run(*program, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.strip("│| ").split(maxsplit=1) for line in done.stdout.splitlines()]
    described = {row[0] for row in rows if len(row) == 2}
    assert {*COMMANDS, *GROUPS} <= described


def test_scores_are_not_written_over_the_data(command: Command, tmp_path: Path) -> None:
    data = tmp_path / "dev.spacy"
    for options in (("-o", data), ("-o", tmp_path / "m", "--predictions", tmp_path / "m")):
        done = command("evaluate", "pipeline", data, *options)
        assert (done.exit_code, "[E749]" in done.stderr) == (2, True)


def test_docs_are_not_written_among_those_that_are_read(command: Command, tmp_path: Path) -> None:
    for words in (("teach", "pipeline", tmp_path), ("convert", tmp_path)):
        done = command(*words, "-o", tmp_path / "sub" / "x.spacy")
        assert (done.exit_code, "[E749]" in done.stderr) == (2, True)


def test_a_missing_file_is_one_line(program: tuple[str, ...], tmp_path: Path) -> None:
    done = run(
        *(*program, "elicit", "absent.jsonl", "answers.sqlite", "--recorded", "absent.jsonl"),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("✘ [E100] absent.jsonl: no such file.")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ((), "✘ [E100] absent.spacy: no such file."),
        (("--nlp.lang", "xx-unknown"), "✘ [E048] Can't import language xx-unknown"),
        (("--output", "a-file/out"), "✘ [Errno 20] Not a directory: 'a-file/out'"),
    ],
    ids=["file", "language", "output"],
)
def test_a_training_that_fails_ends_in_the_message(
    tmp_path: Path, option: tuple[str, ...], message: str
) -> None:
    config = Path(__file__).parents[1] / "configs" / "student.cfg"
    (tmp_path / "a-file").touch()
    done = run(
        *(sys.executable, "-m", "spacy", "train", str(config), "--paths.train", "absent.spacy"),
        *("--paths.dev", "absent.spacy", *option),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1].startswith(message)


def test_a_bug_keeps_its_traceback() -> None:
    def fail() -> None:
        raise ValueError("list index [E048]")

    with pytest.raises(ValueError, match="list index"):
        plain_errors(fail)()


def test_errors_are_printed_where_the_terminal_is_not_utf8(tmp_path: Path) -> None:
    done = run(
        *(*SCRIPT, "elicit", "absent.jsonl", "answers.sqlite", "--recorded", "absent.jsonl"),
        cwd=tmp_path,
        encoding="ascii",
    )
    assert done.returncode == 1
    assert "[E100] absent.jsonl" in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_the_command_line_is_light() -> None:
    code = "import sys, spacy_mmcot.cli.main; print(*sys.modules)"
    modules = run(sys.executable, "-c", code).stdout.split()
    loaded = {name.partition(".")[0] for name in modules}
    assert "spacy_mmcot" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help(command: Command, name: str) -> None:
    done = command(name, "--help")
    assert (done.exit_code, done.stderr) == (0, "")
    assert f" {name} [OPTIONS]" in done.stdout


def test_a_package_of_an_extra_is_named(tmp_path: Path) -> None:
    start = (
        "import sys; sys.modules['aiohttp'] = None; from spacy_mmcot.cli.main import main; main()"
    )
    words = ("elicit", "absent.jsonl", "answers.sqlite", "--recorded", "absent.jsonl")
    done = run(sys.executable, "-c", start, *words, cwd=tmp_path)
    assert done.returncode == 1
    expected = "✘ [E812] The command needs aiohttp. Install it: pip install 'spacy-mmcot[train]'."
    assert done.stderr == f"{expected}\n"


def test_the_version(command: Command) -> None:
    done = command("--version")
    assert (done.exit_code, done.stdout) == (0, f"{__version__}\n")


@pytest.mark.parametrize(
    "second",
    [
        '{"id": "2", "text"',
        '{"id": "2"}',
        '{"id": "2", "text": "Ada", "entities": [{"start": 0, "end": 9, "label": "PER"}]}',
        '{"id": "2", "text": "Ada", "colour": "red", "split": "unknown"}',
        "[]",
    ],
    ids=["cut off", "field missing", "offsets past the text", "two problems", "not a record"],
)
def test_a_bad_line_is_one_line_that_names_it(
    fails: Callable[..., str], second: str, tmp_path: Path
) -> None:
    posts, recorded = tmp_path / "posts.jsonl", tmp_path / "recorded.jsonl"
    posts.write_text(f'{{"id": "1", "text": "Ada"}}\n{second}\n', "utf-8")
    recorded.write_text('{"id": "1", "sentence": "A name."}\n', "utf-8")
    line = fails("E101", "elicit", posts, tmp_path / "answers.sqlite", "--recorded", recorded)
    assert f"{posts}, line 2: " in line


@pytest.mark.parametrize(
    "arguments",
    [("no-such-command",), ("elicit",), ("elicit", "a", "b", "--no-such-option")],
    ids=["command", "arguments missing", "option"],
)
def test_wrong_usage_ends_with_2(command: Command, arguments: tuple[str, ...]) -> None:
    done = command(*arguments)
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    assert "Usage: " in done.stderr


def test_called_alone_it_shows_its_help(command: Command) -> None:
    assert {*COMMANDS, *GROUPS} <= set(command().output.split())

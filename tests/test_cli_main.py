"""What every command of the command line promises, asked of the installed scripts."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import spacy_mmcot.cli

SCRIPT = (str(Path(sysconfig.get_path("scripts")) / "spacy-mmcot"),)
SPACY = (sys.executable, "-m", "spacy", "mmcot")

# A command's file holds a function of the same name; other files hold what commands share.
COMMANDS = sorted(
    path.stem
    for path in Path(spacy_mmcot.cli.__file__).parent.glob("*.py")
    if path.stem != "main" and f"\ndef {path.stem}(" in path.read_text("utf-8")
)

HEAVY = {
    *("torch", "transformers", "spacy", "spacy_transformers", "thinc", "numpy"),
    *("openai", "PIL", "jinja2", "matplotlib", "ray", "pyarrow"),
}


def run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd or sys.prefix,
        env={**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"},
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
    assert set(COMMANDS) <= described


@pytest.mark.parametrize("command", COMMANDS)
def test_command_has_help(command: str) -> None:
    done = run(*SCRIPT, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: spacy-mmcot {command}" in done.stdout


def test_commands_are_reached_through_spacy() -> None:
    done = run(*SPACY, COMMANDS[0], "--help")
    assert done.returncode == 0
    assert f"spacy mmcot {COMMANDS[0]}" in done.stdout


def test_errors_are_printed_where_the_terminal_is_not_utf8(tmp_path: Path) -> None:
    done = subprocess.run(
        [*SCRIPT, "elicit", "absent.jsonl", "answers.sqlite", "--recorded", "absent.jsonl"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert b"[E100] absent.jsonl" in done.stderr
    assert b"Traceback" not in done.stderr


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
def test_a_bad_line_is_one_line_that_names_it(second: str, tmp_path: Path) -> None:
    (tmp_path / "posts.jsonl").write_text(f'{{"id": "1", "text": "Ada"}}\n{second}\n', "utf-8")
    (tmp_path / "recorded.jsonl").write_text('{"id": "1", "sentence": "A name."}\n', "utf-8")
    done = run(
        *(*SCRIPT, "elicit", "posts.jsonl", "answers.sqlite", "--recorded", "recorded.jsonl"),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("✘ [E101] posts.jsonl, line 2: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [("no-such-command",), ("elicit",), ("elicit", "a", "b", "--no-such-option")],
    ids=["command", "arguments missing", "option"],
)
def test_wrong_usage_ends_with_2(program: tuple[str, ...], arguments: tuple[str, ...]) -> None:
    done = run(*program, *arguments)
    assert done.returncode == 2
    assert "Usage: " in done.stderr
    assert "Traceback" not in done.stderr


def test_called_alone_it_shows_its_help(program: tuple[str, ...]) -> None:
    done = run(*program)
    assert set(COMMANDS) <= set((done.stdout + done.stderr).split())


def test_importing_the_command_line_is_light() -> None:
    code = "import sys, spacy_mmcot.cli.main; print(*sys.modules)"
    modules = run(sys.executable, "-c", code).stdout.split()
    loaded = {name.partition(".")[0] for name in modules}
    assert "spacy_mmcot" in loaded
    assert loaded & HEAVY == set()

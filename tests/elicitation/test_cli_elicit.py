"""The commands `elicit`, `answers` and `plan`: a posts file, a store on disk, a server."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spacy_mmcot.elicitation.prompts import KINDS
from spacy_mmcot.elicitation.store import AnswerStore, load_answers
from spacy_mmcot.types import DIMENSIONS, Post
from tests.llm_server import LLMServer, quoted, sensible_answer

KEY = "sk-very-secret-0815"

Command = Callable[..., Any]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(command: Command) -> Command:
    """Run `elicit` in this process."""
    return lambda *options: command("elicit", *options)


@pytest.fixture
def server(llm_server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> LLMServer:
    """The endpoint that the environment names."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", llm_server.url)
    return llm_server


# What is asked without a scheme.
PLAIN = [name for name in DIMENSIONS if name != "conclusion"]


def process_words(*options: object) -> list[str]:
    """The command line of `elicit` as a process of its own, without the other commands' imports."""
    start = "import typer; from spacy_mmcot.cli.elicit import elicit; typer.run(elicit)"
    return [sys.executable, "-c", start, *map(str, options)]


def rows(output: str) -> dict[str, list[int]]:
    """The summary table's rows."""
    table = {}
    for line in output.splitlines():
        words = line.split()
        if words and words[0] in (*KINDS, "all") and words[1:] and words[1].isdigit():
            table[words[0]] = [int(word) for word in words[1:]]
    return table


@pytest.fixture
def posts_file(posts: list[Post], tmp_path: Path) -> Path:
    path = tmp_path / "posts.jsonl"
    path.write_text("".join(p.model_dump_json(exclude_none=True) + "\n" for p in posts))
    return path


def test_recorded_answers_of_the_demo(run: Command, demo: Path, tmp_path: Path) -> None:
    store = tmp_path / "new" / "answers.sqlite"
    recorded = demo / "answers.jsonl"
    first = run(demo / "posts.jsonl", store, "--recorded", recorded)
    assert first.exit_code == 0 and first.stderr == ""
    assert "2160 of 2160" in first.stdout and "\x1b" not in first.stdout
    table = rows(first.stdout)
    assert table["noun"] == [360, 360, 0, 0, 0, 0, 0, 0]
    assert [name for name in table if name != "all"] == PLAIN
    before = store.read_bytes()
    second = run(demo / "posts.jsonl", store, "--recorded", recorded)
    assert rows(second.stdout)["all"][:3] == [0, 0, table["all"][1]]
    assert store.read_bytes() == before


def test_chosen_dimensions_and_task(run: Command, demo: Path, tmp_path: Path) -> None:
    store = tmp_path / "a.sqlite"
    options = ("--recorded", demo / "answers.jsonl", "--task", "rel")
    chosen = ("--dimension", "image", "--dimension", "noun")
    result = run(demo / "posts.jsonl", store, *options, *chosen)
    assert list(rows(result.stdout)) == ["noun", "image", "all"]
    assert load_answers(store) == {}
    assert len(load_answers(store, "rel")) == 360


def test_openai_and_the_table_of_what_came(
    run: Command, server: LLMServer, posts_file: Path, tmp_path: Path
) -> None:
    server.reply = lambda body: (
        (200, "no") if "Anna7" in quoted(body, "post") else (200, sensible_answer(body))
    )
    store = tmp_path / "a.sqlite"
    options = ("--source", "openai", "--model", "m", "--temperature", 0.3, "--dimension", "noun")
    result = run(posts_file, store, *options)
    assert result.exit_code == 3, result.stderr
    assert rows(result.stdout)["noun"] == [12, 11, 0, 1, 0, 0, 0, 0]
    assert "rejected: p7 noun: the answer holds no JSON" in result.stdout
    assert {body["temperature"] for body in server.requests} == {0.3}


def test_rejected_answers_are_named_until_they_are_asked_for_again(
    run: Command, server: LLMServer, posts_file: Path, tmp_path: Path
) -> None:
    options = (posts_file, tmp_path / "a.sqlite", "--source", "openai", "--dimension", "noun")
    server.reply = lambda body: (
        (200, "no") if "Anna7" in quoted(body, "post") else (200, sensible_answer(body))
    )
    assert run(*options).exit_code == 3
    n_requests = len(server.requests)
    again = run(*options)
    assert (again.exit_code, len(server.requests)) == (3, n_requests)
    assert rows(again.stdout)["noun"] == [0, 0, 11, 1, 0, 0, 0, 0]
    assert "rejected: p7 noun: the answer holds no JSON" in again.stdout
    assert "--retry-rejected" in again.stdout
    # The share is that of all answers, not of those of this run.
    assert run(*options, "--threshold", 0.1).exit_code == 0
    server.reply = lambda body: (200, sensible_answer(body))
    mended = run(*options, "--retry-rejected")
    assert rows(mended.stdout)["noun"] == [1, 1, 11, 0, 0, 0, 0, 0]
    assert mended.exit_code == run(*options).exit_code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "E730"),
        (("--recorded", "none.jsonl"), "E100"),
        (("--source", "openai"), "E310"),
        (("--source", "openai-batch"), "E310"),
        (("--source", "openai", "--base-url", "nowhere"), "E310"),
    ],
)
def test_missing_settings_end_in_one_line(
    run: Command, posts_file: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    result = run(posts_file, tmp_path / "a.sqlite", *options)
    assert result.exit_code == (1 if message == "E100" else 2)
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "a.sqlite").exists()


def test_a_refused_key_is_not_shown(
    run: Command, server: LLMServer, posts_file: Path, tmp_path: Path
) -> None:
    server.reply = lambda body: (401, {"error": {"message": f"bad key {KEY}"}})
    store = tmp_path / "a.sqlite"
    result = run(posts_file, store, "--source", "openai")
    assert result.exit_code == 1 and "E311" in result.stderr
    assert KEY not in result.stdout + result.stderr
    assert KEY.encode() not in store.read_bytes()


def test_missing_posts_file(run: Command, demo: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "none.jsonl", tmp_path / "a", "--recorded", demo / "answers.jsonl")
    assert result.exit_code == 1 and "E100" in result.stderr


def test_a_terminal_gets_a_bar_with_rate_failures_and_spend(
    server: LLMServer, posts_file: Path, tmp_path: Path
) -> None:
    server.reply = lambda body: (
        (200, "no") if "Anna7" in quoted(body, "post") else (200, sensible_answer(body))
    )
    options = (posts_file, tmp_path / "a.sqlite", "--source", "openai", "--threshold", 1)
    mine, theirs = pty.openpty()
    settings = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    words = process_words(*options)
    process = subprocess.Popen(words, env=settings, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    data = b""
    while True:
        try:
            data += os.read(mine, 4096)
        except OSError:  # how Linux says that the other side is closed
            break
    os.close(mine)
    shown = data.decode()
    assert process.wait() == 0, shown
    assert "━━" in shown and "72 of 72" in shown and "/s" in shown and "3 failed" in shown
    spends = [float(number) for number in re.findall(r"([\d.]+) USD spent", shown)]
    assert spends == sorted(spends) and spends[-1] > 0


class Hold:
    """Answers `answered` questions, then holds the others until `release`."""

    def __init__(self, server: LLMServer, answered: int, held: int) -> None:
        self.good: list[str] = []
        self.full = threading.Event()
        self._gate = threading.Event()
        self._lock = threading.Lock()
        self._left, self._held = answered, held
        server.reply = self.reply

    def reply(self, body: dict[str, Any]) -> tuple[int, Any]:
        with self._lock:
            self._left -= 1
            through = self._left >= 0
            if through:
                self.good.append(identity(body))
            elif -self._left >= self._held:
                self.full.set()
        if not through:
            self._gate.wait(30)
        return (200, sensible_answer(body))

    def release(self) -> None:
        with self._lock:
            self._left = 10**6
        self._gate.set()


def identity(body: dict[str, Any]) -> str:
    return json.dumps(body["messages"])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_loses_nothing_and_asks_nothing_twice(
    run: Command,
    server: LLMServer,
    posts_file: Path,
    tmp_path: Path,
    workers: int,
    how: signal.Signals,
) -> None:
    store = tmp_path / "answers.sqlite"
    options = (posts_file, store, "--source", "openai", "--workers", workers)
    hold = Hold(server, answered=20, held=workers)
    process = subprocess.Popen(
        process_words(*options),
        # A shell's background job, and so its children, ignores Ctrl-C: not what is tested here.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # When as many questions hang as there are workers, all answers before have been dealt with.
    assert hold.full.wait(30)
    process.send_signal(how)
    if how is signal.SIGINT:
        # The first lets the questions in flight come to their end, the second does not.
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(how)
    output, errors = process.communicate(timeout=30)
    if how is signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        assert "run the command again" in output and "Traceback" not in errors
    answered = list(hold.good)
    assert len(answered) == 20
    with AnswerStore(store, read_only=True) as opened:
        kept = opened.answers()
    assert sum(len(a.model_fields_set) - 1 for a in kept.values()) == 20

    hold.release()
    resumed = run(*options)
    assert resumed.exit_code == 0, resumed.stderr
    assert rows(resumed.stdout)["all"][:3] == [52, 52, 20]
    asked = Counter(map(identity, server.requests))
    assert len(asked) == 72
    assert all(asked[question] == 1 for question in answered)
    assert sum(asked.values()) == 72 + workers
    with sqlite3.connect(store) as connection:
        statement = "SELECT count(*), count(DISTINCT key || post_id) FROM answers"
        assert connection.execute(statement).fetchone() == (72, 72)
    connection.close()


def test_exit_codes_of_a_budget_and_of_too_many_useless_answers(
    run: Command, command: Command, server: LLMServer, posts_file: Path, tmp_path: Path
) -> None:
    options = ("--source", "openai", "--dimension", "noun", "--workers", 1)
    poor = run(posts_file, tmp_path / "a.sqlite", *options, "--budget", 0.0004)
    assert poor.exit_code == 4 and "budget of 0.0004 USD is reached" in poor.stdout
    assert 0 < len(server.requests) < 12
    rich = run(posts_file, tmp_path / "a.sqlite", *options, "--budget", 1)
    assert rich.exit_code == 0 and "USD spent" in rich.stdout
    unpriced = run(posts_file, tmp_path / "a.sqlite", *options, "--model", "strange")
    assert unpriced.exit_code == 0 and "0.0000" not in unpriced.stdout
    assert "12 of 12" in unpriced.stdout and "Spent unpriced tokens" in unpriced.stdout
    shown = command("answers", "spend", tmp_path / "a.sqlite").stdout.splitlines()
    assert "unpriced" in next(line for line in shown if "strange" in line)
    server.reply = lambda body: (200, "no")
    options = (*options[:2], "--dimension", "entity")
    useless = run(posts_file, tmp_path / "a.sqlite", *options)
    assert useless.exit_code == 3 and "12 failed" in useless.stdout
    tolerant = ("--threshold", 1)
    assert run(posts_file, tmp_path / "b", *options, *tolerant).exit_code == 0
    listed = run(posts_file, tmp_path / "a.sqlite", "--failures")
    assert listed.exit_code == 0 and "12 rejected answers." in listed.stdout
    assert "p3 entity: the answer holds no JSON" in listed.stdout and "'no'" in listed.stdout


def test_a_strangers_answer_cannot_write_on_the_terminal(
    run: Command, server: LLMServer, posts_file: Path, tmp_path: Path
) -> None:
    server.reply = lambda body: (200, "\x1b[2J no \r\n JSON")
    options = ("--source", "openai", "--dimension", "noun")
    assert run(posts_file, tmp_path / "a.sqlite", *options).exit_code == 3
    listed = run(posts_file, tmp_path / "a.sqlite", "--failures")
    assert "\x1b" not in listed.stdout and r"\x1b[2J no \r\n JSON" in listed.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--budget", 1, "--model", "strange"), "E321"),
        (("--base-url", "http://example.org/v1"), "E318"),
        (("--workers", 0), "workers"),
        (("--source", "elsewhere"), "source"),
    ],
)
def test_wrong_usage_ends_with_2(
    run: Command,
    server: LLMServer,
    posts_file: Path,
    tmp_path: Path,
    options: tuple[object, ...],
    message: str,
) -> None:
    chosen = ("--source", "openai", *options)
    result = run(posts_file, tmp_path / "a.sqlite", *chosen)
    assert result.exit_code == 2 and message in result.stderr
    assert "Traceback" not in result.stderr and server.requests == []


def test_a_run_that_takes_too_long_is_an_error_and_goes_on_later(
    run: Command, server: LLMServer, posts_file: Path, tmp_path: Path
) -> None:
    server.configure(latency=0.3)
    options = (posts_file, tmp_path / "a.sqlite", "--source", "openai")
    stopped = run(*options, "--run-timeout", 0.5)
    assert stopped.exit_code == 1 and "E319" in stopped.stderr
    server.configure(latency=0)
    assert run(*options).exit_code == 0
    assert set(server.seen()["sold"].values()) == {1}


def test_the_config_says_what_is_asked(
    run: Command, server: LLMServer, posts_file: Path, tmp_path: Path
) -> None:
    config = tmp_path / "project.yml"
    config.write_text("vars:\n  elicit:\n    noun:\n    style: {variants: 2}\n")
    options = ("--source", "openai", "--model", "small", "--config", config)
    result = run(posts_file, tmp_path / "a.sqlite", *options)
    assert result.exit_code == 0, result.stderr
    assert rows(result.stdout)["style"][:2] == [24, 24]
    asked = Counter(body["model"] for body in server.requests)
    assert asked == {"small": 36}


def test_the_batch_api_by_command(
    run: Command, server: LLMServer, posts_file: Path, tmp_path: Path
) -> None:
    options = ("--source", "openai-batch", "--batch-poll", 0.1, "--batch-size", 50)
    result = run(posts_file, tmp_path / "a.sqlite", *options)
    assert result.exit_code == 0, result.stderr
    assert rows(result.stdout)["all"][:2] == [72, 72]
    assert server.seen()["batches"] == 2


def test_answers_out_and_in_and_what_they_cost(
    command: Command, run: Command, server: LLMServer, posts_file: Path, tmp_path: Path
) -> None:
    store = tmp_path / "a.sqlite"
    options = ("--source", "openai", "--dimension", "noun")
    run(posts_file, store, *options)

    def answers(*words: object) -> str:
        done = command("answers", *words)
        assert done.exit_code == 0, done.stderr
        return str(done.stdout)

    itself = command("answers", "export", store, store.parent / "." / store.name)
    assert itself.exit_code == 2 and "[E749]" in itself.stderr
    outputs = ("--output", posts_file, "--answers-out", tmp_path / "x.jsonl")
    assert "[E749]" in command("augment", posts_file, store, *outputs).stderr
    assert "12 answers written" in answers("export", store, tmp_path / "out.jsonl")
    assert "12 answers added" in answers("import", tmp_path / "b.sqlite", tmp_path / "out.jsonl")
    assert load_answers(tmp_path / "b.sqlite") == load_answers(store)
    spend = answers("spend", store)
    assert "noun" in spend and float(spend.splitlines()[-1].split()[0]) > 0
    assert KEY not in (tmp_path / "out.jsonl").read_text("utf-8")


def test_plan_says_what_a_run_will_cost(command: Command, posts_file: Path, tmp_path: Path) -> None:
    def plan(*words: object) -> str:
        done = command("plan", *words)
        assert done.exit_code == 0, done.stderr
        return str(done.stdout)

    output = plan(posts_file, "--model", "strange")
    lines = [line.split() for line in output.splitlines() if line.strip()]
    table = {words[0]: words for words in lines if words[0] in DIMENSIONS}
    assert list(table) == PLAIN and table["noun"][1:4] == ["12", "0", "0"]
    assert table["noun"][-2:] == ["unpriced"] * 2 and "Give a table with --prices" in output
    assert "USD" in lines[0]
    prices = tmp_path / "prices.json"
    prices.write_text('{"strange": {"input": 1000000, "output": 0}}')
    priced = plan(posts_file, "--model", "strange", "--prices", prices, "--dimension", "image")
    row = next(line.split() for line in priced.splitlines() if line.strip().startswith("image"))
    assert float(row[-2]) == int(row[4]) > 1000 and float(row[-1]) == float(row[-2]) / 2

"""A store that several runs, processes and machines' folders share: where its file is, who reads it
while another writes, and whose claims count."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacy_mmcot.elicitation import database
from spacy_mmcot.elicitation.client import OpenAISettings, OpenAISource
from spacy_mmcot.elicitation.elicit import ElicitResult, elicit
from spacy_mmcot.elicitation.engine import Pace
from spacy_mmcot.elicitation.money import Account, Claim, Prices
from spacy_mmcot.elicitation.prompts import QuestionSettings
from spacy_mmcot.elicitation.store import AnswerStore, StoredAnswer, load_answers
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import Post
from tests.llm_server import LLMServer, sensible_answer

KEY = "sk-test-0815"


def answer(number: int) -> StoredAnswer:
    row = ("ner", "sentence", "t", "s", "m", "raw", f"text {number}")
    return StoredAnswer(f"k{number}", f"p{number}", *row)  # type: ignore[arg-type]


def killed_writer(path: Path, answers: int = 20) -> None:
    """A process that wrote answers and was killed, so that they are in the log alone."""
    script = f"""
import os
from pathlib import Path
from tests.elicitation.test_sharing import answer
from spacy_mmcot.elicitation.store import AnswerStore
store = AnswerStore(Path({str(path)!r}))
for number in range({answers}):
    store.put(answer(number))
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0


def run(server: LLMServer, path: Path, posts: list[Post], **pace: Any) -> ElicitResult:
    source = OpenAISource(OpenAISettings("gpt-4o-mini", server.url, KEY, timeout=20))
    with AnswerStore(path) as store:
        return elicit(posts, store, source, QuestionSettings.of("noun"), pace=Pace(**pace))


@pytest.mark.parametrize("kind", ["file", "folder", "chain"])
def test_a_store_behind_a_link_has_its_log_beside_the_file(tmp_path: Path, kind: str) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "answers.sqlite"
    killed_writer(real)
    links = {"file": real, "folder": real.parent, "chain": tmp_path / "first"}
    if kind == "chain":
        links["chain"].symlink_to(real)
    link = tmp_path / "link"
    link.symlink_to(links[kind])
    path = link / real.name if kind == "folder" else link
    assert len(load_answers(path)) == 20
    with AnswerStore(path) as store:
        store.put(answer(99))
        assert len(load_answers(real)) == 21, "both see the same log"
    assert len(load_answers(real)) == 21
    assert [file.name for file in real.parent.iterdir()] == [real.name]


def test_a_reader_that_was_there_first_sees_what_a_run_writes(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    with AnswerStore(path) as store:
        store.put(answer(0))
    with AnswerStore(path, read_only=True) as reader:
        assert len(reader.answers()) == 1
        with AnswerStore(path) as store:
            for number in range(500):
                store.put(answer(number))
                if number % 100 == 0:
                    assert len(reader.answers()) == max(1, number + 1)
            store.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            assert len(reader.answers()) == 500
        assert len(reader.answers()) == 500
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("log", [True, False])
def test_a_folder_that_nobody_can_write_to_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: bool
) -> None:
    path = tmp_path / "answers.sqlite"
    killed_writer(path)
    if not log:
        AnswerStore(path).close()
    # What a mount for reading alone says; the tests' user may be allowed everything.
    monkeypatch.setattr(database.os, "access", lambda *given: False)
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert len(load_answers(path)) == 20
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="only root may mount")
@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_mount_for_reading_with_a_log_left_over(tmp_path: Path, what: str) -> None:
    real, there = tmp_path / "real", tmp_path / "there"
    real.mkdir(), there.mkdir()
    path = real / "answers.sqlite"
    killed_writer(path)
    place = there / path.name
    pair = (real, there) if what == "folder" else (path, place)
    if what == "file":
        place.touch()
        AnswerStore(path).close()
    if subprocess.run(["mount", "--bind", *pair], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        if what == "folder":
            subprocess.run(["mount", "-o", "remount,bind,ro", there], check=True)
        else:
            with pytest.raises(MMCoTError, match=r"E301.+mount the folder"):
                AnswerStore(place)
        assert len(load_answers(place)) == 20
    finally:
        subprocess.run(["umount", pair[1]], check=True)


def test_two_threads_of_one_process_buy_each_answer_once(
    llm_server: LLMServer, tmp_path: Path, posts: list[Post]
) -> None:
    llm_server.configure(latency=0.05)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run, llm_server, tmp_path / "a.sqlite", posts) for _ in range(2)]
        results = [run.result().report.total() for run in runs]
    assert len(llm_server.requests) == 12
    assert [total.stored + total.already_there for total in results] == [12, 12]
    assert [file.name for file in tmp_path.iterdir()] == ["a.sqlite"]


def test_a_living_runs_claim_outlasts_any_clock(
    llm_server: LLMServer, tmp_path: Path, posts: list[Post], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, held = tmp_path / "a.sqlite", threading.Event()

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        held.wait(20)
        return 200, sensible_answer(body)

    llm_server.reply = reply
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run, llm_server, path, posts[:4], tries=1)
        while len(llm_server.requests) < 4:
            time.sleep(0.01)
        # Years later, by the clock; the first run is still waiting for its answers.
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 1e9)
        second = pool.submit(run, llm_server, path, posts[:4], tries=1)
        time.sleep(0.5)
        held.set()
        assert first.result().report.total().stored == 4
        assert second.result().report.total().already_there == 4
    assert len(llm_server.requests) == 4


def account(store: AnswerStore) -> Account:
    return Account(store, Prices(), "openai")


def test_the_number_of_a_process_says_nothing(tmp_path: Path) -> None:
    """As in two containers, which have the same host name and count their processes from 1."""
    path = tmp_path / "a.sqlite"
    script = f"""
import os, sys
os.getpid = lambda: 1
from pathlib import Path
from spacy_mmcot.elicitation.money import Account
from spacy_mmcot.elicitation.money import Prices
from spacy_mmcot.elicitation.store import AnswerStore
store = AnswerStore(Path({str(path)!r}))
account = Account(store, Prices(), "openai")
print(account.claim("k", 0.0).name, flush=True)
sys.stdin.read()
"""
    words = [sys.executable, "-c", script]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout and other.stdout.readline() == "MADE\n"
    with AnswerStore(path) as store:
        first = account(store)
        assert first.claim("k", 0.0) is Claim.HELD and first.claim("l", 0.0) is Claim.MADE
        other.kill()
        other.communicate()
        # It died, and with it its claim.
        assert first.claim("k", 0.0) is Claim.MADE
        assert account(store).claim("l", 0.0) is Claim.HELD
        first.close()
        assert account(store).claim("l", 0.0) is Claim.MADE


def test_what_a_dead_run_reserved_is_free_again(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with AnswerStore(path) as store:
        store.write("INSERT INTO claims VALUES ('k', 'a-run-that-died', 5.0)")
        with_cap = Account(store, Prices(), "openai", cap=1.0)
        assert with_cap.claim("l", 0.5) is Claim.MADE
        # A batch needs no process: its questions wait for it.
        store.write("INSERT INTO batches VALUES ('b', 'url', 'm', NULL, 0)")
        store.write("INSERT INTO claims VALUES ('n', 'b', 0.1)")
        later = Account(store, Prices(), "openai", cap=1.0)
        assert later.claim("n", 0.1) is Claim.HELD and later.in_batches()


def test_a_lock_is_not_written_through_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    with AnswerStore(tmp_path / "a.sqlite") as store:
        store.write("INSERT INTO claims VALUES ('k', 'run', 0.0)")
        (tmp_path / ".a.sqlite.run.lock").symlink_to(precious)
        first = account(store)
        first.claim("k", 0.0)
        first.close()
    assert precious.read_text() == "mine"


@pytest.mark.slow
@settings(deadline=None, max_examples=8, suppress_health_check=list(HealthCheck))
@given(
    kills=st.lists(st.floats(0.0, 0.6), min_size=1, max_size=3),
    rate=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 1000),
    together=st.booleans(),
)
def test_a_store_survives_kills_at_any_moment(
    tmp_path_factory: pytest.TempPathFactory,
    kills: list[float],
    rate: float,
    seed: int,
    together: bool,
) -> None:
    """Runs that are killed after some seconds of asking, one after the other or two at a time. At
    the end every question has its answer, and none was bought again that was on disk."""
    from benchmarks.elicit_runs import finished, start

    path = tmp_path_factory.mktemp("kills") / "a.sqlite"
    with LLMServer() as server:
        server.configure(latency=0.02, rate=rate, seed=seed)
        on_disk: dict[str, int] = {}
        for seconds in kills:
            before = server.seen()["requests"]
            runs = [start(server.url, path, 20, 6, 5.0) for _ in range(1 + together)]
            while server.seen()["requests"] == before and runs[0].poll() is None:
                time.sleep(0.01)
            time.sleep(seconds)
            for process in runs:
                process.kill()
                process.communicate()
            with AnswerStore(path, read_only=True) as store:
                kept = {a.key: a.raw for a in store.iter_all()}
            # Nothing that was committed goes away again.
            assert set(on_disk) <= set(kept)
            on_disk = dict.fromkeys(kept, 1)
        sold = sum(server.seen()["sold"].values())
        end = finished(start(server.url, path, 20, 6, 5.0))
        assert (end["stored"], end["rejected"], end["missing"]) == (120, 0, 0)
        bought = sum(server.seen()["sold"].values()) - sold
        assert bought == 120 - len(on_disk)
    assert [file.name for file in path.parent.iterdir()] == [path.name]

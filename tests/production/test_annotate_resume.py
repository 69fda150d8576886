"""Jobs that are stopped: nothing that was done is lost, nothing is doubled, nothing is mixed."""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from made_tables import read_jsonl, rows, write_jsonl

from spacy_mmcot.production.job import Layout, open_job

Command = Callable[..., Result]
Started = Callable[..., subprocess.Popen[str]]
N, CHUNK = 3000, 20


def test_a_second_run_has_nothing_to_do(annotate: Command, tmp_path: Path) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", rows(10)), tmp_path / "out.jsonl"
    assert annotate(source, "-o", output, "--chunk", 3).exit_code == 0
    before = output.stat()
    result = annotate(source, "-o", output, "--chunk", 3)
    assert (result.exit_code, "10 were done already" in result.output) == (0, True)
    assert output.stat() == before


def test_parts_that_are_there_are_kept(annotate: Command, tmp_path: Path) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", rows(10)), tmp_path / "out.jsonl"
    (tmp_path / "in.jsonl").write_text(source.read_text("utf-8").replace("p4", "p4\\ud800"))
    assert annotate(source, "-o", output, "--chunk", 3, "--threshold", 1).exit_code == 0
    whole = output.read_bytes()
    # As a kill leaves it: a manifest without an end, one part, one more that is not whole.
    manifest = tmp_path / "out.jsonl.manifest.json"
    text = manifest.read_text("utf-8")
    manifest.write_text(text[: text.index('"done"')] + '"done": null}', "utf-8")
    output.unlink()
    parts = tmp_path / "out.jsonl.parts"
    parts.mkdir()
    (parts / "part-000000.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    (parts / ".part-000001.jsonl.17.tmp").write_bytes(b"half of a li")
    (parts / "part-000001.rejected.jsonl").write_bytes(b"{}\n{}\n")
    result = annotate(source, "-o", output, "--chunk", 3, "--threshold", 1)
    assert "10 rows, 1 rejected, 3 were done already" in result.output
    assert output.read_bytes() == whole
    assert [row["row"] for row in read_jsonl(tmp_path / "out.jsonl.rejected.jsonl")] == [5]


@pytest.mark.parametrize(
    ("what", "name"),
    [("input", "input"), ("chunk", "chunk"), ("prefix", "columns"), ("pipeline", "pipeline")],
)
def test_another_job_in_the_same_place(
    annotate: Command, command: Command, model: str, tmp_path: Path, what: str, name: str
) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", rows(4)), tmp_path / "out.jsonl"
    assert annotate(source, "-o", output).exit_code == 0
    before = output.read_bytes()
    run, options = annotate, {"chunk": ("--chunk", 3), "prefix": ("--prefix", "x_")}.get(what, ())
    if what == "input":
        write_jsonl(source, rows(5))
    elif what == "pipeline":
        other = Path(shutil.copytree(model, tmp_path / "model"))
        meta = (other / "meta.json").read_text("utf-8")
        (other / "meta.json").write_text(meta.replace('"pipeline"', '"another"', 1), "utf-8")
        assert meta != (other / "meta.json").read_text("utf-8")
        run = functools.partial(command, "annotate", other)
    result = run(source, "-o", output, *options)
    assert result.exit_code == 1
    assert f"[E745] {output} belongs to another job: {name} was" in result.stderr
    assert output.read_bytes() == before
    assert run(source, "-o", output, *options, "--overwrite").exit_code == 0
    assert len(read_jsonl(output)) == (5 if what == "input" else 4)


def test_a_job_that_came_to_nothing_is_no_hindrance(annotate: Command, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "Anna", "entities": []}])
    output = ("-o", tmp_path / "out.jsonl")
    assert annotate(source, *output).exit_code == 2
    assert annotate(source, *output, "--prefix", "x_").exit_code == 0


def test_a_file_of_someone_else_is_not_replaced(annotate: Command, tmp_path: Path) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", rows(2)), tmp_path / "out.jsonl"
    output.write_text("precious", "utf-8")
    assert "[E744]" in annotate(source, "-o", output).stderr
    assert output.read_text("utf-8") == "precious"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious", "utf-8")
    folder = ("-o", tmp_path / "out", "--format", "jsonl")
    assert "[E744]" in annotate(source, *folder).stderr
    assert annotate(source, *folder, "--overwrite").exit_code == 0
    assert (tmp_path / "out" / "mine.txt").read_text("utf-8") == "precious"


def test_two_processes_do_not_work_on_one_output(annotate: Command, tmp_path: Path) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", rows(2)), tmp_path / "out.jsonl"
    with open_job(Layout(output, "jsonl"), {}):
        assert "[E746]" in annotate(source, "-o", output).stderr
    assert annotate(source, "-o", output).exit_code == 0
    assert not (tmp_path / ".out.jsonl.lock").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_kill_9_at_random_moments(
    annotate: Command, started: Started, tmp_path: Path, workers: int
) -> None:
    values = [row if i % 50 else {"text": i} for i, row in enumerate(rows(N))]
    source = write_jsonl(tmp_path / "in.jsonl", values)
    assert annotate(source, "-o", tmp_path / "calm.jsonl", "--chunk", CHUNK).exit_code == 0
    output, parts = tmp_path / "out.jsonl", tmp_path / "out.jsonl.parts"
    options = ("-o", output, "--chunk", CHUNK, "--workers", workers)
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    chance = random.Random(seed)

    def done() -> set[str]:
        found = parts.glob("part-*.jsonl")
        return {path.name for path in found if "rejected" not in path.name}

    kept: set[str] = set()
    kills = 0
    for _ in range(4):
        process = started(source, *options)
        wanted = len(kept) + chance.randrange(2, 12)
        while process.poll() is None and len(done()) < wanted:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.05)
        children = set(_children(process.pid))
        kills += process.poll() is None
        process.kill()
        process.communicate()
        _wait_until_gone(children)
        # What a worker finished after its parent's end counts as well.
        assert kept <= done()
        kept = done()
    assert kills >= 2
    process = started(source, *options)
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    n_rejected = N // 50
    assert f"{N} rows, {n_rejected} rejected, {len(kept) * CHUNK} were done already" in printed
    assert output.read_bytes() == (tmp_path / "calm.jsonl").read_bytes()
    rejects = [row["row"] for row in read_jsonl(tmp_path / "out.jsonl.rejected.jsonl")]
    assert rejects == list(range(1, N, 50))
    names = {path.name for path in tmp_path.iterdir()}
    assert "out.jsonl.parts" not in names
    assert not any("lock" in name or "tmp" in name for name in names)


@pytest.mark.slow
def test_ctrl_c(started: Started, tmp_path: Path) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", rows(N)), tmp_path / "out.jsonl"
    options = ("-o", output, "--chunk", CHUNK, "--workers", 2)
    process = started(source, *options)
    while process.poll() is None and not list(tmp_path.glob("out.jsonl.parts/part-*")):
        time.sleep(0.01)
    children = set(_children(process.pid))
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130, (printed, errors)
    assert "Run the command again to continue." in printed
    assert "Traceback" not in errors
    _wait_until_gone(children)
    assert not output.exists()


@pytest.mark.slow
def test_a_worker_that_dies(started: Started, tmp_path: Path) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", rows(N)), tmp_path / "out.jsonl"
    options = ("-o", output, "--chunk", CHUNK, "--workers", 2)
    process = started(source, *options)
    while process.poll() is None and not list(tmp_path.glob("out.jsonl.parts/part-*")):
        time.sleep(0.01)
    workers = [pid for pid in _children(process.pid) if b"spawn_main" in _command(pid)]
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "[E748] One of 2 worker processes died" in errors
    assert "Traceback" not in errors
    again = started(source, *options)
    again.communicate()
    assert again.returncode == 0
    assert [row["n"] for row in read_jsonl(output)] == list(range(N))


def _children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        yield from map(int, task.read_text("ascii").split())


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _wait_until_gone(pids: set[int]) -> None:
    """No worker may live on, and wait for ever, after its parent."""
    until = time.monotonic() + 20
    while any(_is_running(pid) for pid in pids):
        assert time.monotonic() < until, f"{pids} still run"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"

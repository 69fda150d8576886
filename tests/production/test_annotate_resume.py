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
from typing import Any

import pytest
from click.testing import Result
from made_tables import read_jsonl, rows, write_jsonl

from spacy_mmcot.production import annotate as module
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


def leave_unfinished(output: Path, *parts: int, chunk: int) -> None:
    """Take a finished job back to where a kill may have left it: the parts of these chunks."""
    lines = output.read_bytes().splitlines(keepends=True)
    manifest = Path(f"{output}.manifest.json")
    text = manifest.read_text("utf-8")
    manifest.write_text(text[: text.index('"done"')] + '"done": null}', "utf-8")
    output.unlink()
    work = Path(f"{output}.parts")
    work.mkdir()
    for number in parts:
        own = lines[number * chunk : (number + 1) * chunk]
        (work / f"part-{number:06d}.jsonl").write_bytes(b"".join(own))


def test_a_file_put_where_a_job_came_to_nothing_is_kept(annotate: Command, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "Anna", "entities": []}])
    output = tmp_path / "out.jsonl"
    assert annotate(source, "-o", output).exit_code == 2
    output.write_text("precious", "utf-8")
    result = annotate(source, "-o", output, "--prefix", "x_")
    assert (result.exit_code, "[E744]" in result.stderr) == (1, True)
    assert output.read_text("utf-8") == "precious"
    assert annotate(source, "-o", output, "--prefix", "x_", "--overwrite").exit_code == 0


def test_someone_elses_file_of_rejected_rows_is_kept(annotate: Command, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "Anna"}, {"text": None}])
    output, rejected = tmp_path / "out.jsonl", tmp_path / "out.jsonl.rejected.jsonl"
    run = (source, "-o", output, "--threshold", 1)
    for make in (lambda: rejected.write_text("mine"), lambda: rejected.symlink_to("nowhere")):
        make()
        result = annotate(*run)
        assert (result.exit_code, f"[E744] {rejected} exists" in result.stderr) == (1, True)
        assert os.path.lexists(rejected) and not output.exists()
        rejected.unlink()
    for options in ((), ("--overwrite",), ()):
        assert annotate(*run, *options).exit_code == 0
    assert len(rejected.read_text("utf-8").splitlines()) == 1


def test_a_file_put_where_a_job_was_killed_is_kept(annotate: Command, tmp_path: Path) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", rows(10)), tmp_path / "out.jsonl"
    assert annotate(source, "-o", output, "--chunk", 3).exit_code == 0
    whole = output.read_bytes()
    leave_unfinished(output, 0, 1, chunk=3)
    output.write_text("precious", "utf-8")
    result = annotate(source, "-o", output, "--chunk", 3)
    assert (result.exit_code, "[E744]" in result.stderr) == (1, True)
    assert output.read_text("utf-8") == "precious"
    # What a kill between the last two steps leaves is the job's own.
    output.write_bytes(whole)
    again = annotate(source, "-o", output, "--chunk", 3)
    assert (again.exit_code, "10 were done already" in again.output) == (0, True)


def test_only_own_files_are_removed(annotate: Command, tmp_path: Path) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", rows(10)), tmp_path / "out"
    options = ("-o", output, "--format", "jsonl", "--chunk", 4)
    assert annotate(source, *options).exit_code == 0
    work = tmp_path / "out.parts"
    work.mkdir(exist_ok=True)
    foreign = [
        *(output / "part-00000-9f3c.c000.snappy.parquet", output / "part-x.jsonl"),
        *(output / "part-000000.jsonl.bak", output / "part-1.csv", work / "notes.txt"),
    ]
    for path in foreign:
        path.write_text("precious", "utf-8")
    (output / "part-000009.jsonl").symlink_to(foreign[0])
    (output / "part-000008.jsonl").mkdir()
    assert annotate(source, *options, "--overwrite", "--prefix", "x_").exit_code == 0
    assert [path.read_text("utf-8") for path in foreign] == ["precious"] * len(foreign)
    assert (output / "part-000008.jsonl").is_dir()


@pytest.mark.parametrize("make", ["link", "file", "dangling link"])
def test_a_lock_that_is_someone_elses_file_is_left_alone(
    annotate: Command, tmp_path: Path, make: str
) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", rows(2)), tmp_path / "out.jsonl"
    lock, other = tmp_path / ".out.jsonl.lock", tmp_path / "precious.txt"
    if make == "file":
        lock.write_text("precious", "utf-8")
        other = lock
    else:
        lock.symlink_to(other)
        if make == "link":
            other.write_text("precious", "utf-8")
    result = annotate(source, "-o", output)
    assert (result.exit_code, "[E744]" in result.stderr) == (1, True)
    assert not other.exists() if make == "dangling link" else other.read_text() == "precious"


@pytest.mark.parametrize("when", [1, 5])
@pytest.mark.parametrize("change", ["shorter", "longer", "other words"])
def test_an_input_that_is_edited_during_the_run(
    annotate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: int, change: str
) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", rows(12)), tmp_path / "out.jsonl"
    text, seen = source.read_text("utf-8"), 0
    own = module.extract_findings

    def extract(doc: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == when:
            lines = text.splitlines(keepends=True)
            changed = {"shorter": lines[:7], "longer": [*lines, *lines]}
            words = [line.replace("Anna", "Hans") for line in lines]
            source.write_text("".join(changed.get(change, words)), "utf-8")
        return own(doc)

    monkeypatch.setattr(module, "extract_findings", extract)
    result = annotate(source, "-o", output, "--chunk", 2)
    assert (result.exit_code, "[E752]" in result.stderr) == (1, True), result.output
    assert not output.exists()
    again = annotate(source, "-o", output, "--chunk", 2)
    assert "[E745]" in again.stderr
    assert annotate(source, "-o", output, "--chunk", 2, "--overwrite").exit_code == 0


def test_an_input_of_another_format_is_another_job(annotate: Command, tmp_path: Path) -> None:
    table = tmp_path / "in.csv"
    table.write_text('text\n"Anna"\n', "utf-8")
    output = tmp_path / "out.jsonl"
    assert annotate(table, "-o", output).exit_code == 0
    table.rename(tmp_path / "in.jsonl")
    assert "[E745]" in annotate(tmp_path / "in.jsonl", "-o", output).stderr
    (tmp_path / "day=2").mkdir()
    assert (
        "[E745]"
        in annotate(
            (tmp_path / "in.jsonl").rename(tmp_path / "day=2" / "in.csv"), "-o", output
        ).stderr
    )


@pytest.mark.parametrize("damage", ["cut", "empty", "one row less", "one row more", "rejects gone"])
def test_a_damaged_part_is_done_again(annotate: Command, tmp_path: Path, damage: str) -> None:
    values = [*rows(9), {"text": 1}]
    source, output = write_jsonl(tmp_path / "in.jsonl", values), tmp_path / "out.jsonl"
    options = ("-o", output, "--chunk", 3, "--threshold", 1)
    assert annotate(source, *options).exit_code == 0
    whole = output.read_bytes()
    leave_unfinished(output, 0, 1, 2, chunk=3)
    work = tmp_path / "out.jsonl.parts"
    part = work / "part-000001.jsonl"
    lines = part.read_bytes().splitlines(keepends=True)
    if damage == "rejects gone":
        (work / "part-000003.jsonl").write_bytes(b"")
    else:
        changed = {"cut": lines[:2], "empty": [], "one row less": lines[1:]}
        part.write_bytes(b"".join(changed.get(damage, lines + lines[:1])))
    result = annotate(source, *options)
    kept = 9 if damage == "rejects gone" else 6
    assert f"10 rows, 1 rejected, {kept} were done already" in result.output
    assert output.read_bytes() == whole


@pytest.mark.parametrize("format", ["csv", "parquet", "spacy"])
def test_a_damaged_part_of_any_format(annotate: Command, tmp_path: Path, format: str) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    source, output = write_jsonl(tmp_path / "in.jsonl", rows(6)), tmp_path / "out"
    options = ("-o", output, "--format", format, "--chunk", 3)
    assert annotate(source, *options).exit_code == 0
    part, manifest = output / f"part-000001.{format}", tmp_path / "out.manifest.json"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    assert "[E753]" in annotate(source, *options).stderr
    text = manifest.read_text("utf-8")
    manifest.write_text(text[: text.index('"done"')] + '"done": null}', "utf-8")
    result = annotate(source, *options)
    assert "3 were done already" in result.output, result.output
    assert len(part.read_bytes()) == len(whole)


def test_what_is_written_is_on_disk_before_anything_goes(
    annotate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file and the folder of every new name are flushed before the parts are removed."""
    flushed: dict[int, str] = {}
    own_sync, own_unlink, own_open = os.fsync, Path.unlink, os.open
    names: dict[int, str] = {}

    def note(path: Any, *rest: Any, **named: Any) -> int:
        number = own_open(path, *rest, **named)
        names[number] = os.path.basename(path)
        return number

    def sync(number: int) -> None:
        flushed[len(flushed)] = names[number]
        own_sync(number)

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == "part-000000.jsonl":
            flushed[len(flushed)] = "parts go"
        own_unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(os, "open", note)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "unlink", unlink)
    source = write_jsonl(tmp_path / "in.jsonl", rows(4))
    folder = tmp_path / "new" / "deep"
    assert annotate(source, "-o", folder / "out.jsonl").exit_code == 0
    order = list(flushed.values())
    gone = order.index("parts go")
    for name in ("deep", "new", tmp_path.name, "out.jsonl.parts"):
        assert name in order[:gone], (name, order)
    last = [name for name in order[:gone] if "manifest" in name or "joined" in name]
    assert "joined" in last[-2] and "manifest" in last[-1]
    assert order[gone - 1] == "deep"


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

"""Reading and writing files: errors of the catalogue, and files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.files import check_exists, iter_lines, read_bytes, replace_file, write_json
from spacy_mmcot.types import is_null


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent.jsonl"
    for read in (read_bytes, check_exists, lambda path: list(iter_lines(path))):
        with pytest.raises(MMCoTError, match=r"\[E100\] .*absent\.jsonl: no such file"):
            read(absent)
    with pytest.raises(MMCoTError, match=r"\[E102\].*directory"):
        read_bytes(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(MMCoTError, match=r"\[E103\]"):
        write_json(tmp_path / "file" / "below.json", {})


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes")
def test_a_pipe_is_refused_and_not_read_in_part(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MMCoTError, match=r"E102.*pipe: cannot be read: it is a pipe"):
        list(iter_lines(tmp_path / "pipe"))


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.txt"
    with replace_file(path) as temporary:
        temporary.write_text("first")
    with pytest.raises(KeyError), replace_file(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows flushes no folders")
def test_content_is_flushed_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    flushed: list[tuple[str, bool]] = []

    def fsync(number: int) -> None:
        flushed.append((os.readlink(f"/proc/self/fd/{number}"), path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    if not Path("/proc/self/fd").exists():
        pytest.skip("names of descriptors need Linux")
    with replace_file(path) as temporary:
        temporary.write_text("a")
    assert flushed == [(str(temporary), False), (str(tmp_path), True)]


def test_null() -> None:
    assert all(map(is_null, (None, "", float("nan"))))
    assert not any(map(is_null, (0, False, " ", b"", [], 0.0)))

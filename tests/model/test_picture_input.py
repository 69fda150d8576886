"""Arrays kept in memory and on disk."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy
import pytest

from spacy_mmcot.model.picture_input import ArrayCache, CacheSettings, DiskCache

# Of 8 kB each.
ARRAYS = {name: numpy.full(1000, i, dtype="float64") for i, name in enumerate("abcde")}


def memory(megabytes: float) -> ArrayCache:
    return ArrayCache(CacheSettings("unused", 0, megabytes))


def test_memory_forgets_the_least_recently_used() -> None:
    cache = memory(0.025)
    for name in "abc":
        cache.put(name, ARRAYS[name])
    assert cache.get("a") is not None
    cache.put("d", ARRAYS["d"])
    assert cache.get("b") is None
    assert [cache.get(name) is not None for name in "acd"] == [True] * 3


def test_memory_counts_what_is_put_again_once() -> None:
    cache = memory(0.017)
    for name in ("a", "b", "a", "b", "a"):
        cache.put(name, ARRAYS[name])
    assert cache.get("a") is not None and cache.get("b") is not None


def test_an_array_larger_than_the_memory_is_not_kept() -> None:
    cache = memory(0.007)
    cache.put("a", ARRAYS["a"])
    assert cache.get("a") is None


def test_what_is_on_disk_comes_back_to_an_emptied_memory(tmp_path: Path) -> None:
    cache = ArrayCache(CacheSettings(str(tmp_path), 1, 1))
    cache.put("a", ARRAYS["a"], disk=True)
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.get("a") is None
    numpy.testing.assert_array_equal(copy.get("a", disk=True), ARRAYS["a"])
    assert copy.get("a") is not None


def test_disk_gives_back_what_was_put(tmp_path: Path) -> None:
    DiskCache(tmp_path / "new", 1).put("a", ARRAYS["a"])
    found = DiskCache(tmp_path / "new", 1).get("a")
    numpy.testing.assert_array_equal(found, ARRAYS["a"])
    assert DiskCache(tmp_path / "new", 1).get("b") is None


def test_disk_keeps_to_its_size(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 0.03)
    for i, name in enumerate("abcde"):
        cache.put(name, ARRAYS[name])
        if (tmp_path / f"{name}.npy").exists():
            os.utime(tmp_path / f"{name}.npy", (i, i))
    kept = sorted(path.stem for path in tmp_path.iterdir())
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 30_000
    assert "e" in kept and "a" not in kept


def test_disk_of_size_zero_keeps_nothing(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "none", 0)
    cache.put("a", ARRAYS["a"])
    assert cache.get("a") is None
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY broken", ARRAYS["a"].tobytes()[:50]])
def test_a_damaged_file_counts_as_none(tmp_path: Path, damage: bytes) -> None:
    cache = DiskCache(tmp_path, 1)
    cache.put("a", ARRAYS["a"])
    (tmp_path / "a.npy").write_bytes(damage)
    assert cache.get("a") is None
    cache.put("a", ARRAYS["a"])
    assert cache.get("a") is not None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = DiskCache(tmp_path / "file", 1)
    cache.put("a", ARRAYS["a"])
    assert cache.get("a") is None

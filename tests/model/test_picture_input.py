"""The cache of prepared pictures."""

from __future__ import annotations

import pickle

import numpy
from numpy.typing import NDArray

from spacy_mmcot.model.picture_input import PictureCache

# Of 8 kB each.
ARRAYS = {name: numpy.full(1000, i, dtype="float64") for i, name in enumerate("abcd")}
MAKER = object()


def fill(megabytes: float, names: str) -> PictureCache:
    cache = PictureCache(megabytes)
    for name in names:
        find(cache, name)
        cache.put(name, ARRAYS[name])
    return cache


def find(cache: PictureCache, name: str) -> NDArray | None:
    return cache.get(name, MAKER)


def test_the_least_recently_used_go_first() -> None:
    cache = fill(0.025, "abc")
    assert find(cache, "a") is ARRAYS["a"]
    cache.put("d", ARRAYS["d"])
    assert [name for name in "abcd" if find(cache, name) is not None] == ["a", "c", "d"]


def test_what_is_put_again_counts_once() -> None:
    cache = fill(0.017, "ababa")
    assert find(cache, "a") is not None and find(cache, "b") is not None


def test_an_array_larger_than_the_cache_is_not_kept() -> None:
    assert find(fill(0.007, "a"), "a") is None


def test_another_maker_finds_nothing() -> None:
    cache = fill(1, "a")
    assert cache.get("a", object()) is None
    assert find(cache, "a") is None


def test_a_pickled_copy_is_empty_and_works() -> None:
    copy = pickle.loads(pickle.dumps(fill(1, "a")))
    assert find(copy, "a") is None
    copy.put("a", ARRAYS["a"])
    assert find(copy, "a") is ARRAYS["a"]

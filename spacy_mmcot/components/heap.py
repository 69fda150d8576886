"""Keeping a process that runs for long as small as it began."""

from __future__ import annotations

import ctypes
import functools
import os
import time
from collections.abc import Callable

# oneDNN keeps what it has compiled for a matrix product, by its shape, and texts bring new shapes
# all the time: its own limit of 1024 is tens of megabytes, reached after tens of thousands of docs.
# It reads this once, at its first use; components are imported before that.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

# A walk over the heap takes milliseconds: too long to take it after every request of a service.
PAUSE = 1.0  # seconds

_last = float("-inf")


def trim_heap() -> None:
    """Return the free pages of the heap, where the C library can, and at most once in `PAUSE`.

    An encoder's arrays come and go at a new size with every batch, and what little outlives each
    batch lies between them. glibc returns only what is free at the end of its heap, so that a
    process which does the same work over and over would grow for as long as it runs.
    """
    global _last
    now = time.monotonic()
    if now - _last >= PAUSE:
        _last = now
        _malloc_trim()(0)


@functools.cache
def _malloc_trim() -> Callable[[int], object]:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return lambda keep: None

"""Giving memory that is free back to the operating system."""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable

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

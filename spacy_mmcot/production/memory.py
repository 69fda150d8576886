"""Functions that a long-running process calls to stay small. Nothing happens at import."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable


def limit_compiled_products(count: int = 64) -> None:
    """Let oneDNN keep at most this many compiled matrix products in the process.

    It keeps them by shape, and texts bring new shapes all the time: its own limit of 1024 is tens
    of megabytes, reached after tens of thousands of Docs. oneDNN reads the limit once, so call this
    before a pipeline runs for the first time. ONEDNN_PRIMITIVE_CACHE_CAPACITY, if set, prevails.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(count))


def trim_heap() -> None:
    """Return the free pages of the heap to the system, where the C library can (glibc). Takes some
    milliseconds: call it now and then, not for each Doc.

    An encoder's arrays have a new size in every batch, and what little outlives a batch lies
    between them. glibc returns only what is free at the end of its heap, so a process that does the
    same work over and over would grow for as long as it runs.
    """
    _malloc_trim()(0)


@functools.cache
def _malloc_trim() -> Callable[[int], object]:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return lambda keep: None

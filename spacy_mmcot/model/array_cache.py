"""Arrays kept by name: in memory, and on disk for the runs to come."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from ..errors import MMCoTError
from ..files import replacing

Array = NDArray[Any]


class MemoryCache:
    """The last used arrays, at most `megabytes` of them. Threads may share it."""

    def __init__(self, megabytes: float):
        self._limit = int(megabytes * 1e6)
        self._arrays: OrderedDict[str, Array] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[MemoryCache], tuple[float]]:
        # A pickled cache starts empty: what it holds can be had again, a lock cannot be sent.
        return MemoryCache, (self._limit / 1e6,)

    def get(self, name: str) -> Array | None:
        with self._lock:
            if name in self._arrays:
                self._arrays.move_to_end(name)
            return self._arrays.get(name)

    def put(self, name: str, array: Array) -> None:
        with self._lock:
            if name in self._arrays:
                self._bytes -= self._arrays.pop(name).nbytes
            self._arrays[name] = array
            self._bytes += array.nbytes
            while self._bytes > self._limit:
                self._bytes -= self._arrays.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        with self._lock:
            self._arrays.clear()
            self._bytes = 0


class DiskCache:
    """Arrays as files of a folder, at most `megabytes` of them; what was not used for longest goes
    first. Processes may share the folder. A cache that fails is slow, never wrong: whatever is
    damaged or cannot be written counts as not there."""

    def __init__(self, folder: Path, megabytes: float):
        self._folder = folder
        self._limit = int(megabytes * 1e6)
        self._bytes: int | None = None  # as counted when last looked, plus what was written since

    def get(self, name: str) -> Array | None:
        path = self._folder / f"{name}.npy"
        try:
            array = numpy.load(path, allow_pickle=False)
            os.utime(path)
        except (OSError, ValueError, EOFError):
            return None
        return array

    def put(self, name: str, array: Array) -> None:
        if array.nbytes > self._limit:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{name}.npy"
            with replacing(path) as temporary, open(temporary, "wb") as file:
                numpy.save(file, array, allow_pickle=False)
            if self._bytes is None:
                self._bytes = sum(size for _, size, _ in self._files())
            else:
                self._bytes += path.stat().st_size
            if self._bytes > self._limit:
                self._evict()
        except (OSError, MMCoTError):
            return

    def _files(self) -> list[tuple[float, int, Path]]:
        files = []
        for path in self._folder.glob("*.npy"):
            try:
                status = path.stat()
            except OSError:
                continue
            files.append((status.st_mtime, status.st_size, path))
        return files

    def _evict(self) -> None:
        files = sorted(self._files())
        self._bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            # Down to nine tenths, so that a full cache is not swept at every write.
            if self._bytes <= 0.9 * self._limit:
                break
            path.unlink(missing_ok=True)
            self._bytes -= size

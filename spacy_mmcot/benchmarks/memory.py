"""The most memory that a process ever held."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def own_peak_mb() -> float:
    """Of this process, in units of 1024 * 1024 bytes."""
    if _STATUS.exists():
        # Linux hands a child the ru_maxrss of the process that started it.
        rows = _STATUS.read_text("ascii").splitlines()
        return int(next(row for row in rows if row.startswith("VmHWM:")).split()[1]) / 1024
    return peak_mb_of(resource.getrusage(resource.RUSAGE_SELF))


def peak_mb_of(usage: resource.struct_rusage) -> float:
    """As the system tells it, in the same units."""
    return usage.ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)

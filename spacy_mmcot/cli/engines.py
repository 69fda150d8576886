"""Where a long job runs, for the commands that let one choose."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ..production.engines import Engine

EngineName = Literal["local", "ray"]


def chosen_engine(name: EngineName, workers: int | None) -> Engine:
    """workers: processes; None for one, or on a Ray cluster one for each of its CPUs."""
    from ..production.engines import in_process, in_processes

    if name == "ray":
        from ..production.ray_engine import on_ray

        return partial(on_ray, workers=workers)
    if workers in (None, 1):
        return in_process
    return partial(in_processes, workers=workers)

"""The chunks of a job on a Ray cluster: one dataset of chunks, mapped by a pool of actors.

What travels is where a chunk lies, never its rows: each actor reads and writes files that all nodes
share. A node that is lost costs the chunks it was working on, which Ray hands to others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import Errors, MMCoTError, UsageError, first_line
from .engines import Maker, Work
from .job import Outcome
from .tables import Chunk


def on_ray(make: Maker, chunks: Iterable[Chunk], workers: int | None = None) -> Iterator[Outcome]:
    """On the cluster that RAY_ADDRESS names or that runs on this machine; one is started for the
    job where there is none.

    workers: actors, each with one CPU; None for one on each CPU of the cluster.

    Raises MMCoTError where Ray is missing or fails, and what the work raises.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise MMCoTError(Errors.E750) from None
    rows = [chunk._asdict() for chunk in chunks]
    if not rows:
        return
    started = not ray.is_initialized()
    try:
        if started:
            ray.init(logging_level=logging.WARNING, log_to_driver=False)
        yield from _mapped(ray, make, rows, workers)
    except MMCoTError:
        raise
    except Exception as error:
        raise MMCoTError(Errors.E751.format(reason=first_line(error))) from error
    finally:
        if started:
            ray.shutdown()


class _Actor:
    """Loads at its first chunk, since what fails in the constructor of an actor is tried again."""

    def __init__(self, make: Maker) -> None:
        self._make = make
        self._work: Work | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch is one chunk: the fields of Chunk in, those of Outcome and an error out."""
        row = {name: values[0] for name, values in batch.items()}
        number, position, first, rows = (
            int(row[name]) for name in ("number", "position", "first", "rows")
        )
        chunk = Chunk(number, str(row["path"]), row["format"], position, first, rows)
        # An error of ours goes home as data: Ray would wrap it, and lose its class.
        try:
            if self._work is None:
                self._work = self._make()
            fields = self._work(chunk)._asdict() | {"error": "", "usage": False}
        except MMCoTError as error:
            fields = Outcome(number, 0, 0)._asdict()
            fields |= {"error": str(error), "usage": isinstance(error, UsageError)}
        return {name: [value] for name, value in fields.items()}


def _mapped(
    ray: Any, make: Maker, rows: list[dict[str, Any]], workers: int | None
) -> Iterator[Outcome]:
    actors = min(workers or int(ray.cluster_resources().get("CPU", 1)), len(rows))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    outcomes = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Actor,
        fn_constructor_args=(make,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
    )
    for row in outcomes.iter_rows():
        if row["error"]:
            raise (UsageError if row["usage"] else MMCoTError)(row["error"])
        yield Outcome(int(row["number"]), int(row["rows"]), int(row["rejected"]))

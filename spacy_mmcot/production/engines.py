"""Where the chunks of a job are worked on: in this process, or in several on this machine.

An engine is given a maker, which loads what the work needs and can be pickled, and yields an
outcome a chunk in the order in which they are done.

The chunks of a job on a Ray cluster: one dataset of chunks, mapped by a pool of actors.

What travels is where a chunk lies, never its rows: each actor reads and writes files that all nodes
share. A node that is lost costs the chunks it was working on, which Ray hands to others.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from multiprocessing.connection import wait as wait_for
from typing import Any, Literal

from ..errors import Errors, MMCoTError, UsageError, first_line
from .job import Job, Outcome
from .tables import Chunk

Work = Callable[[Chunk], Outcome]
Maker = Callable[[], Work]
# (what makes the workers, the chunks to do) -> outcomes in any order
Engine = Callable[[Maker, Iterable[Chunk]], Iterator[Outcome]]
# Told how many rows there are in all, and how many are done.
Told = Callable[[int, int], None]

EngineName = Literal["local", "ray"]

# Beside the chunk in work, so that no worker waits for the next one.
_WAITING_PER_WORKER = 2


def run_chunks(job: Job, chunks: Sequence[Chunk], make: Maker, engine: Engine, told: Told) -> int:
    """Do the chunks whose parts are not there yet. Returns the number of rows that were."""
    finished = job.finished_parts(len(chunks))
    total = sum(chunk.rows for chunk in chunks)
    resumed = done = sum(chunk.rows for chunk in chunks if chunk.number in finished)
    told(total, done)
    for outcome in engine(make, (c for c in chunks if c.number not in finished)):
        done += outcome.rows
        told(total, done)
    return resumed


def choose_engine(name: EngineName, workers: int | None) -> Engine:
    """workers: processes; None for one, or on a Ray cluster one for each of its CPUs."""
    if name == "ray":
        return partial(on_ray, workers=workers)
    if workers in (None, 1):
        return in_process
    return partial(in_processes, workers=workers)


def in_process(make: Maker, chunks: Iterable[Chunk]) -> Iterator[Outcome]:
    """One after the other, here."""
    chunks = list(chunks)
    if chunks:
        work = make()
        yield from map(work, chunks)


def in_processes(make: Maker, chunks: Iterable[Chunk], workers: int) -> Iterator[Outcome]:
    """In processes of their own, which load once and share this machine's cores.

    Raises MMCoTError where a worker dies, and what the work raises.
    """
    threads = max(1, usable_cores() // workers)
    queue = iter(chunks)
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _begin, (make, threads)
    )
    pending: set[Future[Outcome]] = set()
    try:
        while True:
            for chunk in islice(queue, workers * _WAITING_PER_WORKER - len(pending)):
                pending.add(pool.submit(_work, chunk))
            if not pending:
                break
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BaseException as error:
        # A chunk without its part is done again, so none is worth waiting for.
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise MMCoTError(Errors.E748.format(workers=workers)) from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Worker:
    make: Maker
    work: Work | None = None


def _begin(make: Maker, threads: int) -> None:
    # Ctrl-C is for the process that hands out the work.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Before torch is imported, which reads it then.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(min(threads, torch.get_num_threads()))
    _Worker.make = make


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever, and hold its memory."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _work(chunk: Chunk) -> Outcome:
    # Loading stands here, not in _begin, since what fails there could not say why.
    if _Worker.work is None:
        _Worker.work = _Worker.make()
    return _Worker.work(chunk)


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

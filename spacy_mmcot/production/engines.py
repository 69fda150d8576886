"""Where the chunks of a job are worked on: in this process, in several, or on a Ray cluster.

An engine gets a factory, which loads what the work needs and can be pickled, and yields the outcome
of each chunk as it is done. On a Ray cluster only the places of chunks travel, never their rows:
each actor reads and writes files that all nodes share. Ray gives the chunks of a lost node to
others.
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

EngineName = Literal["local", "ray"]
Work = Callable[[Chunk], Outcome]
WorkFactory = Callable[[], Work]
Engine = Callable[[WorkFactory, Iterable[Chunk]], Iterator[Outcome]]
# Called with the number of rows in all, and of those that are done.
OnProgress = Callable[[int, int], None]

# The chunk in work and the next one, so that no worker waits.
_CHUNKS_PER_WORKER = 2


def choose_engine(name: EngineName, workers: int | None) -> Engine:
    """workers: processes; None for one, or on a Ray cluster one for each of its CPUs."""
    if name == "ray":
        return partial(run_on_ray, workers=workers)
    if workers in (None, 1):
        return run_here
    return partial(run_in_processes, workers=workers)


def run_chunks(
    job: Job, chunks: Sequence[Chunk], load: WorkFactory, engine: Engine, on_progress: OnProgress
) -> int:
    """Do the chunks without a part. Returns the number of rows that were done before."""
    finished = job.list_finished(len(chunks))
    total = sum(chunk.rows for chunk in chunks)
    resumed = done = sum(chunk.rows for chunk in chunks if chunk.number in finished)
    on_progress(total, done)
    for outcome in engine(load, (c for c in chunks if c.number not in finished)):
        done += outcome.rows
        on_progress(total, done)
    return resumed


def run_here(load: WorkFactory, chunks: Iterable[Chunk]) -> Iterator[Outcome]:
    """One chunk after the other, in this process. Loads nothing where there are none."""
    chunks = list(chunks)
    if chunks:
        yield from map(load(), chunks)


def run_in_processes(load: WorkFactory, chunks: Iterable[Chunk], workers: int) -> Iterator[Outcome]:
    """In processes that load once and share this machine's cores.

    Raises MMCoTError where a process dies, and what the work raises.
    """
    queue = iter(chunks)
    others = multiprocessing.active_children()
    spawn = multiprocessing.get_context("spawn")
    threads = max(1, count_cores() // workers)
    pool = ProcessPoolExecutor(workers, spawn, _start_process, (load, threads))
    pending: set[Future[Outcome]] = set()
    try:
        while True:
            for chunk in islice(queue, workers * _CHUNKS_PER_WORKER - len(pending)):
                pending.add(pool.submit(_work_in_process, chunk))
            if not pending:
                break
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BaseException as error:
        # Chunks without a part are done again, so none is worth waiting for.
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise MMCoTError(Errors.E748.format(workers=workers)) from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def count_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Process:
    """What a worker process holds."""

    load: WorkFactory
    work: Work | None = None


def _start_process(load: WorkFactory, threads: int) -> None:
    # Ctrl-C is for the process that hands out the chunks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # OpenMP reads this when it is loaded, with torch.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(min(threads, torch.get_num_threads()))
    _Process.load = load


def _end_with_parent() -> None:
    """End this process when its parent was killed. Otherwise it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _work_in_process(chunk: Chunk) -> Outcome:
    # Not loaded in _start_process: an error there would not reach the parent.
    if _Process.work is None:
        _Process.work = _Process.load()
    return _Process.work(chunk)


def run_on_ray(
    load: WorkFactory, chunks: Iterable[Chunk], workers: int | None = None
) -> Iterator[Outcome]:
    """On the cluster that RAY_ADDRESS names or that runs on this machine. Where there is none, one
    is started for the job.

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
        actors = min(workers or int(ray.cluster_resources().get("CPU", 1)), len(rows))
        ray.data.DataContext.get_current().enable_progress_bars = False
        outcomes = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Actor,
            fn_constructor_args=(load,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=1,
        )
        for row in outcomes.iter_rows():
            if row["error"]:
                raise (UsageError if row["usage"] else MMCoTError)(row["error"])
            yield Outcome(int(row["number"]), int(row["rows"]), int(row["rejected"]))
    except MMCoTError:
        raise
    except Exception as error:
        raise MMCoTError(Errors.E751.format(reason=first_line(error))) from error
    finally:
        if started:
            ray.shutdown()


class _Actor:
    """Loads at its first chunk: Ray would try again what fails in an actor's constructor."""

    def __init__(self, load: WorkFactory) -> None:
        self._load = load
        self._work: Work | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch is one chunk: the fields of a Chunk in, those of an Outcome and an error out."""
        # Numbers come as numpy's.
        row: dict[str, Any] = {
            name: value if isinstance(value, str) else int(value)
            for name, (value,) in batch.items()
        }
        chunk = Chunk(**row)
        # An MMCoTError is returned as data: Ray would wrap it, and its class would be lost.
        try:
            if self._work is None:
                self._work = self._load()
            result = self._work(chunk)._asdict() | {"error": "", "usage": False}
        except MMCoTError as error:
            result = Outcome(chunk.number, 0, 0)._asdict()
            result |= {"error": str(error), "usage": isinstance(error, UsageError)}
        return {name: [value] for name, value in result.items()}

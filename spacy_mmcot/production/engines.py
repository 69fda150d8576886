"""Where the chunks of a job are worked on: in this process, in several, or on a Ray cluster.

An engine gets a factory, which loads what the work needs and can be pickled, and yields the number
of rows of each chunk as it is done. All nodes of a Ray cluster share the files; Ray gives the
chunks of a lost node to others.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import wait as wait_for
from typing import Any, Literal

from ..errors import Errors, MMCoTError, UsageError
from ..messages import first_line
from .job import Job
from .tables import Chunk

EngineName = Literal["local", "ray"]
Work = Callable[[Chunk], None]
WorkFactory = Callable[[], Work]
Engine = Callable[[WorkFactory, Sequence[Chunk]], Iterator[int]]
# Called with the number of rows in all, and of those that are done.
OnProgress = Callable[[int, int], None]


def choose_engine(name: EngineName, workers: int | None) -> Engine:
    """workers: processes; None for one, or on a Ray cluster one for each of its CPUs."""
    if name == "ray":
        return partial(run_on_ray, workers=workers)
    # Here: one chunk after the other. Nothing is loaded where there are none.
    if workers in (None, 1):
        return lambda load, chunks: map(_Worker(load), chunks)
    return partial(run_in_processes, workers=workers)


def run_chunks(
    job: Job,
    chunks: Sequence[Chunk],
    load: WorkFactory,
    engine: Engine,
    on_progress: OnProgress = lambda total, done: None,
) -> int:
    """Do the chunks without a part. Returns the number of rows that were done before."""
    total = sum(chunk.rows for chunk in chunks)
    left = [chunk for chunk in chunks if not job.is_finished(chunk)]
    resumed = done = total - sum(chunk.rows for chunk in left)
    on_progress(total, done)
    for rows in engine(load, left):
        done += rows
        on_progress(total, done)
    return resumed


def run_in_processes(load: WorkFactory, chunks: Sequence[Chunk], workers: int) -> Iterator[int]:
    """In processes that load once and share this machine's cores. Raises MMCoTError where one dies,
    and what the work raises."""
    others = multiprocessing.active_children()
    spawn = multiprocessing.get_context("spawn")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = max(1, (cores or 1) // workers)
    pool = ProcessPoolExecutor(workers, spawn, _start_process, (load, threads))
    try:
        for future in as_completed([pool.submit(_work_in_process, chunk) for chunk in chunks]):
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


class _Worker:
    """Loads at its first chunk: an error in the start of a process would not reach the parent, and
    Ray would try again what fails in an actor's constructor. Returns the rows of each chunk."""

    def __init__(self, load: WorkFactory) -> None:
        self._load = load
        self._work: Work | None = None

    def __call__(self, chunk: Chunk) -> int:
        if self._work is None:
            self._work = self._load()
        self._work(chunk)
        return chunk.rows


_worker: _Worker  # that of a worker process


def _start_process(load: WorkFactory, threads: int) -> None:
    # Ctrl-C is for the process that hands out the chunks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # OpenMP reads this when it is loaded, with torch.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(min(threads, torch.get_num_threads()))
    global _worker
    _worker = _Worker(load)


def _end_with_parent() -> None:
    """End this process when its parent was killed. Otherwise it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _work_in_process(chunk: Chunk) -> int:
    return _worker(chunk)


def run_on_ray(
    load: WorkFactory, chunks: Sequence[Chunk], workers: int | None = None
) -> Iterator[int]:
    """On the cluster that RAY_ADDRESS names, that runs on this machine, or that is started for the
    job. workers: actors, each with one CPU; None for one on each CPU of the cluster. Raises
    MMCoTError where Ray is missing or fails, and what the work raises."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise MMCoTError(Errors.E750) from None
    if not chunks:
        return
    started = not ray.is_initialized()
    try:
        if started:
            ray.init(logging_level=logging.WARNING, log_to_driver=False)
        actors = min(workers or int(ray.cluster_resources().get("CPU", 1)), len(chunks))
        ray.data.DataContext.get_current().enable_progress_bars = False
        items = [{"chunk": json.dumps(chunk)} for chunk in chunks]
        rows = ray.data.from_items(items, override_num_blocks=len(chunks))
        outcomes = rows.map_batches(
            _Actor,
            fn_constructor_args=(load,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=1,
        )
        for row in outcomes.iter_rows():
            if row["error"]:
                raise (UsageError if row["usage"] else MMCoTError)(row["error"])
            yield int(row["rows"])
    except MMCoTError:
        raise
    except Exception as error:
        raise MMCoTError(Errors.E751.format(reason=first_line(error))) from error
    finally:
        if started:
            ray.shutdown()


class _Actor(_Worker):
    def __call__(self, batch: Any) -> Any:
        """A batch is one chunk: the JSON of a Chunk in, its rows and an error out."""
        chunk = Chunk(*json.loads(batch["chunk"][0]))
        # An MMCoTError is returned as data: Ray would wrap it, and its class would be lost.
        message, usage = "", False
        try:
            super().__call__(chunk)
        except MMCoTError as error:
            message, usage = str(error), isinstance(error, UsageError)
        return {"rows": [chunk.rows], "error": [message], "usage": [usage]}

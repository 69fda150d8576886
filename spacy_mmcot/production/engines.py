"""Where the chunks of a job are worked on: in this process, or in several on this machine.

An engine is given a maker, which loads what the work needs and can be pickled, and yields an
outcome a chunk in the order in which they are done.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait as wait_for

import torch

from ..errors import Errors, MMCoTError
from .job import Job, Outcome
from .tables import Chunk

Work = Callable[[Chunk], Outcome]
Maker = Callable[[], Work]
# (what makes the workers, the chunks to do) -> outcomes in any order
Engine = Callable[[Maker, Iterable[Chunk]], Iterator[Outcome]]
# Told how many rows there are in all, and how many are done.
Told = Callable[[int, int], None]

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
    # For libraries that are loaded later, and for torch, which is not.
    os.environ["OMP_NUM_THREADS"] = str(threads)
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

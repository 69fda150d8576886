"""One thread that runs a pipeline for all other threads, a batch at a time."""

from __future__ import annotations

import ctypes
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, Self, TypeVar

from spacy.language import Language
from spacy.tokens import Doc

from ..errors import Errors, MMCoTError

T = TypeVar("T")

# Free memory is returned to the system after this many docs, which takes milliseconds.
_TRIM_EVERY = 256


class Busy(MMCoTError):
    """The worker's queue is full: try again later."""


# A text and the answer to come.
_Request = tuple[str, Future]


class PipelineWorker(Generic[T]):
    """Answers texts from any number of threads with one pipeline.

    Texts that arrive while a batch runs make up the next one. Each batch is a memory zone, so the
    vocabulary does not grow, and a Doc does not outlive its zone: `render` turns it into the
    answer, in the worker's thread. Nothing else may use `nlp` until `close`.

    batch_size: most texts in a batch.
    wait: seconds that a batch waits for more texts.
    waiting: most texts in the queue.
    """

    def __init__(
        self,
        nlp: Language,
        render: Callable[[Doc], T],
        *,
        batch_size: int = 32,
        wait: float = 0.002,
        waiting: int = 1000,
    ):
        self._nlp, self._render = nlp, render
        self._batch_size, self._wait = batch_size, wait
        self._queue: queue.Queue[_Request | None] = queue.Queue(waiting)
        self._closing = threading.Lock()
        self._closed = False
        self.docs = self.batches = 0
        self._thread = threading.Thread(target=self._serve, name="pipeline-worker", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the worker answers texts: false after `close`."""
        return not self._closed and self._thread.is_alive()

    def submit(self, text: str) -> Future[T]:
        """The answer to come; `asyncio.wrap_future` makes it awaitable. Its `result` raises what
        the pipeline raises for this text, and MMCoTError where an error handler skipped it.

        Raises Busy where the queue is full, and MMCoTError for a text that is longer than
        `nlp.max_length` or after `close`.
        """
        limit = self._nlp.max_length
        if len(text) > limit:
            raise MMCoTError(
                Errors.E206.format(what="PipelineWorker", length=len(text), limit=limit)
            )
        answer: Future[T] = Future()
        with self._closing:
            if not self.is_alive:
                raise MMCoTError(Errors.E772)
            try:
                self._queue.put_nowait((text, answer))
            except queue.Full:
                raise Busy(Errors.E771.format(waiting=self._queue.maxsize)) from None
        return answer

    def __call__(self, text: str) -> T:
        """The answer to a text. Raises as `submit` and the answer's `result` do."""
        return self.submit(text).result()

    def close(self) -> None:
        """Take no more texts, answer those that wait, and end the thread."""
        with self._closing:
            closed, self._closed = self._closed, True
        if not closed:
            self._queue.put(None)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _serve(self) -> None:
        last, trimmed = False, 0
        while not last:
            batch, last = self._next_batch()
            # Nobody waits for an answer that was cancelled.
            batch = [request for request in batch if request[1].set_running_or_notify_cancel()]
            if batch:
                self.docs += len(batch)
                self.batches += 1
                self._answer(batch)
                if self.docs - trimmed >= _TRIM_EVERY:
                    trim_heap()
                    trimmed = self.docs

    def _next_batch(self) -> tuple[list[_Request], bool]:
        """The next requests, and whether they are the last."""
        batch: list[_Request] = []
        until = None
        while len(batch) < self._batch_size:
            try:
                left = None if until is None else max(0.0, until - time.monotonic())
                request = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if request is None:
                return batch, True
            batch.append(request)
            until = until or time.monotonic() + self._wait
        return batch, False

    def _answer(self, batch: list[_Request]) -> None:
        error: BaseException | None = None
        answers: list[T] = []
        try:
            with self._nlp.memory_zone():
                docs = self._nlp.pipe([text for text, _ in batch], batch_size=len(batch))
                answers = [self._render(doc) for doc in docs]
        # Whatever a component raises, the thread goes on with the next batch.
        except BaseException as raised:
            error = raised
        # An error handler that skips a Doc leaves fewer answers.
        if error is None and len(answers) == len(batch):
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)
        elif len(batch) == 1:
            batch[0][1].set_exception(error or MMCoTError(Errors.E774))
        else:
            # One text is at fault; the others must not fail with it.
            for request in batch:
                self._answer([request])


def trim_heap() -> None:
    """Return the free pages of the heap to the system, where the C library can (glibc). Takes some
    milliseconds: call it now and then, not for each Doc.

    glibc by itself returns only what is free at the end of its heap. An encoder's arrays have a new
    size in every batch, so a process would grow for as long as it runs.
    """
    with suppress(AttributeError, OSError, TypeError):  # macOS, musl, Windows
        ctypes.CDLL(None).malloc_trim(0)

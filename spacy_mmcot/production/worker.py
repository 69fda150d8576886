"""One thread that runs a pipeline for all other threads, a batch at a time, and what any process
that runs for long needs. It travels in standalone wheels.
"""

from __future__ import annotations

import ctypes
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar

from spacy.language import Language
from spacy.tokens import Doc, Span

from ..corpus.extensions import get_relations, register_extensions
from ..errors import Errors, MMCoTError

T = TypeVar("T")

# Free memory is returned to the system after this many docs, which takes milliseconds.
_TRIM_EVERY = 256

# spaCy's tokenizer takes signs off both ends of what stands between white space, one by one, and
# searches all that is left for each: n signs together cost n x n steps of up to 0.2 microseconds,
# in which no other thread runs. A text may cost MAX_STEPS, and some more for each character.
MAX_STEPS = 1_000_000
STEPS_PER_CHARACTER = 100
_SHORT = 32  # characters between white space that are not worth counting
_LONG_RUNS = re.compile(rf"\S{{{_SHORT},}}")
# Letters between two signs that can go with them: 's, US$.
_MAX_LETTERS = 4


def find_text_problem(text: str, max_length: int) -> str | None:
    """Why a pipeline does not take a text; None where it does, which is tokenized in at most 0.2 s
    and 20 microseconds a character (on one core of 2.5 GHz). max_length: `nlp.max_length`."""
    if len(text) > max_length:
        return f"the text has {len(text)} characters, more than {max_length}"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"character {error.start + 1} of the text is one half of a surrogate pair"
    left = MAX_STEPS + STEPS_PER_CHARACTER * len(text)
    for run in _LONG_RUNS.finditer(text):
        whole = run.group()
        signs = _count_edge_signs(whole)
        if signs < len(whole):
            signs += _count_edge_signs(reversed(whole))
        left -= signs * len(whole)
        if left < 0:
            return f"character {run.start() + 1} of the text begins too many signs without a space"
    return None


def _count_edge_signs(characters: Iterable[str]) -> int:
    """How many characters of a run can be taken off one by one from this end of it."""
    counted = letters = 0
    for character in characters:
        counted += 1
        letters = letters + 1 if character.isalnum() else 0
        if letters > _MAX_LETTERS:
            return counted - letters
    return counted


def pipe_aligned(
    nlp: Language, given: Sequence[str | Doc], batch_size: int
) -> Iterator[tuple[int, Doc]]:
    """The Docs that a pipeline makes of texts or Docs, each with the place, from 0, of the one it
    was made of. An error handler may leave some out. Raises MMCoTError where a component gives back
    a Doc of its own making, or one twice, so that nobody knows whose it is."""
    places: set[int] = set()
    numbered = ((one, place) for place, one in enumerate(given))
    for doc, place in nlp.pipe(numbered, as_tuples=True, batch_size=batch_size):
        if place is None and len(given) == 1:
            place = 0
        if place is None or place in places:
            raise MMCoTError(Errors.E775)
        places.add(place)
        yield place, doc


def extract_findings(doc: Doc) -> dict[str, Any]:
    """What a pipeline found in a Doc, in the types of JSON:

    entities: a list of {start, end, label, text, score};
    relations: a list of {head: [start, end], tail: [start, end], label, score};
    confidence: `doc._.mmcot_confidence`;
    weakest: `doc._.mmcot_weakest`, for texts of many sentences.

    Offsets are characters of the text, ends exclusive. Scores are probabilities, or None where the
    component gives none.
    """
    register_extensions()
    entities = []
    for ent in doc.ents:
        start, end = _offsets(ent)
        labelled = {"start": start, "end": end, "label": ent.label_, "text": ent.text}
        entities.append({**labelled, "score": _round(ent._.mmcot_score)})
    relations = [
        {"head": _offsets(head), "tail": _offsets(tail), "label": label, "score": _round(score)}
        for head, tail, label, score in get_relations(doc)
    ]
    sure = {"confidence": _round(doc._.mmcot_confidence), "weakest": _round(doc._.mmcot_weakest)}
    return {"entities": entities, "relations": relations, **sure}


def _round(score: float | None) -> float | None:
    # Further digits depend on which Docs were in the same batch.
    return None if score is None else round(score, 4)


def _offsets(span: Span) -> list[int]:
    return [span.start_char, span.end_char]


class Busy(MMCoTError):
    """The worker's queue is full: try again later."""


# A text and the answer to come.
_Request = tuple[str, Future]


class PipelineWorker(Generic[T]):
    """Answers texts from any number of threads with one pipeline.

    Texts that arrive while a batch runs make up the next one. Each batch is a memory zone, so the
    vocabulary does not grow, and a Doc does not outlive its zone: `render` turns it into the
    answer, in the worker's thread. Nothing else may use `nlp` until `close`.

    batch_size, batch_characters: most texts in a batch, and the characters at which it takes no
        more.
    wait: seconds that a batch waits for more texts.
    waiting, waiting_characters: most texts in the queue, and characters at which it takes no more.
    """

    def __init__(
        self,
        nlp: Language,
        render: Callable[[Doc], T],
        *,
        batch_size: int = 32,
        batch_characters: int = 20_000,
        wait: float = 0.002,
        waiting: int = 1000,
        waiting_characters: int = 500_000,
    ):
        self._nlp, self._render = nlp, render
        self._batch_size, self._batch_characters, self._wait = batch_size, batch_characters, wait
        self._queue: queue.Queue[_Request | None] = queue.Queue(waiting)
        self._most_characters, self._characters = waiting_characters, 0
        self._lock = threading.Lock()
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

        Raises Busy where the queue is full, and MMCoTError for a text that `find_text_problem`
        refuses or after `close`.
        """
        if problem := find_text_problem(text, self._nlp.max_length):
            raise MMCoTError(Errors.E773.format(problem=problem))
        answer: Future[T] = Future()
        with self._lock:
            if not self.is_alive:
                raise MMCoTError(Errors.E772)
            if self._characters >= self._most_characters:
                raise Busy(Errors.E771.format(waiting=self._queue.qsize()))
            try:
                self._queue.put_nowait((text, answer))
            except queue.Full:
                raise Busy(Errors.E771.format(waiting=self._queue.maxsize)) from None
            self._characters += len(text)
        return answer

    def __call__(self, text: str) -> T:
        """The answer to a text. Raises as `submit` and the answer's `result` do."""
        return self.submit(text).result()

    def close(self) -> None:
        """Take no more texts, answer those that wait, and end the thread."""
        with self._lock:
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
        until, characters = None, 0
        while len(batch) < self._batch_size and characters < self._batch_characters:
            try:
                left = None if until is None else max(0.0, until - time.monotonic())
                request = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if request is None:
                return batch, True
            batch.append(request)
            characters += len(request[0])
            with self._lock:
                self._characters -= len(request[0])
            until = until or time.monotonic() + self._wait
        return batch, False

    def _answer(self, batch: list[_Request]) -> None:
        error: BaseException | None = None
        answers: dict[int, T] = {}
        try:
            with self._nlp.memory_zone():
                docs = pipe_aligned(self._nlp, [text for text, _ in batch], len(batch))
                answers = {place: self._render(doc) for place, doc in docs}
        # Whatever a component raises, the thread goes on with the next batch.
        except BaseException as raised:
            error = raised
        if error is not None and len(batch) > 1:
            # One text is at fault; the others must not fail with it.
            for request in batch:
                self._answer([request])
            return
        for place, (_, future) in enumerate(batch):
            # What waits for the answer may raise anything, too.
            with suppress(BaseException):
                if place in answers and error is None:
                    future.set_result(answers[place])
                else:
                    future.set_exception(error or MMCoTError(Errors.E774))


def trim_heap() -> None:
    """Return the free pages of the heap to the system, where the C library can (glibc), in some
    milliseconds. By itself glibc returns only what is free at the end of its heap. An encoder's
    arrays have a new size in every batch, so a process would grow for as long as it runs."""
    with suppress(AttributeError, OSError, TypeError):  # macOS, musl, Windows
        ctypes.CDLL(None).malloc_trim(0)

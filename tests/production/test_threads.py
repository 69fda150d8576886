"""One pipeline, many threads: what a web worker does."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import spacy
import toy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import ignore_error

from benchmarks.soak import make_texts
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model import wordpieces
from spacy_mmcot.production.worker import Busy, PipelineWorker, find_text_problem

THREADS = 8


def found(doc: Doc) -> list[tuple[str, int, str]]:
    return [(ent.text, ent.start_char, ent.label_) for ent in doc.ents]


@pytest.fixture
def nlp(toy_transformer_model: Path) -> Language:
    return spacy.load(toy_transformer_model)


@pytest.fixture
def texts() -> list[str]:
    """Of one word to some hundreds, known names and new words mixed."""
    fresh = list(islice(make_texts(), 100))
    known = toy.texts()
    return [
        known[i % len(known)] + " " + " ".join(fresh[i : i + (i % 7) * 3])
        for i in range(len(fresh))
    ]


@pytest.fixture
def busy_switching() -> Iterator[None]:
    """Threads take turns as often as the interpreter can, so that what can go wrong does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_that_call_one_pipeline_get_what_one_thread_gets(
    nlp: Language,
    toy_transformer_model: Path,
    texts: list[str],
    busy_switching: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The cache of word pieces is renewed all the time, as it is now and then in a long run.
    monkeypatch.setattr(wordpieces, "MAX_CACHED_WORDS", 50)
    one = spacy.load(toy_transformer_model)
    expected = [found(doc) for doc in one.pipe(texts, batch_size=1)]
    assert sum(map(len, expected)) > len(texts)
    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(lambda text: found(nlp(text)), texts)) == expected


def test_a_worker_gives_each_thread_its_own_answer_and_keeps_no_word(
    nlp: Language, toy_transformer_model: Path, texts: list[str], busy_switching: None
) -> None:
    expected = [found(doc) for doc in spacy.load(toy_transformer_model).pipe(texts)]
    strings = len(nlp.vocab.strings)
    with PipelineWorker(nlp, found) as worker, ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(worker, texts)) == expected
    assert worker.docs == len(texts)
    assert worker.batches < len(texts) / 2
    assert len(nlp.vocab.strings) == strings


@Language.component("fails_on_bad")
def fails_on_bad(doc: Doc) -> Doc:
    if "bad" in doc.text:
        raise ValueError("no use for bad")
    if "exit" in doc.text:
        raise SystemExit("a component ends the thread")
    return doc


@pytest.fixture
def failing() -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("fails_on_bad")
    return nlp


def submit_together(worker: PipelineWorker[Any], *texts: str) -> list[Future]:
    answers = [worker.submit(text) for text in texts]
    wait(answers, 30)
    assert worker.batches == 1
    return answers


def test_a_text_that_fails_leaves_the_others_of_its_batch_alone(failing: Language) -> None:
    with PipelineWorker(failing, len, wait=0.2) as worker:
        answers = submit_together(worker, "one", "a bad one", "one two three")
        assert (answers[0].result(), answers[2].result()) == (1, 3)
        with pytest.raises(ValueError, match="no use for bad"):
            answers[1].result()


def test_a_text_that_an_error_handler_skips_gets_no_other_text_answer(failing: Language) -> None:
    failing.set_error_handler(ignore_error)
    with PipelineWorker(failing, len, wait=0.2) as worker:
        answers = submit_together(worker, "one", "a bad one", "one two three")
        assert (answers[0].result(), answers[2].result()) == (1, 3)
        with pytest.raises(MMCoTError, match="E774"):
            answers[1].result()


def test_the_thread_survives_any_error(failing: Language) -> None:
    def render(doc: Doc) -> int:
        if "render" in doc.text:
            raise KeyboardInterrupt
        return len(doc)

    with PipelineWorker(failing, render) as worker:
        for text, error in (("exit", SystemExit), ("render", KeyboardInterrupt)):
            with pytest.raises(error):
                worker(text)
        assert worker.is_alive
        assert worker("one two") == 2
    assert not worker.is_alive


class Gate:
    """A component that holds every doc until it is opened."""

    def __init__(self) -> None:
        self.opened, self.entered = threading.Event(), threading.Event()

    def __call__(self, doc: Doc) -> Doc:
        self.entered.set()
        assert self.opened.wait(30)
        return doc


@pytest.fixture
def gate() -> Iterator[tuple[Language, Gate]]:
    held = Gate()
    nlp = spacy.blank("en")
    Language.component("test_gate", func=held)
    nlp.add_pipe("test_gate")
    yield nlp, held
    held.opened.set()


def test_a_full_queue_refuses_and_closing_answers_what_waits(gate: tuple[Language, Gate]) -> None:
    nlp, held = gate
    worker: PipelineWorker[Any] = PipelineWorker(nlp, len, batch_size=1, waiting=2)
    answers: list[Future] = [worker.submit("first")]
    assert held.entered.wait(30)
    answers += [worker.submit("second one"), worker.submit("a third one")]
    with pytest.raises(Busy, match=r"\[E771\] 2 texts wait already"):
        worker.submit("a fourth")
    assert answers[1].cancel()
    held.opened.set()
    worker.close()
    assert (answers[0].result(0), answers[2].result(0)) == (1, 3)
    assert worker.docs == 2
    with pytest.raises(MMCoTError, match="E772"):
        worker.submit("too late")
    worker.close()


class Rearranges:
    """What components may do that think of nobody else: swap, double or copy Docs."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __call__(self, doc: Doc) -> Doc:
        return next(iter(self.pipe([doc])))

    def pipe(self, docs: Iterable[Doc], **settings: Any) -> Iterator[Doc]:
        known = list(docs)
        if self.way == "reversed":
            yield from reversed(known)
        elif self.way == "first twice, last none":
            yield from (known[:1] + known)[: len(known)]
        else:
            yield from (Doc(doc.vocab, words=[t.text for t in doc]) for doc in known)


@Language.factory("test_rearranges", default_config={"way": ""})
def make_rearranges(nlp: Language, name: str, way: str) -> Rearranges:
    return Rearranges(way)


@pytest.mark.parametrize("way", ["reversed", "first twice, last none", "copied"])
def test_each_text_gets_its_own_answer_whatever_components_do(way: str) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("test_rearranges", config={"way": way})
    with PipelineWorker(nlp, len, wait=0.2) as worker:
        answers = submit_together(worker, "one", "one two", "one two three", "one two three four")
        assert [answer.result() for answer in answers] == [1, 2, 3, 4]


def test_the_thread_survives_what_waits_for_an_answer() -> None:
    def fail(answer: Future) -> None:
        raise SystemExit

    with PipelineWorker(spacy.blank("en"), len, wait=0.2) as worker:
        first, second = worker.submit("one"), worker.submit("one two")
        first.add_done_callback(fail)
        assert (first.result(30), second.result(30), worker("one two three")) == (1, 2, 3)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("%" * 10_000, "character 1 of the text begins too many signs"),
        ("fine " + "!?" * 2_000, "character 6 of the text begins too many signs"),
        ("'s" * 3_000, "too many signs"),
        ("US$" * 3_000, "too many signs"),
        (" ".join(["(" * 400] * 100), "too many signs"),
        ("\N{GRINNING FACE}" * 3_000, "too many signs"),
        ("one half \ud83d alone", "character 10 of the text is one half of a surrogate pair"),
        ("\udcff", "one half of a surrogate pair"),
    ],
)
def test_texts_that_would_stop_everybody_are_refused(text: str, problem: str) -> None:
    with PipelineWorker(spacy.blank("en"), len) as worker:
        started = time.perf_counter()
        with pytest.raises(MMCoTError, match=rf"E773.*{problem}"):
            worker.submit(text)
        assert time.perf_counter() - started < 0.1
        assert worker("one two") == 2


@pytest.mark.parametrize(
    "text",
    [
        *("-" * 80 + "\n" + "=" * 80 + "\n" + "*" * 80, "so good!!!!!!!!!!!!!!!!!!" * 3),
        *("\u6211\u4eec\u4eca\u5929\u53bb\uff0c\u4e86\u3002" * 2_000, "word, (and) " * 20_000),
        *("https://example.org/" + "path/segment-of-it/" * 200, "aGVsbG8+/x" * 5_000),
        "\n".join(["#" * 79] * 1_000),
    ],
)
def test_texts_of_people_and_machines_pass(text: str) -> None:
    assert find_text_problem(text, 1_000_000) is None


def test_what_passes_is_tokenized_in_the_time_that_is_promised() -> None:
    """The worst that the rule lets through, on a slow machine beside others."""
    nlp = spacy.blank("en")
    for text in ("%" * 1_040, " ".join("%" * n for n in range(200)), "x" + "'s" * 500):
        assert find_text_problem(text, 1_000_000) is None
        started = time.process_time()
        nlp.make_doc(text)
        assert time.process_time() - started < 5 * (0.2 + 20e-6 * len(text))


def test_batches_and_queue_are_bounded_by_characters(gate: tuple[Language, Gate]) -> None:
    nlp, held = gate
    sizes: list[int] = []
    worker: PipelineWorker[Any] = PipelineWorker(
        nlp, lambda doc: sizes.append(worker.batches), batch_characters=20, waiting_characters=60
    )
    answers: list[Future] = [worker.submit("first")]
    assert held.entered.wait(30)
    answers += [worker.submit("ten chars.") for _ in range(6)]
    with pytest.raises(Busy, match=r"\[E771\] 6 texts wait already"):
        worker.submit("a")
    held.opened.set()
    worker.close()
    wait(answers, 30)
    assert sizes == [1, 2, 2, 3, 3, 4, 4]


def test_a_text_beyond_the_pipelines_limit_is_refused_at_once() -> None:
    nlp = spacy.blank("en")
    nlp.max_length = 10
    with PipelineWorker(nlp, len) as worker, pytest.raises(MMCoTError, match="11 characters"):
        worker("x" * 11)

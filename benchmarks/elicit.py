"""What eliciting costs beside the LLM itself, what it survives, and how other clients compare."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spacy_mmcot.elicitation.client import OpenAISettings, OpenAISource
from spacy_mmcot.elicitation.elicit import elicit
from spacy_mmcot.elicitation.engine import Pace
from spacy_mmcot.elicitation.prompts import QuestionSettings
from spacy_mmcot.elicitation.store import AnswerStore, answer_key
from tests.llm_server import LLMServer, question_id

from .elicit_runs import KEY, MODEL, MadePosts, finished, start

# A hang or a slow drip costs a run this many seconds.
_FAULT_TIMEOUT = 2.0
_WORKERS = 20


def throughput(requests: int = 4000, workers: int = 200, latency: float = 1.0) -> dict[str, Any]:
    """Ideal time, requests x latency / workers, over the time taken, and processor time of the
    client a request; the import of the package is not counted."""
    with tempfile.TemporaryDirectory() as folder, LLMServer() as server:
        server.configure(latency=latency)
        # Exactly so many: two questions beyond a whole number of rounds would take a round.
        dimensions = next(n for n in (6, 5, 4, 3, 2, 1) if requests % n == 0)
        posts, store = requests // dimensions, Path(folder) / "a.sqlite"
        run = finished(start(server.url, store, posts, workers, 60.0, dimensions))
    ideal = run["asked"] * latency / workers
    return {
        "requests": run["asked"],
        "seconds": round(run["seconds"], 2),
        "throughput_ratio": round(ideal / run["seconds"], 3),
        "cpu_ms_per_request": round(run["cpu_seconds"] / run["asked"] * 1000, 3),
    }


def memory(posts: int = 2000, times: int = 10, workers: int = 50) -> dict[str, Any]:
    """Peak memory at `times` as many posts, all six dimensions, over that at `posts`."""
    peaks = []
    with tempfile.TemporaryDirectory() as folder, LLMServer() as server:
        for number, count in enumerate((posts, posts * times)):
            store = Path(folder) / f"{number}.sqlite"
            peaks.append(finished(start(server.url, store, count, workers, 60.0))["peak_mb"])
    return {
        "peak_mb_small": round(peaks[0], 1),
        "peak_mb_large": round(peaks[1], 1),
        "memory_ratio": round(peaks[1] / peaks[0], 3),
    }


def faults(
    runs: int = 20, posts: int = 50, rate: float = 0.2, kills: int = 1, seed: int = 1
) -> dict[str, Any]:
    """Runs killed by SIGKILL at a random moment and resumed, on a server that fails in every way
    it can for a share `rate` of the requests; all questions of `posts` posts, each run.

    `killed` counts the kills that came before the run's end, `answers_lost` questions without an
    answer at the end, `bought_twice` good answers that were delivered more than once although they
    had been committed, `in_flight_at_kill` those that were delivered and not yet committed when
    the process died. `stores_differ` counts runs whose store is not the one of a run without
    faults and kills.
    """
    random_moment = random.Random(seed)
    names = ("killed", "answers_lost", "bought_twice", "in_flight_at_kill", "stores_differ")
    sums = dict.fromkeys(names, 0)
    injected: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected, seconds = _faultless(folder, posts)
        keys = _keys(posts)
        for run in range(runs):
            store = folder / f"{run}.sqlite"
            with LLMServer() as server:
                server.configure(latency=0.02, rate=rate, seed=seed * 1000 + run)
                lost_at_kill: set[str] = set()
                for _ in range(kills):
                    process = start(server.url, store, posts, _WORKERS, _FAULT_TIMEOUT)
                    # From before its first question to about its last.
                    _wait_for_start(server, process)
                    time.sleep(random_moment.uniform(0.0, 2.0 * seconds))
                    sums["killed"] += process.poll() is None
                    process.kill()
                    process.communicate()
                    committed = _committed(store)
                    sold = server.seen()["sold"]
                    lost_at_kill |= {q for q in sold if keys[q] not in committed}
                end = finished(start(server.url, store, posts, _WORKERS, _FAULT_TIMEOUT))
                seen = server.seen()
            twice = {q for q, count in seen["sold"].items() if count > 1}
            sums["answers_lost"] += len(keys) - end["stored"]
            sums["bought_twice"] += len(twice - lost_at_kill)
            sums["in_flight_at_kill"] += len(lost_at_kill)
            sums["stores_differ"] += _contents(store) != expected
            for kind, count in seen["faults"].items():
                injected[kind] = injected.get(kind, 0) + count
    return {"fault_runs": runs, "questions": len(keys), **sums, "faults": injected}


def _faultless(folder: Path, posts: int) -> tuple[list[Any], float]:
    with LLMServer() as server:
        server.configure(latency=0.02)
        store = folder / "faultless.sqlite"
        run = finished(start(server.url, store, posts, _WORKERS, _FAULT_TIMEOUT))
    return _contents(store), run["seconds"]


def _keys(posts: int) -> dict[str, str]:
    """The store's address of each question, by the server's name for it."""
    source = OpenAISource(OpenAISettings(MODEL, base_url="http://127.0.0.1/v1", api_key=KEY))
    keys = {}
    for post in MadePosts(posts):
        for dimension in QuestionSettings().variants:
            prompt = QuestionSettings().render(post, dimension)
            assert prompt is not None
            key = answer_key(prompt, MODEL, source.parameters(prompt))
            keys[question_id({"model": MODEL, "messages": list(prompt.messages)})] = key
    return keys


def _wait_for_start(server: LLMServer, process: Any) -> None:
    before = server.seen()["requests"]
    while process.poll() is None and server.seen()["requests"] == before:
        time.sleep(0.02)


def _committed(store: Path) -> set[str]:
    connection = sqlite3.connect(store)
    try:
        return {key for (key,) in connection.execute("SELECT key FROM answers")}
    finally:
        connection.close()


def _contents(store: Path) -> list[Any]:
    with AnswerStore(store) as opened:
        return list(opened.iter_all())


_PEER_WORKERS = 50
_LATENCY = 0.2
_MODEL_NAME = "mmcot_benchmark_model"


def side_by_side(requests: int = 200) -> dict[str, Any]:
    """Seconds that each client takes for one `sentence` question about each of `requests` posts,
    one after the other on one server. The others have their rows where they are installed."""
    clients: dict[str, Callable[[str, int], float]] = {"spacy_mmcot": _ours}
    if importlib.util.find_spec("openai") is not None:
        clients["openai_semaphore"] = _semaphore
    if importlib.util.find_spec("spacy_llm") is not None:
        clients["spacy_llm"] = _spacy_llm
    figures: dict[str, Any] = {"peer_requests": requests}
    with LLMServer() as server:
        server.configure(latency=_LATENCY)
        for name, client in clients.items():
            before = server.seen()["requests"]
            figures[f"seconds_{name}"] = round(client(server.url, requests), 2)
            asked = server.seen()["requests"] - before
            assert asked == requests, f"{name} asked {asked} questions"
    return figures


def _ours(url: str, requests: int) -> float:
    source = OpenAISource(OpenAISettings(MODEL, base_url=url, api_key=KEY))
    with tempfile.TemporaryDirectory() as folder, AnswerStore(Path(folder) / "a.sqlite") as store:
        started = time.perf_counter()
        pace = Pace(workers=_PEER_WORKERS)
        elicit(
            MadePosts(requests), store, source, settings=QuestionSettings.of("sentence"), pace=pace
        )
        return time.perf_counter() - started


def _semaphore(url: str, requests: int) -> float:
    import openai

    prompts = [QuestionSettings().render(post, "sentence") for post in MadePosts(requests)]

    async def run() -> None:
        gate = asyncio.Semaphore(_PEER_WORKERS)
        async with openai.AsyncOpenAI(api_key=KEY, base_url=url) as client:

            async def one(messages: Any) -> None:
                async with gate:
                    await client.chat.completions.create(model=MODEL, messages=messages)

            await asyncio.gather(*(one(list(p.messages)) for p in prompts if p is not None))

    started = time.perf_counter()
    asyncio.run(run())
    return time.perf_counter() - started


def _spacy_llm(url: str, requests: int) -> float:
    """spacy-llm's own pipe with its OpenAI client, the same words in its one message."""
    import spacy
    from spacy_llm.models.rest.openai import OpenAI
    from spacy_llm.registry import registry

    class Local(OpenAI):
        """Its client checks the key at api.openai.com, whatever the endpoint."""

        def _verify_auth(self) -> None:
            pass

    def local() -> Any:
        endpoint = f"{url}/chat/completions"
        return Local(MODEL, endpoint, {}, True, 5, 1.0, 30.0, None)

    os.environ.setdefault("OPENAI_API_KEY", KEY)
    registry.llm_models(_MODEL_NAME, func=local)
    nlp = spacy.blank("en")
    task = {"@llm_tasks": "spacy.Raw.v1", "template": "{{ text }}", "field": "llm_reply"}
    nlp.add_pipe("llm", config={"task": task, "model": {"@llm_models": _MODEL_NAME}})
    prompts = [QuestionSettings().render(post, "sentence") for post in MadePosts(requests)]
    texts = ["\n\n".join(m["content"] for m in p.messages) for p in prompts if p is not None]
    started = time.perf_counter()
    for _ in nlp.pipe(texts):
        pass
    return time.perf_counter() - started

"""The same questions by other clients, on the same server."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai

from ..elicitation.client import OpenAISource
from ..elicitation.engine import Pace
from ..elicitation.prompts import render
from ..elicitation.run import elicit
from ..elicitation.store import AnswerStore
from .elicit_runs import KEY, MODEL, MadePosts
from .llm_server import LLMServer

_WORKERS = 50
_LATENCY = 0.2
_MODEL_NAME = "mmcot_benchmark_model"


def side_by_side(requests: int = 200) -> dict[str, Any]:
    """Seconds that each client takes for one `sentence` question about each of `requests` posts,
    one after the other on one server. spacy-llm has its row where it is installed."""
    clients: dict[str, Callable[[str, int], float]] = {
        "spacy_mmcot": _ours,
        "openai_semaphore": _semaphore,
    }
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
    source = OpenAISource(MODEL, base_url=url, api_key=KEY)
    with tempfile.TemporaryDirectory() as folder, AnswerStore(Path(folder) / "a.sqlite") as store:
        started = time.perf_counter()
        pace = Pace(workers=_WORKERS)
        elicit(MadePosts(requests), store, source, dimensions=["sentence"], pace=pace)
        return time.perf_counter() - started


def _semaphore(url: str, requests: int) -> float:
    prompts = [render(post, "sentence") for post in MadePosts(requests)]

    async def run() -> None:
        gate = asyncio.Semaphore(_WORKERS)
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
    prompts = [render(post, "sentence") for post in MadePosts(requests)]
    texts = ["\n\n".join(m["content"] for m in p.messages) for p in prompts if p is not None]
    started = time.perf_counter()
    for _ in nlp.pipe(texts):
        pass
    return time.perf_counter() - started

"""An OpenAI-compatible server on loopback that answers late and fails as it is told, for the
benchmarks and tests of elicitation. It runs as a process of its own: `LLMServer` starts it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import urllib.request
from collections import Counter
from email.parser import BytesParser
from email.policy import HTTP
from types import TracebackType
from typing import Any

from .llm_answers import completion, question_id, sensible_answer
from .llm_batches import Batches
from .llm_faults import FAULTS, FaultPlan, faulty_reply

_REASONS = {200: "OK", 404: "Not Found", 429: "Too Many Requests", 500: "Error", 503: "Busy"}


class _State:
    """What the server was told and what it has seen."""

    def __init__(self) -> None:
        self.latency = 0.0
        self.plan = FaultPlan()
        self.requests = 0
        self.faults: Counter[str] = Counter()
        # Whole good answers that were handed to the network, by question.
        self.sold: Counter[str] = Counter()
        self.batches = Batches(lambda body: (200, self.good(body)))

    def good(self, body: dict[str, Any]) -> dict[str, Any]:
        self.sold[question_id(body)] += 1
        return completion(sensible_answer(body))

    def configure(self, settings: dict[str, Any]) -> None:
        self.latency = settings.get("latency", self.latency)
        self.batches.seconds = settings.get("batch_seconds", self.batches.seconds)
        self.batches.short = settings.get("batch_short", self.batches.short)
        self.batches.fail_every = settings.get("batch_fail_every", self.batches.fail_every)
        self.batches.refuse = settings.get("batch_refuse", self.batches.refuse)
        if "rate" in settings:
            kinds = settings.get("kinds") or FAULTS
            self.plan = FaultPlan(settings["rate"], kinds, settings.get("seed", 0))

    def seen(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "faults": dict(self.faults),
            "sold": dict(self.sold),
            "batches": len(self.batches.made),
        }


class _Connection(asyncio.Protocol):
    def __init__(self, state: _State) -> None:
        self._state = state
        self._buffer = bytearray()
        self._need = 0
        self._timers: list[asyncio.TimerHandle] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, reason: Exception | None) -> None:
        for timer in self._timers:
            timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) < self._need:
            return
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end])
        lowered = head.lower()
        at = lowered.find(b"content-length:")
        length = int(lowered[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        self._need = end + 4 + length
        if len(self._buffer) < self._need:
            return
        body = bytes(self._buffer[end + 4 : self._need])
        del self._buffer[: self._need]
        self._need = 0
        method, path = head.split(b" ", 2)[:2]
        self._route(method.decode(), path.decode().split("?")[0], head, body)

    def _route(self, method: str, path: str, head: bytes, body: bytes) -> None:
        batches = self._state.batches
        match method, path.strip("/").split("/"):
            case "POST", ["v1", "chat", "completions"]:
                self._later(self._state.latency, self._chat, json.loads(body))
            case "POST", ["v1", "files"]:
                self._json(batches.upload(_uploaded(head, body)))
            case "GET", ["v1", "files", name, "content"]:
                content = batches.content(name)
                self._send(404 if content is None else 200, content or b"{}")
            case "POST", ["v1", "batches"]:
                self._json(batches.create(json.loads(body)))
            case "GET", ["v1", "batches"]:
                self._json(batches.listed())
            case "GET", ["v1", "batches", name]:
                self._json(batches.retrieve(name))
            case "POST", ["configure"]:
                self._state.configure(json.loads(body))
                self._json({})
            case "GET", ["seen"]:
                self._json(self._state.seen())
            case _:
                self._json(None)

    def _chat(self, body: dict[str, Any]) -> None:
        state = self._state
        state.requests += 1
        question = question_id(body)
        fault = state.plan.draw(question, "response_format" in body)
        if fault is None:
            self._json(state.good(body))
            return
        state.faults[fault] += 1
        if fault == "hang":
            return
        if fault == "reset":
            self._transport.abort()
            return
        good = json.dumps(completion(sensible_answer(body))).encode()
        if fault == "drip":
            self._transport.write(_head(200, len(good), {}))
            self._drip(good)
        else:
            self._send(*faulty_reply(fault, good))

    def _drip(self, left: bytes) -> None:
        self._transport.write(left[:1])
        if left[1:]:
            self._later(0.5, self._drip, left[1:])

    def _later(self, seconds: float, call: Any, argument: Any) -> None:
        self._timers = [asyncio.get_running_loop().call_later(seconds, call, argument)]

    def _json(self, value: Any) -> None:
        self._send(404 if value is None else 200, json.dumps(value or {}).encode())

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        if not self._transport.is_closing():
            self._transport.write(_head(status, len(body), headers or {}) + body)


def _head(status: int, length: int, headers: dict[str, str]) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Other')}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _uploaded(head: bytes, body: bytes) -> bytes:
    """The file in a multipart form."""
    headers = head.split(b"\r\n", 1)[1]
    form = BytesParser(policy=HTTP).parsebytes(headers + b"\r\n\r\n" + body)
    for part in form.iter_parts():
        if part.get_filename():
            return bytes(part.get_payload(decode=True))
    return b""


class LLMServer:
    """Runs the server while the block lasts. `url` is its base address."""

    def __enter__(self) -> LLMServer:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout
        self._root = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.url = f"{self._root}/v1"
        # A proxy of the environment is not meant for loopback.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def configure(self, **settings: Any) -> None:
        """`latency` in seconds; `rate`, `kinds` and `seed` of faults; `batch_seconds`,
        `batch_short`, `batch_fail_every` and `batch_refuse` of batches."""
        data = json.dumps(settings).encode()
        self._opener.open(f"{self._root}/configure", data, timeout=30).read()

    def seen(self) -> dict[str, Any]:
        """Requests, faults by kind, and good answers sold by question."""
        seen: dict[str, Any] = json.load(self._opener.open(f"{self._root}/seen", timeout=30))
        return seen


async def _serve() -> None:
    state = _State()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(state), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    asyncio.run(_serve())

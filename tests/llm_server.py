"""What the benchmarks' LLM says: always the same to the same question, in the form asked for.

The ways in which an endpoint fails, for the benchmarks' LLM server.

The files and batches of the benchmarks' LLM server.

An OpenAI-compatible server on loopback that answers late and fails as it is told, for the
benchmarks and tests of elicitation. It runs as a process of its own: `LLMServer` starts it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from types import TracebackType
from typing import Any, Literal, get_args


def question_id(body: dict[str, Any]) -> str:
    """Names a question by its model and first two messages: a repair round is the same question."""
    asked = json.dumps([body["model"], body["messages"][:2]], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:24]


def quoted(body: dict[str, Any], name: str) -> str:
    """What a prompt quotes under `name`; "" where it quotes no such part."""
    found = re.search(rf"<{name}-(\w+)>\n(.*?)\n</{name}-\1>", user_text(body), re.DOTALL)
    return found[2] if found else ""


def user_text(body: dict[str, Any]) -> str:
    """The words of the question, without its picture."""
    content = next(m["content"] for m in body["messages"] if m["role"] == "user")
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def sensible_answer(body: dict[str, Any]) -> str:
    """What a model that does as it is told would answer."""
    post, user = quoted(body, "post"), user_text(body)
    if '"swaps"' in user:
        old = json.loads(quoted(body, "mentions"))[0]
        text = post.replace(old, "Zanzibar")
        return json.dumps({"text": text, "swaps": [[old, "Zanzibar"]], "possible": True})
    if '"things"' in user:
        word = post.split()[0]
        return json.dumps({"things": [{"mention": word, "kind": "word", "explanation": "first"}]})
    return f"On this: {post}"


def completion(text: str | None, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion's body. Tokens are counted as four characters each."""
    said = len(text or "") // 4
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason,
                "message": {"role": "assistant", "content": text, **message},
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": said, "total_tokens": 100 + said},
    }


Fault = Literal[
    "429",
    "429-retry-after",
    "500",
    "503",
    "reset",
    "hang",
    "truncated",
    "wrong-schema",
    "empty-choices",
    "refusal",
    "drip",
]
FAULTS: tuple[Fault, ...] = get_args(Fault)
# Faults of the model, not of the line: a client is expected to ask about one question once more,
# so the server commits each once a question.
OF_THE_MODEL: frozenset[Fault] = frozenset({"wrong-schema", "refusal"})
_STATUS = {"429": 429, "429-retry-after": 429, "500": 500, "503": 503}


@dataclass
class FaultPlan:
    """Draws a fault for a share `rate` of the requests, all kinds alike."""

    rate: float = 0.0
    kinds: Iterable[Fault] = FAULTS
    seed: int = 0
    _spent: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._kinds = tuple(self.kinds)

    def draw(self, question: str, structured: bool) -> Fault | None:
        """The fault for a request, if any. Only a `structured` answer can have a wrong schema."""
        if self._random.random() >= self.rate:
            return None
        kinds = [kind for kind in self._kinds if structured or kind != "wrong-schema"]
        if not kinds:
            return None
        fault = self._random.choice(kinds)
        if fault in OF_THE_MODEL:
            if question in self._spent:
                return None
            self._spent.add(question)
        return fault


def faulty_reply(fault: Fault, good: bytes) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and further headers of a fault that is still a whole HTTP answer."""
    if fault in _STATUS:
        headers = {"Retry-After": "0.2"} if fault == "429-retry-after" else {}
        body = json.dumps({"error": {"message": f"injected {fault}"}}).encode()
        return _STATUS[fault], body, headers
    if fault == "truncated":
        return 200, good[: len(good) // 2], {}
    if fault == "wrong-schema":
        return 200, json.dumps(completion('{"thing": 1')).encode(), {}
    if fault == "refusal":
        return 200, json.dumps(completion(None, refusal="I would rather not.")).encode(), {}
    assert fault == "empty-choices"
    return 200, json.dumps(completion("") | {"choices": []}).encode(), {}


Reply = tuple[int, dict[str, Any]]


class Batches:
    """Keeps uploaded files and runs batches over them: a batch is done `seconds` after it was
    made. `answer` turns a request's body into a status and a body. In the first batch, the first
    `short` requests are left without an answer, as the status `expired` leaves them, and each
    `fail_every`th fails. `refuse` is why batches are not taken at all.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], Reply]) -> None:
        self.seconds = 0.2
        self.short = 0
        self.fail_every = 0
        self.refuse = ""
        self.made: list[dict[str, Any]] = []
        self._answer = answer
        self._files: dict[str, bytes] = {}

    def upload(self, data: bytes) -> dict[str, Any]:
        name = f"file-{len(self._files)}"
        self._files[name] = data
        return {
            "id": name,
            "object": "file",
            "bytes": len(data),
            "created_at": int(time.time()),
            "filename": "batch.jsonl",
            "purpose": "batch",
            "status": "processed",
        }

    def content(self, name: str) -> bytes | None:
        return self._files.get(name)

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        batch = {
            "id": f"batch_{len(self.made)}",
            "object": "batch",
            "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"],
            "completion_window": body["completion_window"],
            "metadata": body.get("metadata"),
            "created_at": int(time.time()),
            "status": "in_progress",
            "ready": time.monotonic() + self.seconds,
        }
        self.made.append(batch)
        return self._shown(batch)

    def retrieve(self, name: str) -> dict[str, Any] | None:
        for batch in self.made:
            if batch["id"] == name:
                if batch["status"] == "in_progress" and time.monotonic() >= batch["ready"]:
                    self._finish(batch)
                return self._shown(batch)
        return None

    def listed(self) -> dict[str, Any]:
        rows = [self._shown(batch) for batch in reversed(self.made)]
        return {"object": "list", "data": rows, "has_more": False}

    def _finish(self, batch: dict[str, Any]) -> None:
        if self.refuse:
            batch["status"] = "failed"
            batch["errors"] = {"object": "list", "data": [{"message": self.refuse}]}
            return
        lines = self._files[batch["input_file_id"]].splitlines()
        skipped = self.short if batch is self.made[0] else 0
        good: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        for number, line in enumerate(lines):
            row = json.loads(line)
            if number < skipped:
                error = {"code": "batch_expired", "message": "not done in time"}
                bad.append({"custom_id": row["custom_id"], "response": None, "error": error})
                continue
            status, body = self._answer(row["body"])
            if self.fail_every and number % self.fail_every == 0 and batch is self.made[0]:
                status, body = 500, {"error": {"message": "injected"}}
            reply = {"status_code": status, "request_id": "r", "body": body}
            (good if status == 200 else bad).append(
                {"custom_id": row["custom_id"], "response": reply, "error": None}
            )
        batch["status"] = "expired" if skipped else "completed"
        for name, rows in (("output_file_id", good), ("error_file_id", bad)):
            if rows:
                data = "".join(json.dumps(row) + "\n" for row in rows).encode()
                batch[name] = self.upload(data)["id"]

    @staticmethod
    def _shown(batch: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in batch.items() if name != "ready"}


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

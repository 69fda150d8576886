"""An OpenAI-compatible server on loopback, for the tests and benchmarks of elicitation: it answers
late, fails as it is told, and has files and batches.

Written by hand on asyncio: some faults are no whole HTTP answers, and it has to serve hundreds of
requests at a time without being what a benchmark measures.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from types import TracebackType
from typing import Any, Literal, get_args

from tests.llm_batches import Batches


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
    if '"sure"' in user:
        labels = labels_asked(body)
        entity = {"mention": post.split()[0], "label": labels["entities"][0], "sure": "high"}
        return json.dumps({"reasoning": "The first word.", "entities": [entity], "relations": []})
    return f"On this: {post}"


def labels_asked(body: dict[str, Any]) -> dict[str, list[str]]:
    """The labels of entities and relations that the asked schema allows."""
    asked = body["response_format"]["json_schema"]["schema"]["properties"]
    items = {name: asked[name]["items"]["properties"] for name in asked if name != "reasoning"}
    return {name: fields["label"]["enum"] for name, fields in items.items()}


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


_REASONS = {200: "OK", 404: "Not Found", 429: "Too Many Requests", 500: "Error", 503: "Busy"}
_MOST_KEPT = 1000


class LLMServer:
    """Runs the server in a thread while the block lasts. `url` is its base address.

    `requests` and `keys` hold bodies and Authorization headers of the first thousand questions,
    `heads` the whole heads of the last thousand; `paths` holds what was asked for, with queries.
    `reply`, where it is set, turns a request's body into a status and an answer's text (or the
    whole body, as anything else, or as bytes of HTML), and may block; `headers` go out with every
    answer.
    """

    def __init__(self) -> None:
        self.reply: Callable[[dict[str, Any]], tuple[int, Any]] | None = None
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.headers: dict[str, str] = {}
        self.paths: set[str] = set()
        self.heads: deque[bytes] = deque(maxlen=_MOST_KEPT)
        self.latency = 0.0
        self.plan = FaultPlan()
        self.batches = Batches(lambda body: (200, self.answer(body)))
        self._asked = 0
        self._faults: Counter[str] = Counter()
        # Whole good answers that were handed to the network, by question.
        self._sold: Counter[str] = Counter()

    def __enter__(self) -> LLMServer:
        self._loop = asyncio.new_event_loop()
        # Each reply that blocks has a thread of its own.
        self._loop.set_default_executor(ThreadPoolExecutor(64))
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, started: threading.Event) -> None:
        loop = self._loop
        made = loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=2048)
        server = loop.run_until_complete(made)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        started.set()
        loop.run_forever()
        server.close()
        loop.close()

    def configure(self, **settings: Any) -> None:
        """`latency` in seconds; `rate`, `kinds` and `seed` of faults; `batch_seconds`,
        `batch_short`, `batch_fail_every` and `batch_refuse` of batches."""
        self.latency = settings.pop("latency", self.latency)
        if "rate" in settings:
            names = ("rate", "kinds", "seed")
            self.plan = FaultPlan(**{n: settings.pop(n) for n in names if n in settings})
        for name, value in settings.items():
            setattr(self.batches, name.removeprefix("batch_"), value)

    def seen(self) -> dict[str, Any]:
        """Requests, faults by kind, good answers sold by question, and batches."""
        return {
            "requests": self._asked,
            "faults": dict(self._faults),
            "sold": dict(self._sold),
            "batches": len(self.batches.made),
        }

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """A good answer's body, which counts as sold."""
        self._sold[question_id(body)] += 1
        return completion(sensible_answer(body))

    def note_request(self, body: dict[str, Any], key: str | None) -> None:
        self._asked += 1
        if len(self.requests) < _MOST_KEPT:
            self.requests.append(body)
            self.keys.append(key)

    def draw_fault(self, body: dict[str, Any]) -> Fault | None:
        fault = self.plan.draw(question_id(body), "response_format" in body)
        if fault is not None:
            self._faults[fault] += 1
        return fault


class _Connection(asyncio.Protocol):
    def __init__(self, server: LLMServer) -> None:
        self._server = server
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
        self._need = end + 4 + int(_header(head, b"content-length") or 0)
        if len(self._buffer) < self._need:
            return
        body = bytes(self._buffer[end + 4 : self._need])
        del self._buffer[: self._need]
        self._need = 0
        method, path = head.split(b" ", 2)[:2]
        self._server.paths.add(path.decode())
        self._route(method.decode(), path.decode().split("?")[0], head, body)

    def _route(self, method: str, path: str, head: bytes, body: bytes) -> None:
        server = self._server
        kind = _header(head, b"content-type") or ""
        if method == "POST" and not kind.startswith(("application/json", "multipart/form-data")):
            # OpenAI's reads no body of another kind.
            self._send(400, b'{"error": {"message": "the content type is not JSON"}}')
            return
        match method, path.strip("/").split("/"):
            case "POST", [*_, "chat", "completions"]:
                asked = json.loads(body)
                server.note_request(asked, _header(head, b"authorization"))
                server.heads.append(head)
                if server.reply is not None:
                    loop = asyncio.get_running_loop()
                    future = loop.run_in_executor(None, server.reply, asked)
                    future.add_done_callback(self._send_reply)
                else:
                    self._later(server.latency, self._chat, asked)
            case "POST", ["v1", "files"]:
                self._json(server.batches.upload(_uploaded(head, body)))
            case "GET", ["v1", "files", name, "content"]:
                content = server.batches.content(name)
                self._send(404 if content is None else 200, content or b"{}")
            case "POST", ["v1", "batches"]:
                faults = server.batches.faults
                is_made, status = faults.pop(0) if faults else (True, 200)
                made = server.batches.create(json.loads(body)) if is_made else None
                if status == 200:
                    self._json(made)
                else:
                    self._send(status, b'{"error": {"message": "injected"}}')
            case "GET", ["v1", "batches"]:
                self._json(server.batches.listed())
            case "GET", ["v1", "batches", name]:
                self._json(server.batches.retrieve(name))
            case _:
                self._json(None)

    def _send_reply(self, future: asyncio.Future[tuple[int, Any]]) -> None:
        status, answer = future.result()
        if isinstance(answer, bytes):
            self._send(status, answer, {"Content-Type": "text/html"})
            return
        if isinstance(answer, str) and status == 200:
            answer = completion(answer)
        self._send(status, json.dumps(answer).encode())

    def _chat(self, body: dict[str, Any]) -> None:
        fault = self._server.draw_fault(body)
        if fault is None:
            self._json(self._server.answer(body))
        elif fault == "reset":
            self._transport.abort()
        elif fault != "hang":
            good = json.dumps(completion(sensible_answer(body))).encode()
            if fault == "drip":
                self._transport.write(self._head(200, len(good), {}))
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
            self._transport.write(self._head(status, len(body), headers or {}) + body)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> bytes:
        fixed = {"Content-Type": "application/json", "Content-Length": str(length)}
        every = (fixed | self._server.headers | headers).items()
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Other')}"]
        lines += [f"{name}: {value}" for name, value in every]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _header(head: bytes, name: bytes) -> str | None:
    at = head.lower().find(b"\r\n" + name + b":")
    if at < 0:
        return None
    return head[at + len(name) + 3 :].split(b"\r\n", 1)[0].strip().decode()


def _uploaded(head: bytes, body: bytes) -> bytes:
    """The file in a multipart form."""
    headers = head.split(b"\r\n", 1)[1]
    form = BytesParser(policy=HTTP).parsebytes(headers + b"\r\n\r\n" + body)
    for part in form.iter_parts():
        if part.get_filename():
            return bytes(part.get_payload(decode=True))
    return b""

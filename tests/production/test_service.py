"""examples/fastapi_service as a process, over loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
import spacy
import toy

pytest.importorskip("fastapi", reason="the extra `service` is not installed")
pytest.importorskip("uvicorn", reason="the extra `service` is not installed")

APP = Path(__file__).parents[2] / "examples" / "fastapi_service"
LIMITS = {"MMCOT_MAX_CHARACTERS": "2000", "MMCOT_MAX_BYTES": "20000", "MMCOT_MAX_TEXTS": "8"}
LIMITS |= {"MMCOT_MAX_TOTAL": "5000", "MMCOT_PATIENCE": "2", "MMCOT_MAX_CONNECTIONS": "100"}


class Service(NamedTuple):
    process: subprocess.Popen[str]
    client: httpx2.Client

    def annotate(self, *texts: str) -> httpx2.Response:
        return self.client.post("/annotate", json={"texts": list(texts)})


def start(
    model: str,
    command: Sequence[str] = (sys.executable, "app.py"),
    folder: Path = APP,
    **environment: str,
) -> Service:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MMCOT_PIPELINE": model, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        try:
            client.get("/health").raise_for_status()
            return Service(process, client)
        except httpx2.TransportError:
            time.sleep(0.1)
    process.kill()
    pytest.fail(f"the service did not start: {process.communicate()[1]}")


@pytest.fixture(scope="module")
def service(model: str) -> Iterator[Service]:
    started = start(model, **LIMITS)
    yield started
    started.process.kill()
    started.process.communicate()


def problem(reply: httpx2.Response, status: int) -> str:
    assert reply.status_code == status
    body = reply.json()["error"]
    assert body["status"] == status
    return str(body["message"])


def test_many_clients_get_what_the_pipeline_finds(service: Service, model: str) -> None:
    texts = [f"{text} {'and so on ' * (i % 9)}" for i, text in enumerate(toy.texts() * 12)]
    expected: list[Any] = [
        [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]
        for doc in spacy.load(model).pipe(texts)
    ]
    before = service.client.get("/health").json()
    with ThreadPoolExecutor(8) as clients:
        replies = list(clients.map(service.annotate, texts))
    results = [reply.json()["results"] for reply in replies]
    found = [[(e["start"], e["end"], e["label"]) for e in r["entities"]] for (r,) in results]
    assert found == expected
    assert sum(map(len, expected)) > len(texts) // 2
    after = service.client.get("/health").json()
    assert after["docs"] - before["docs"] == len(texts)
    assert after["batches"] - before["batches"] < len(texts)


def test_several_texts_of_a_request_keep_their_order(service: Service) -> None:
    results = service.annotate("Anna sings in Oslo tonight", "", "nobody").json()["results"]
    assert [[e["text"] for e in result["entities"]] for result in results] == [
        ["Anna", "Oslo"],
        [],
        [],
    ]


def test_what_cannot_be_used_is_refused_as_json(service: Service) -> None:
    post = service.client.post
    assert "Text 1 (from 0) has 2001" in problem(service.annotate("short", "x" * 2001), 422)
    assert "1 to 8 texts" in problem(service.annotate(*"123456789"), 422)
    assert "1 to 8 texts" in problem(post("/annotate", content=b"no json"), 422)
    assert "1 to 8 texts" in problem(post("/annotate", json={"text": "Oslo"}), 422)
    problem(service.client.get("/nowhere"), 404)
    problem(service.client.get("/annotate"), 405)


def test_a_body_that_is_too_large_is_refused_with_and_without_its_length(
    service: Service,
) -> None:
    def streamed() -> Iterator[bytes]:
        yield b'{"texts": ["'
        for _ in range(100):
            yield b"x" * 1000

    post = service.client.post
    assert "20000 bytes" in problem(post("/annotate", content=b" " * 20001), 413)
    assert "20000 bytes" in problem(post("/annotate", content=streamed()), 413)
    assert service.annotate("Anna in Oslo").status_code == 200


def test_texts_are_bounded_together_and_in_what_their_tokens_cost(service: Service) -> None:
    assert "6000 characters together" in problem(service.annotate(*["x " * 1000] * 3), 422)
    for text in ("%" * 2000, "'s" * 1000, "(!" * 1000, "US$" * 660):
        assert "too many signs" in problem(service.annotate("Anna", text), 422)
    assert service.annotate("Anna in Oslo").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        *('{"texts": ["\\ud800"]}', '{"texts": ["Anna", "x \\udfff y"]}'),
        *('{"texts": ["Anna"], "\\ud83d": 1}', '{"\\udc00": []}', '{"texts": {"\\ud800": "x"}}'),
        *('{"texts": "\\ud800"}', '"\\ud800"', '{"texts": [["\\ud800"]]}'),
    ],
)
def test_half_a_surrogate_pair_is_no_failure_of_the_service(service: Service, body: str) -> None:
    json = {"content-type": "application/json"}
    reply = service.client.post("/annotate", content=body, headers=json)
    if body.startswith('{"texts": ["Anna"], '):  # in a field that nobody reads
        assert reply.status_code == 200
    else:
        problem(reply, 422)
    assert service.annotate("Anna in Oslo").status_code == 200


HEAD = b"POST /annotate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


def read_until_closed(client: socket.socket, seconds: float) -> bytes:
    """What the service sends; fails if it has not closed the connection by then."""
    client.settimeout(seconds)
    read = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            read += part
    return read


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /hea", HEAD, HEAD + b"content-length: 5\r\n\r\n{", b"GET /health HTTP/1.1\r\n"],
)
def test_a_client_that_does_not_go_on_is_sent_away(service: Service, sent: bytes) -> None:
    url = service.client.base_url
    with socket.create_connection((url.host, url.port)) as client:
        client.sendall(sent)
        started = time.monotonic()
        reply = read_until_closed(client, 8)
        assert 1 < time.monotonic() - started < 8
    assert reply.startswith(b"HTTP/1.1 408 ") or not reply


def test_a_second_request_must_come_in_time_too(service: Service) -> None:
    url = service.client.base_url
    with socket.create_connection((url.host, url.port)) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"GET /he")
        started = time.monotonic()
        assert b"200 OK" not in read_until_closed(client, 8)
        assert time.monotonic() - started < 8


def test_a_body_that_trickles_is_late(service: Service) -> None:
    url = service.client.base_url
    with socket.create_connection((url.host, url.port)) as client:
        client.sendall(HEAD + b"content-length: 1000\r\n\r\n")
        started = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - started < 8:
                client.sendall(b" ")
                time.sleep(0.2)
        assert time.monotonic() - started < 8


def test_slow_connections_hold_neither_the_service_nor_its_end(model: str) -> None:
    held = start(model, **LIMITS, MMCOT_GRACE="2")
    url = held.client.base_url
    try:
        clients = []
        for number in range(300):
            client = socket.create_connection((url.host, url.port), timeout=5)
            with contextlib.suppress(OSError):
                client.sendall((b"GET /he", HEAD + b"content-length: 9\r\n\r\n{")[number % 2])
            clients.append(client)
        until = time.monotonic() + 15
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if held.annotate("Anna in Oslo").status_code == 200:
                    break
            assert time.monotonic() < until
        for number in range(90):
            client = socket.create_connection((url.host, url.port), timeout=5)
            client.sendall((b"GET /he", HEAD + b"content-length: 9\r\n\r\n{")[number % 2])
            clients.append(client)
        held.process.send_signal(signal.SIGTERM)
        assert held.process.wait(10) in (0, -signal.SIGTERM)
    finally:
        held.process.kill()
        held.process.communicate()


@pytest.mark.slow
def test_a_full_queue_says_when_to_come_back(model: str) -> None:
    tight = start(model, MMCOT_WAITING="2", MMCOT_BATCH_SIZE="1", MMCOT_MAX_TOTAL="100000")
    try:
        reply = tight.annotate(*["Anna sings in Oslo tonight " * 40] * 40)
        assert "Try again later" in problem(reply, 503)
        assert reply.headers["retry-after"] == "1"
        assert tight.annotate("Anna sings in Oslo tonight").status_code == 200
    finally:
        tight.process.kill()
        tight.process.communicate()


@pytest.mark.slow
def test_a_request_in_flight_is_answered_when_the_service_is_asked_to_end(model: str) -> None:
    ending = start(model, MMCOT_BATCH_SIZE="1", MMCOT_MAX_TOTAL="200000")
    try:
        with ThreadPoolExecutor(1) as clients:
            reply = clients.submit(ending.annotate, *["Anna sings in Oslo tonight " * 60] * 60)
            until = time.monotonic() + 60
            while ending.client.get("/health").json()["docs"] < 2 and not reply.done():
                assert time.monotonic() < until
            ending.process.send_signal(signal.SIGTERM)
            assert len(reply.result().json()["results"]) == 60
        # uvicorn ends itself by the signal that it was sent, once it has shut down.
        assert ending.process.wait(30) in (0, -signal.SIGTERM)
        assert "Traceback" not in ending.process.communicate()[1]
    finally:
        ending.process.kill()

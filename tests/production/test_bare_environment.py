"""A standalone wheel in a virtual environment without torch: the steps of the example's Dockerfile,
in place of the image, and what the wheel, the web service and the function answer there."""

from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import toy_rel
from spacy.language import Language

pytest.importorskip("onnx", reason="needs the extra `onnx`")

from spacy_mmcot.production.export import build_wheel, export_standalone
from spacy_mmcot.production.worker import extract_findings
from tests.production.test_service import APP, start

pytestmark = pytest.mark.slow
INSTRUCTIONS = {"ARG", "ENV", "WORKDIR", "USER", "EXPOSE", "COPY", "RUN", "ENTRYPOINT", "CMD"}
FIND = """
import importlib.util, json, sys, spacy, en_tickets.worker
absent = ("torch", "transformers", "spacy_transformers", "spacy_mmcot", "sklearn")
there = [name for name in absent if importlib.util.find_spec(name)]
docs = spacy.load("en_tickets").pipe(json.load(sys.stdin))
print(json.dumps([there, [en_tickets.worker.extract_findings(doc) for doc in docs]]))
"""


class Image(NamedTuple):
    folder: Path
    bin: Path
    command: list[str]


def read_stage(name: str) -> list[tuple[str, str]]:
    """The instructions of a stage of the Dockerfile, after those of the stage below it."""
    stages: dict[str, list[tuple[str, str]]] = {}
    for line in (APP / "Dockerfile").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            word, rest = line.split(maxsplit=1)
            if word == "FROM":
                below, _, own = rest.split()
                steps = stages[own] = list(stages.get(below, ()))
            else:
                assert word in INSTRUCTIONS
                steps.append((word, rest))
    return stages[name]


def build_image(stage: str, context: Path, environment: Path) -> Image:
    """Take the steps of a stage in a folder and a virtual environment."""
    folder, command = environment / "service", list[str]()
    folder.mkdir(exist_ok=True)
    for word, rest in read_stage(stage):
        if word == "COPY":
            *patterns, _ = rest.split()
            found = [path for pattern in patterns for path in context.glob(pattern)]
            assert len(found) == len(patterns)
            for path in found:
                shutil.copy(path, folder)
        elif word == "RUN":
            path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
            done = subprocess.run(
                ["bash", "-c", rest],
                cwd=folder,
                env={**os.environ, "PATH": path, "PYTHONPATH": "", "PIP_NO_COMPILE": "1"},
                capture_output=True,
                text=True,
            )
            if "No matching distribution" in done.stderr:
                pytest.skip("no package index")
            assert done.returncode == 0, done.stderr
        elif word in ("ENTRYPOINT", "CMD"):
            command += json.loads(rest)
    return Image(folder, environment / "bin", [str(environment / "bin" / command[0]), *command[1:]])


@pytest.fixture(scope="module")
def context(related: Language, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's folder with a wheel, as its README says."""
    folder = tmp_path_factory.mktemp("context") / "example"
    shutil.copytree(APP, folder, ignore=shutil.ignore_patterns("__pycache__", "standalone"))
    export_standalone(related, "fp32").to_disk(folder / "standalone")
    build_wheel(folder / "standalone", "tickets")
    return folder


@pytest.fixture(scope="module")
def service(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    environment = tmp_path_factory.mktemp("bare")
    venv.create(environment, symlinks=True, with_pip=False)
    # Copying pip into the environment takes long.
    pip = environment / "bin" / "pip"
    pip.write_text(
        f'#!/bin/sh\nexec {sys.executable} -m pip --python {environment} "$@"\n', "utf-8"
    )
    pip.chmod(0o755)
    return build_image("service", context, environment)


def assert_close(found: Any, expected: Any) -> None:
    """The same but for scores, which may differ by a thousandth."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_close(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-3)
    else:
        assert found == expected


def test_the_wheel_finds_what_the_pipeline_finds(service: Image, related: Language) -> None:
    texts = [*toy_rel.texts(), "", " \n ", "Anna met Ben in Oslo , and then " * 30]
    done = subprocess.run(
        [service.bin / "python", "-I", "-c", FIND],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        env={"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    there, found = json.loads(done.stdout)
    assert there == []
    expected = [extract_findings(doc) for doc in related.pipe(texts)]
    assert sum(len(one["relations"]) for one in expected) > 10
    assert_close(found, expected)


def test_the_service_and_the_function_give_the_same_answers(
    service: Image, context: Path, related: Language
) -> None:
    texts = toy_rel.texts()[:8]
    bodies = [{"texts": texts}, {"texts": []}, {"texts": ["x" * 10_001]}, {"texts": ["%" * 5_000]}]
    function = build_image("lambda", context, service.folder.parent)
    at = service.command.index("--port")
    command = service.command[:at] + service.command[at + 2 :]
    running = start("en_tickets", command, service.folder, PYTHONPATH="")
    try:
        replies = [running.client.post("/annotate", json=body) for body in bodies]
        assert running.client.get("/health").json()["pipeline"] == "en_tickets"
    finally:
        running.process.kill()
        running.process.communicate()
    assert [reply.status_code for reply in replies] == [200, 422, 422, 422]
    assert_close(replies[0].json()["results"], [extract_findings(d) for d in related.pipe(texts)])
    with run_function(function, "en_tickets") as ask:
        for body, reply in zip(bodies, replies, strict=True):
            own = ask({"body": json.dumps(body), "isBase64Encoded": False})
            assert (own["statusCode"], own["headers"]) == (
                reply.status_code,
                {"content-type": "application/json"},
            )
            assert_close(json.loads(own["body"]), reply.json())
        packed = base64.b64encode(json.dumps(bodies[0]).encode()).decode()
        own = ask({"body": packed, "isBase64Encoded": True})
        assert_close(json.loads(own["body"]), replies[0].json())
        assert ask({"body": " " * 1_000_001})["statusCode"] == 413
        assert ask({})["statusCode"] == 422


@contextmanager
def run_function(image: Image, pipeline: str) -> Iterator[Any]:
    """Run the image's command against Lambda's runtime API, over loopback. Yields a function that
    gives it an event and returns its answer."""
    events: queue.Queue[str] = queue.Queue()
    answers: queue.Queue[str] = queue.Queue()

    class RuntimeAPI(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            event = events.get().encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Lambda-Runtime-Aws-Request-Id", "1")
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn")
            self.send_header("Lambda-Runtime-Deadline-Ms", str(2**41))
            self.send_header("Content-Length", str(len(event)))
            self.end_headers()
            self.wfile.write(event)

        def do_POST(self) -> None:
            answers.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    def ask(event: dict[str, Any]) -> Any:
        events.put(json.dumps(event))
        return json.loads(answers.get(timeout=60))

    with ThreadingHTTPServer(("127.0.0.1", 0), RuntimeAPI) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}",
            "MMCOT_PIPELINE": pipeline,
            "OMP_NUM_THREADS": "1",
        }
        process = subprocess.Popen(image.command, cwd=image.folder, env=environment)
        try:
            yield ask
        finally:
            process.kill()
            process.wait()
            server.shutdown()

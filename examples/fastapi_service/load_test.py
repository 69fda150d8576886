"""Start the service as a process, ask it from many clients at once over loopback, and print
throughput and latency.

    python load_test.py PIPELINE --clients 16 --requests 2000 --json service.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy

FOLDER = Path(__file__).resolve().parent


@contextmanager
def service(pipeline: str, **environment: str) -> Iterator[str]:
    """The address of a service in a process of its own, which is asked to end afterwards."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    process = subprocess.Popen(
        [
            *(sys.executable, "app.py", "--port", str(port)),
        ],
        cwd=FOLDER,
        env={**os.environ, "MMCOT_PIPELINE": str(Path(pipeline).resolve()), **environment},
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(address, process)
        yield address
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
    finally:
        process.kill()
        process.wait()


def wait_until_ready(address: str, process: subprocess.Popen, patience: float = 300) -> None:
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"The service ended with exit code {process.returncode}.")
        try:
            if httpx2.get(f"{address}/health", timeout=5).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.1)
    raise SystemExit(f"The service was not ready after {patience:g} s.")


async def ask(address: str, texts: list[str], clients: int) -> dict[str, float]:
    """Requests of one text each: how many a second, and how long one takes."""
    waiting = iter(texts)
    taken: list[float] = []

    async def client(http: httpx2.AsyncClient) -> None:
        for text in waiting:
            started = time.perf_counter()
            reply = await http.post(f"{address}/annotate", json={"texts": [text]})
            reply.raise_for_status()
            taken.append(time.perf_counter() - started)

    async with httpx2.AsyncClient(timeout=60) as http:
        started = time.perf_counter()
        await asyncio.gather(*(client(http) for _ in range(clients)))
        seconds = time.perf_counter() - started
    p50, p95, p99 = numpy.percentile(taken, [50, 95, 99]) * 1000
    return {
        "requests_per_second": round(len(taken) / seconds, 1),
        "p50_ms": round(p50, 1),
        "p95_ms": round(p95, 1),
        "p99_ms": round(p99, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipeline", help="folder of a trained pipeline")
    parser.add_argument("--clients", type=int, default=16, help="requests in flight")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    # A new word in each text, as in real ones.
    texts = [
        f"Anna sings in Oslo tonight, {n} people came #u{n}" for n in range(arguments.requests)
    ]
    figures: dict[str, object] = {"requests": arguments.requests}
    with service(arguments.pipeline) as address:
        for clients in (1, arguments.clients):
            # Alone, a client waits for each answer, and a tenth tells as much.
            share = texts if clients > 1 else texts[: max(1, len(texts) // 10)]
            before = httpx2.get(f"{address}/health").json()
            figures[f"clients_{clients}"] = asyncio.run(ask(address, share, clients))
            after = httpx2.get(f"{address}/health").json()
            docs, batches = (after[key] - before[key] for key in ("docs", "batches"))
            figures[f"clients_{clients}"]["docs_per_batch"] = round(docs / batches, 1)
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()

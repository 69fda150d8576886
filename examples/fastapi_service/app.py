"""A web service around a pipeline. See README.md beside this file.

MMCOT_PIPELINE=training/student/model-best python app.py --port 8000
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pipeline import MAX_BYTES, TIMEOUT, Texts, code, describe_fault, find_problem, start_worker
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.auto import AutoHTTPProtocol

PATIENCE = float(os.environ.get("MMCOT_PATIENCE", "10"))  # seconds for a client to send or read
MAX_CONNECTIONS = int(os.environ.get("MMCOT_MAX_CONNECTIONS", "500"))
GRACE = int(os.environ.get("MMCOT_GRACE", "10"))  # seconds from SIGTERM to the end

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Connection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """A connection that is closed where the client takes more than PATIENCE seconds to send the
    head of a request, or to read a response, and at once where MAX_CONNECTIONS are open."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.waiting: asyncio.TimerHandle | None = None
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self.wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self.stop_waiting()
        elif self.waiting is None:
            self.wait()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.wait()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.stop_waiting()

    def connection_lost(self, error: Exception | None) -> None:
        self.stop_waiting()
        super().connection_lost(error)

    def wait(self) -> None:
        self.stop_waiting()
        self.waiting = self.loop.call_later(PATIENCE, self.transport.abort)

    def stop_waiting(self) -> None:
        if self.waiting is not None:
            self.waiting.cancel()
        self.waiting = None


class BodyLimit:
    """Rejects a body above MAX_BYTES before reading more of it, whatever its Content-Length, and
    one that takes more than PATIENCE seconds."""

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        read, whole = 0, False
        until = asyncio.get_running_loop().time() + PATIENCE
        problem = f"The body has more than {MAX_BYTES} bytes."

        async def limited() -> Message:
            nonlocal read, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                late = f"The body took more than {PATIENCE:g} s."
                raise HTTPException(408, late, {"Connection": "close"}) from None
            read += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if read > MAX_BYTES:
                raise HTTPException(413, problem, {"Connection": "close"})
            return message

        declared = dict(scope.get("headers", ())).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > MAX_BYTES:
            await error(413, problem, {"Connection": "close"})(scope, receive, send)
        else:
            await self.app(scope, limited, send)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.name, worker = start_worker()
    with worker:
        app.state.worker = worker
        yield


app = FastAPI(title="spacy-mmcot", lifespan=lifespan)
app.add_middleware(BodyLimit)


@app.post("/annotate")
async def annotate(body: Texts, request: Request) -> JSONResponse:
    """The entities and relations of each text, in the order of the texts."""
    if problem := find_problem(body.texts):
        return error(422, problem)
    worker = request.app.state.worker
    answers: list[asyncio.Future] = []
    try:
        for text in body.texts:
            answers.append(asyncio.wrap_future(worker.submit(text)))
        async with asyncio.timeout(TIMEOUT):
            return JSONResponse({"results": await asyncio.gather(*answers)})
    except code.Busy as problem:
        return error(503, str(problem), {"Retry-After": "1"})
    except TimeoutError:
        return error(504, f"The pipeline did not answer within {TIMEOUT:g} s.")
    except code.MMCoTError as problem:
        return error(422, str(problem))
    finally:
        for answer in answers:
            answer.cancel()


@app.get("/health")
async def health(request: Request) -> JSONResponse:
    """Whether the worker answers texts, and how much it has processed."""
    worker = request.app.state.worker
    if not worker.is_alive:
        return error(503, "The worker has ended. Restart the service.")
    done = {"docs": worker.docs, "batches": worker.batches}
    return JSONResponse({"status": "ok", "pipeline": request.app.state.name, **done})


def error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"status": status, "message": message}}, status, headers)


@app.exception_handler(RequestValidationError)
async def invalid(request: Request, problem: RequestValidationError) -> JSONResponse:
    return error(422, describe_fault(problem.errors()[0]))


@app.exception_handler(HTTPException)
async def refused(request: Request, problem: HTTPException) -> JSONResponse:
    return error(problem.status_code, str(problem.detail), dict(problem.headers or {}))


@app.exception_handler(Exception)
async def broken(request: Request, problem: Exception) -> JSONResponse:
    return error(500, "The service failed on this request; its log says why.")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    uvicorn.run(
        app,
        host=arguments.host,
        port=arguments.port,
        http=Connection,
        log_level="warning",
        timeout_graceful_shutdown=GRACE,
    )


if __name__ == "__main__":
    main()

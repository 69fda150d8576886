"""A web service around a pipeline. See README.md beside this file.

MMCOT_PIPELINE=training/student/model-best uvicorn app:app --port 8000
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import spacy
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from spacy_mmcot import Busy, MMCoTError, PipelineWorker, extract_findings

PIPELINE = os.environ.get("MMCOT_PIPELINE", "training/student/model-best")
MAX_TEXTS = int(os.environ.get("MMCOT_MAX_TEXTS", "64"))  # a request
MAX_CHARACTERS = int(os.environ.get("MMCOT_MAX_CHARACTERS", "10000"))  # a text
MAX_BYTES = int(os.environ.get("MMCOT_MAX_BYTES", "1000000"))  # a body
BATCH_SIZE = int(os.environ.get("MMCOT_BATCH_SIZE", "32"))  # texts through nlp.pipe at once
WAITING = int(os.environ.get("MMCOT_WAITING", "1000"))  # texts in the queue before a 503
TIMEOUT = float(os.environ.get("MMCOT_TIMEOUT", "30"))  # seconds before a 504

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Texts(BaseModel):
    texts: list[str] = Field(min_length=1, max_length=MAX_TEXTS)


class BodyLimit:
    """Rejects a body above MAX_BYTES before reading more of it, whatever its Content-Length."""

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        read = 0
        problem = f"The body has more than {MAX_BYTES} bytes."

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
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
    nlp = spacy.load(PIPELINE)
    with PipelineWorker(nlp, extract_findings, batch_size=BATCH_SIZE, waiting=WAITING) as worker:
        worker("The first document warms the pipeline up.")
        # The garbage collector stops all threads. Keep it from visiting the loaded objects again.
        gc.collect()
        gc.freeze()
        app.state.worker = worker
        app.state.name = f"{nlp.meta['lang']}_{nlp.meta['name']}"
        yield


app = FastAPI(title="spacy-mmcot", lifespan=lifespan)
app.add_middleware(BodyLimit)


@app.post("/annotate")
async def annotate(body: Texts, request: Request) -> JSONResponse:
    """The entities and relations of each text, in the order of the texts."""
    for number, text in enumerate(body.texts):
        if len(text) > MAX_CHARACTERS:
            problem = f"Text {number} (from 0) has {len(text)} characters; at most {MAX_CHARACTERS}"
            return error(422, f"{problem} are taken. Cut it into shorter texts.")
    worker = request.app.state.worker
    answers: list[asyncio.Future] = []
    try:
        for text in body.texts:
            answers.append(asyncio.wrap_future(worker.submit(text)))
        async with asyncio.timeout(TIMEOUT):
            return JSONResponse({"results": await asyncio.gather(*answers)})
    except Busy as problem:
        return error(503, str(problem), {"Retry-After": "1"})
    except TimeoutError:
        return error(504, f"The pipeline did not answer within {TIMEOUT:g} s.")
    except MMCoTError as problem:
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
    fault = problem.errors()[0]
    place = ".".join(str(part) for part in fault["loc"])
    expected = f'Expected: {{"texts": ["...", ...]}} with 1 to {MAX_TEXTS} texts.'
    return error(422, f"{place}: {fault['msg']}. {expected}")


@app.exception_handler(HTTPException)
async def refused(request: Request, problem: HTTPException) -> JSONResponse:
    return error(problem.status_code, str(problem.detail), dict(problem.headers or {}))


@app.exception_handler(Exception)
async def broken(request: Request, problem: Exception) -> JSONResponse:
    return error(500, "The service failed on this request; its log says why.")

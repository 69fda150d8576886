"""The Batch API of an endpoint: files up, batches made and watched, files down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import httpx2
import openai
from openai.types import Batch

from ..errors import Errors, MMCoTError
from .client import status_fault
from .endpoint import Endpoint
from .limits import wait_before
from .replies import RequestRefused, Unavailable

# The path in a batch's requests is the API's own, whatever address the endpoint has.
PATH: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_RUNNING = {"validating", "in_progress", "finalizing", "cancelling"}
_MARK = "spacy_mmcot_batch"
T = TypeVar("T")


@dataclass(frozen=True)
class Line:
    """One request's outcome in a batch: an HTTP status and a body, or None where the batch ended
    before it was dealt with."""

    key: str
    status: int | None
    body: Any


class BatchApi:
    """Batches carry a name of ours in their metadata, so that one that was made just before the
    process died is found again. Every method raises MMCoTError where the endpoint fails for good;
    `tries` requests are made for one call."""

    def __init__(self, endpoint: Endpoint, tries: int = 8, poll: float = 30.0) -> None:
        self._endpoint = endpoint
        self._tries = tries
        self._poll = poll
        self._client = endpoint.client()

    async def close(self) -> None:
        await self._client.close()

    async def upload(self, data: bytes) -> str:
        """Returns the file's id."""
        file = ("batch.jsonl", data)
        create = self._client.files.create
        return (await self._call(lambda: create(file=file, purpose="batch"), "a file")).id

    async def create(self, name: str, file: str) -> str:
        """Make the batch `name` of an uploaded file; returns its id."""

        async def create() -> str:
            # A try whose answer was lost may have made it.
            found = await self._find(name)
            if found is not None:
                return found
            batch = await self._client.batches.create(
                input_file_id=file,
                endpoint=PATH,
                completion_window="24h",
                metadata={_MARK: name},
            )
            return batch.id

        return await self._call(create, "a batch")

    async def find(self, name: str) -> str | None:
        """The id of the batch `name`, None where it was never made."""
        return await self._call(lambda: self._find(name), "the list of batches")

    async def finished(self, remote: str) -> Batch:
        """Wait until a batch has come to its end, whichever."""
        retrieve = self._client.batches.retrieve
        while True:
            batch = await self._call(lambda: retrieve(remote), f"the batch {remote}")
            if batch.status not in _RUNNING:
                return batch
            await asyncio.sleep(self._poll)

    async def lines(self, batch: Batch) -> list[Line]:
        """The outcomes of a batch that was completed, expired or cancelled."""
        found: list[Line] = []
        for file in (batch.output_file_id, batch.error_file_id):
            if file:
                found += _lines(await self._content(file))
        return found

    async def _content(self, file: str) -> bytes:
        content = self._client.files.content
        return (await self._call(lambda: content(file), f"the file {file}")).content

    async def _find(self, name: str) -> str | None:
        async for batch in self._client.batches.list(limit=100):
            if (batch.metadata or {}).get(_MARK) == name:
                return batch.id
        return None

    async def _call(self, call: Callable[[], Awaitable[T]], what: str) -> T:
        fault: Unavailable | None = None
        for attempt in range(self._tries):
            if fault is not None:
                await asyncio.sleep(wait_before(attempt, fault.retry_after))
            try:
                return await call()
            except openai.APIStatusError as error:
                told = status_fault(error)
                if not isinstance(told, Unavailable):
                    refused = RequestRefused(error.status_code, str(told))
                    raise self._endpoint.refusal(refused, f"the request for {what}") from None
                fault = told
            except (openai.APIConnectionError, httpx2.TransportError) as error:
                fault = Unavailable(str(error.__cause__ or error))
            except (openai.OpenAIError, ValueError) as error:
                raise self._endpoint.error(Errors.E314, reason=error) from None
        raise self._endpoint.error(Errors.E312, reason=fault.reason if fault else "") from None

    def failure(self, batch: Batch) -> MMCoTError:
        """Why the endpoint did not take a batch."""
        faults = batch.errors.data if batch.errors and batch.errors.data else []
        reason = "; ".join(fault.message or fault.code or "" for fault in faults) or batch.status
        return self._endpoint.error(Errors.E317, batch=batch.id, reason=reason)


def request_line(key: str, body: dict[str, Any]) -> bytes:
    """One request of a batch's file."""
    row = {"custom_id": key, "method": "POST", "url": PATH, "body": body}
    return json.dumps(row).encode("ascii") + b"\n"


def _lines(data: bytes) -> Iterator[Line]:
    for raw in data.split(b"\n"):
        try:
            row = json.loads(raw)
            response = row.get("response") or {}
            yield Line(str(row["custom_id"]), response.get("status_code"), response.get("body"))
        except (ValueError, KeyError, AttributeError, RecursionError):
            # A damaged line is one without an answer: its question is asked again.
            continue

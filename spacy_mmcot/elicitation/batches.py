"""The source `openai-batch`: questions go to an endpoint's Batch API in files and come back hours
later, at half the price.

Each step is written down before the next, so a kill at any moment loses no answer that was paid
for: the batch before it is made, its answers before they are settled.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, NamedTuple, TypeVar

from openai.types import Batch

from ..errors import Errors, MMCoTError
from ..types import Post
from .claims import Claim
from .client import OpenAISource
from .engine import Ending, Pace, seconds_before_retry
from .questions import Elicitation, Job
from .replies import AnswerRejected, Fault, RequestRefused, Unavailable, fault_of, read_reply

# The path in a batch's requests is the API's own, whatever address the endpoint has.
_PATH: Final = "/v1/chat/completions"
_RUNNING = {"validating", "in_progress", "finalizing", "cancelling"}
_NAME_FIELD = "spacy_mmcot_batch"  # in a batch's metadata
_CLAIM_SECONDS = 26 * 3600.0  # a batch lives for 24 hours
_LARGEST_FILE = 100_000_000  # bytes; endpoints take 200 MB
# Rounds without a single answer before the rest is given up.
_MOST_EMPTY_ROUNDS = 3
T = TypeVar("T")


class BatchRunner:
    """Runs an elicitation by batches."""

    def __init__(self, elicitation: Elicitation, source: OpenAISource, pace: Pace) -> None:
        self._elicitation = elicitation
        self._source = source
        self._store = elicitation.store
        self._pace = pace
        self._ending = Ending.DONE
        # A file of questions in the making, and their keys.
        self._data, self._keys = bytearray(), list[str]()

    def run(self, posts: Iterable[Post]) -> Ending:
        """Collect what earlier runs have in batches, then ask the rest, until nothing is left.
        Raises like Engine.run; batches that are under way go on at the endpoint."""
        try:
            asyncio.run(self._run(posts))
        except TimeoutError:
            return Ending.TIME
        return self._ending

    async def _run(self, posts: Iterable[Post]) -> None:
        self._api = BatchApi(self._source, self._pace)
        try:
            async with asyncio.timeout(self._pace.run_timeout):
                await self._run_rounds(posts)
        finally:
            self._elicitation.account.release_all()
            await self._source.close()

    async def _run_rounds(self, posts: Iterable[Post]) -> None:
        empty_rounds, first = 0, True
        while first or self._elicitation.deferred:
            arrived = await self._collect()
            empty_rounds = 0 if arrived or first else empty_rounds + 1
            if empty_rounds >= _MOST_EMPTY_ROUNDS:
                self._elicitation.miss_deferred("batches come back without answers")
                return
            await self._run_pass(posts, first)
            first = False
            if self._elicitation.deferred and not self._list_batches():
                reason = "budget" if self._ending is Ending.BUDGET else "another run has it"
                self._elicitation.miss_deferred(reason)
                return

    # Questions out.

    async def _run_pass(self, posts: Iterable[Post], first: bool) -> None:
        for job in self._elicitation.pending(posts, deferred=not first):
            if job is None:
                await asyncio.sleep(0)
                continue
            left = self._settle_from_inbox(job)
            if left is None or not self._claim(left):
                continue
            body = self._source.body(left.prompt)
            self._elicitation.defer(left)
            row = {"custom_id": left.key, "method": "POST", "url": _PATH, "body": body}
            self._data += json.dumps(row).encode("ascii") + b"\n"
            self._keys.append(left.key)
            if len(self._keys) >= self._pace.batch_size or len(self._data) >= _LARGEST_FILE:
                await self._submit()
        if self._keys:
            await self._submit()

    def _claim(self, job: Job) -> bool:
        spent = self._ending is Ending.BUDGET
        claim = Claim.POOR if spent else self._elicitation.claim(job)
        if claim is Claim.WAIT:
            # Estimates of batches under way hold the money; what they cost is known later.
            self._elicitation.defer(job)
        elif claim is Claim.POOR:
            self._ending = Ending.BUDGET
            self._elicitation.put_back(job)
        return claim is Claim.MADE

    async def _submit(self) -> None:
        data, keys = self._data, self._keys
        self._data, self._keys = bytearray(), []
        name, expires = uuid.uuid4().hex, time.time() + _CLAIM_SECONDS
        with self._store.transaction() as connection:
            connection.execute(
                "INSERT INTO batches VALUES (?, ?, ?, NULL, ?)",
                (name, self._source.url, self._source.model, time.time()),
            )
            connection.executemany(
                "UPDATE claims SET owner = ?, pid = 0, expires = ? WHERE key = ?",
                [(name, expires, key) for key in keys],
            )
        try:
            file = await self._api.upload(bytes(data))
            remote = await self._api.create(name, file)
            self._store.write("UPDATE batches SET remote = ? WHERE name = ?", remote, name)
        except MMCoTError:
            self._forget(name)
            raise

    # Answers in.

    async def _collect(self) -> int:
        """Wait for all batches of this endpoint and take in what they bring; returns how many
        answers came."""
        arrived = 0
        for name, remote in self._list_batches():
            remote = remote or await self._api.find(name)
            if remote is None:
                # The process died before the batch was made.
                self._forget(name)
                continue
            batch = await self._api.wait_for(remote)
            if batch.status == "failed":
                self._forget(name)
                raise self._api.make_error(batch)
            lines = await self._api.download(batch)
            faults = {row.key: fault_of(row.status, row.body) for row in lines if row.status != 200}
            # The other questions are asked again.
            entries = [
                (row.key, row.status, json.dumps(row.body), name)
                for row in lines
                if row.status == 200 or isinstance(faults[row.key], AnswerRejected)
            ]
            with self._store.transaction() as connection:
                insert = "INSERT OR REPLACE INTO inbox VALUES (?, ?, ?, ?)"
                connection.executemany(insert, entries)
                self._forget(name)
            arrived += len(entries)
            for fault in faults.values():
                if isinstance(fault, RequestRefused):
                    raise self._source.refusal_error(fault, "a request of the batch")
        return arrived

    def _settle_from_inbox(self, job: Job) -> Job | None:
        """Settle a question from what batches have brought. Returns what is still to be asked:
        the question itself, or its repair round."""
        with self._store.transaction():
            query = "DELETE FROM inbox WHERE key = ? RETURNING status, body"
            rows = self._store.fetch(query, job.key)
            if not rows:
                return job
            status, body = rows[0]
            try:
                if status != 200:
                    raise fault_of(status, json.loads(body))
                return self._elicitation.settle(job, read_reply(body.encode()))
            except AnswerRejected as rejected:
                return self._elicitation.reject(job, rejected)
            except RequestRefused as fault:
                return self._elicitation.reject(job, AnswerRejected(str(fault), body))
            except Unavailable as fault:
                self._elicitation.book(job, fault.usage)
                return job

    # The table of batches.

    def _list_batches(self) -> list[tuple[str, str | None]]:
        """Name and the endpoint's id of each batch."""
        query = "SELECT name, remote FROM batches WHERE url = ? ORDER BY created"
        return [(name, remote) for name, remote in self._store.fetch(query, self._source.url)]

    def _forget(self, name: str) -> None:
        with self._store.transaction():
            self._store.write("DELETE FROM batches WHERE name = ?", name)
            self._store.write("DELETE FROM claims WHERE owner = ?", name)


class Line(NamedTuple):
    """One request's outcome in a batch: an HTTP status and a body."""

    key: str
    status: int
    body: Any


class BatchApi:
    """Files up, batches made and watched, files down.

    Batches carry a name of ours in their metadata, so that one that was made just before the
    process died is found again. Every method raises MMCoTError where the endpoint fails for good;
    `tries` requests are made for one call."""

    def __init__(self, source: OpenAISource, pace: Pace) -> None:
        self._source = source
        self._pace = pace
        self._client = source.open_client()

    async def upload(self, data: bytes) -> str:
        """Returns the file's id."""
        file = ("batch.jsonl", data)
        create = self._client.files.create
        return (await self._call(lambda: create(file=file, purpose="batch"), "a file")).id

    async def create(self, name: str, file: str) -> str:
        """Make the batch `name` of an uploaded file; returns its id."""

        async def create() -> str:
            # A try whose answer was lost may have made it.
            if found := await self._find(name):
                return found
            batch = await self._client.batches.create(
                input_file_id=file,
                endpoint=_PATH,
                completion_window="24h",
                metadata={_NAME_FIELD: name},
            )
            return batch.id

        return await self._call(create, "a batch")

    async def find(self, name: str) -> str | None:
        """The id of the batch `name`, None where it was never made."""
        return await self._call(lambda: self._find(name), "the list of batches")

    async def wait_for(self, remote: str) -> Batch:
        """Wait until a batch has come to its end, whichever."""
        retrieve = self._client.batches.retrieve
        while True:
            batch = await self._call(lambda: retrieve(remote), f"the batch {remote}")
            if batch.status not in _RUNNING:
                return batch
            await asyncio.sleep(self._pace.batch_poll)

    async def download(self, batch: Batch) -> list[Line]:
        """The outcomes of a batch that was completed, expired or cancelled."""
        found: list[Line] = []
        for file in filter(None, (batch.output_file_id, batch.error_file_id)):
            get = functools.partial(self._client.files.content, file)
            content = (await self._call(get, f"the file {file}")).content
            found += filter(None, map(_parse_line, content.split(b"\n")))
        return found

    async def _find(self, name: str) -> str | None:
        async for batch in self._client.batches.list(limit=100):
            if (batch.metadata or {}).get(_NAME_FIELD) == name:
                return batch.id
        return None

    async def _call(self, call: Callable[[], Awaitable[T]], what: str) -> T:
        fault: Unavailable | None = None
        for attempt in range(self._pace.tries):
            if fault is not None:
                await asyncio.sleep(seconds_before_retry(attempt, fault.retry_after))
            try:
                with self._source.translate_errors():
                    return await call()
            except Unavailable as unavailable:
                fault = unavailable
            except Fault as refused:
                status = refused.status if isinstance(refused, RequestRefused) else 400
                error = RequestRefused(refused.reason, status)
                raise self._source.refusal_error(error, f"the request for {what}") from None
        raise self._source.error(Errors.E312, reason=fault.reason if fault else "") from None

    def make_error(self, batch: Batch) -> MMCoTError:
        """Why the endpoint did not take a batch."""
        faults = batch.errors.data if batch.errors and batch.errors.data else []
        reason = "; ".join(fault.message or fault.code or "" for fault in faults) or batch.status
        return self._source.error(Errors.E317, batch=batch.id, reason=reason)


def _parse_line(data: bytes) -> Line | None:
    """None for a damaged line, and one of a request that the batch did not come to: its question is
    asked again."""
    try:
        row = json.loads(data)
        response = row["response"]
        return Line(str(row["custom_id"]), int(response["status_code"]), response.get("body"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None

"""The source `openai-batch`: questions go to an endpoint's Batch API in files and come back hours
later, at half the price.

Each step is written down before the next, so a kill at any moment loses no answer that was paid
for: the batch before it is made, its answers before they are settled.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from ..errors import Errors, MMCoTError
from ..types import Post
from .client import OpenAISource
from .engine import Ending, Pace, seconds_before_retry
from .money import Claim
from .questions import Elicitation, Job
from .replies import (
    NAME_FIELD,
    AnswerRejected,
    Batch,
    Fault,
    Line,
    RequestRefused,
    Unavailable,
    make_fault,
    read_batch,
    read_batches,
    read_file_id,
    read_lines,
    read_reply,
)

# The path in a batch's requests is the API's own, whatever address the endpoint has.
_PATH: Final = "/v1/chat/completions"
_ENDED = {"completed", "failed", "expired", "cancelled"}
_LARGEST_FILE = 100_000_000  # bytes; endpoints take 200 MB
_LARGEST_OUTPUT = 2_000_000_000
_FILE_SECONDS = 900.0  # for a whole file, up or down
_KEPT_SECONDS = 30 * 86_400.0  # endpoints keep a batch's files no longer
# Rounds without a single settled question before the rest is given up.
_MOST_EMPTY_ROUNDS = 3


class BatchRunner:
    """Runs an elicitation by batches."""

    def __init__(self, elicitation: Elicitation, source: OpenAISource, pace: Pace) -> None:
        self._elicitation, self._store = elicitation, elicitation.store
        self._source, self._pace, self._api = source, pace, BatchApi(source, pace)
        self._ending, self._settled, self._answered = Ending.DONE, 0, False

    def run(self, posts: Iterable[Post]) -> Ending:
        """Collect what earlier runs have in batches, then ask the rest, until nothing is left.
        Raises like Engine.run; batches that are under way go on at the endpoint."""
        try:
            asyncio.run(self._run(posts))
        except TimeoutError:
            return Ending.TIME
        return self._ending

    async def _run(self, posts: Iterable[Post]) -> None:
        try:
            async with asyncio.timeout(self._pace.run_timeout):
                await self._run_rounds(posts)
        except RequestRefused as refused:
            raise refused.as_error(self._source.url, "a request of the Batch API") from None
        finally:
            await self._source.close()

    async def _run_rounds(self, posts: Iterable[Post]) -> None:
        await self._collect()
        await self._run_pass(self._elicitation.pending(posts))
        empty_rounds = 0
        while self._elicitation.deferred:
            reason = ""
            if empty_rounds >= _MOST_EMPTY_ROUNDS:
                reason = "batches come back without answers"
            elif not self._list_batches():
                reason = "budget" if self._ending is Ending.BUDGET else "another run has it"
            if reason:
                self._elicitation.miss_deferred(reason)
                return
            before = self._settled
            await self._collect()
            await self._run_pass(self._elicitation.pending(posts, deferred=True))
            empty_rounds = 0 if self._settled > before else empty_rounds + 1

    # Questions out.

    async def _run_pass(self, jobs: Iterable[Job | None]) -> None:
        data, keys = bytearray(), list[str]()
        for job in jobs:
            if job is None:
                await asyncio.sleep(0)
                continue
            left = self._settle_from_inbox(job)
            self._settled += left is not job
            if left is None or not self._claim(left):
                continue
            body = self._source.body(left.prompt)
            self._elicitation.defer(left)
            row = {"custom_id": left.key, "method": "POST", "url": _PATH, "body": body}
            data += json.dumps(row).encode("ascii") + b"\n"
            keys.append(left.key)
            if len(keys) >= self._pace.batch_size or len(data) >= _LARGEST_FILE:
                await self._submit(bytes(data), keys)
                data, keys = bytearray(), []
        if keys:
            await self._submit(bytes(data), keys)

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

    async def _submit(self, data: bytes, keys: list[str]) -> None:
        name = uuid.uuid4().hex
        with self._store.transaction() as connection:
            connection.execute(
                "INSERT INTO batches VALUES (?, ?, ?, NULL, ?)",
                (name, self._source.url, self._source.model, time.time()),
            )
            connection.executemany(
                "UPDATE claims SET owner = ? WHERE key = ?", [(name, key) for key in keys]
            )
        file = None
        try:
            file = await self._api.upload(data)
            remote = await self._api.create(name, file)
        except (MMCoTError, RequestRefused) as error:
            # Where it is open whether the batch was made, the next run looks for it by its name.
            if file is None or (isinstance(error, RequestRefused) and error.status >= 400):
                self._forget(name)
            raise
        self._store.write("UPDATE batches SET remote = ? WHERE name = ?", remote, name)

    # Answers in.

    async def _collect(self) -> None:
        """Wait for all batches of this endpoint and take in what they bring."""
        limit = time.time() - _KEPT_SECONDS
        query = "SELECT name FROM batches WHERE url != ? AND created < ?"
        for (name,) in self._store.fetch(query, self._source.url, limit):
            self._forget(name, "of another endpoint is too old to be collected")
        for name, remote in self._list_batches():
            remote = remote or await self._api.find(name)
            if remote is None:
                # The process died before the batch was made.
                self._forget(name)
                continue
            try:
                batch = await self._api.wait_for(remote)
                lines = await self._api.download(batch)
            except RequestRefused as refused:
                if refused.status not in (404, 410):
                    raise
                self._forget(name, f"{remote} is gone from {self._source.url}")
                continue
            if batch.status == "failed":
                self._forget(name)
                reason = self._source.scrub(batch.reason)
                raise self._source.error(Errors.E317, batch=batch.id, reason=reason)
            self._take_in(name, lines)

    def _take_in(self, name: str, lines: Iterable[Line]) -> None:
        """Keep a batch's outcomes. Raises RequestRefused where no request of it was accepted."""
        # A question may have a line in both files.
        best = {line.key: line for line in sorted(lines, key=lambda line: line.is_good)}
        asked = set(self._store.fetch("SELECT key FROM claims WHERE owner = ?", name))
        kept: list[tuple[str, int, str, str]] = []
        refused: RequestRefused | None = None
        for line in best.values():
            fault = None if line.status == 200 else make_fault(line.status, line.body)
            if isinstance(fault, RequestRefused) and (refused is None or fault.of_settings):
                refused = fault
            # Questions that the endpoint was too busy for are asked again.
            if (line.key,) in asked and not isinstance(fault, Unavailable):
                kept.append((line.key, line.status, json.dumps(line.body), name))
        self._answered = self._answered or any(line.is_good for line in best.values())
        if refused is not None and (refused.of_settings or not self._answered):
            kept = [row for row in kept if row[1] == 200]
        else:
            refused = None
        with self._store.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO inbox VALUES (?, ?, ?, ?)", kept)
            self._forget(name)
        if refused is not None:
            refused.reason = self._source.scrub(refused.reason)
            raise refused

    def _settle_from_inbox(self, job: Job) -> Job | None:
        """Returns what is still to be asked: the question itself, its repair round, or nothing."""
        with self._store.transaction():
            query = "DELETE FROM inbox WHERE key = ? RETURNING status, body"
            rows = self._store.fetch(query, job.key)
            if not rows:
                return job
            status, body = rows[0]
            try:
                if status != 200:
                    raise make_fault(status, json.loads(body))
                return self._elicitation.settle(job, read_reply(body.encode()))
            except AnswerRejected as rejected:
                return self._elicitation.reject(job, rejected)
            except RequestRefused as fault:
                if status == 200:  # no answer at all
                    self._elicitation.book(job, None)
                    return job
                fault.reason = self._source.scrub(fault.reason)
                return self._elicitation.reject(job, fault.as_rejection(body))
            except Unavailable as fault:
                self._elicitation.book(job, fault.usage)
                return job

    # The table of batches.

    def _list_batches(self) -> list[tuple[str, str | None]]:
        """Name and the endpoint's id of each batch."""
        query = "SELECT name, remote FROM batches WHERE url = ? ORDER BY created"
        return [(name, remote) for name, remote in self._store.fetch(query, self._source.url)]

    def _forget(self, name: str, why: str = "") -> None:
        """Free a batch's questions, which are asked again where they have no answers."""
        if why:
            self._elicitation.report.notes.append(f"the batch {why}: its questions are asked again")
        with self._store.transaction():
            self._store.write("DELETE FROM batches WHERE name = ?", name)
            self._store.write("DELETE FROM claims WHERE owner = ?", name)


@dataclass
class BatchApi:
    """Files up, batches made and watched, files down.

    Batches carry a name of ours in their metadata, so that one that was made just before the
    process died is found again. Methods raise MMCoTError where the endpoint stays out of reach,
    after the pace's `tries`, and RequestRefused where it refuses."""

    source: OpenAISource
    pace: Pace

    async def upload(self, data: bytes) -> str:
        """Returns the file's id."""
        return read_file_id(await self._call("POST", "/files", file=data, timeout=_FILE_SECONDS))

    async def create(self, name: str, file: str) -> str:
        """Make the batch `name` of an uploaded file; returns its id."""
        batch = {"input_file_id": file, "endpoint": _PATH, "completion_window": "24h"}
        body = json.dumps(batch | {"metadata": {NAME_FIELD: name}}).encode("ascii")
        return read_batch(await self._call("POST", "/batches", made_as=name, content=body)).id

    async def find(self, name: str) -> str | None:
        """The id of the batch `name`, None where it was never made."""
        params, seen = {"limit": "100"}, set[str]()
        while batches := read_batches(await self._call("GET", "/batches", params=params)):
            for batch in batches:
                if batch.name == name:
                    return batch.id
            if batches[-1].id in seen:
                break
            params["after"] = batches[-1].id
            seen.add(batches[-1].id)
        return None

    async def wait_for(self, remote: str) -> Batch:
        """Wait until a batch has come to its end, whichever."""
        path = f"/batches/{quote(remote, safe='')}"
        while (batch := read_batch(await self._call("GET", path))).status not in _ENDED:
            await asyncio.sleep(self.pace.batch_poll)
        return batch

    async def download(self, batch: Batch) -> list[Line]:
        """The outcomes of a batch that was completed, expired or cancelled."""
        lines: list[Line] = []
        for file in batch.files:
            path, largest = f"/files/{quote(file, safe='')}/content", _LARGEST_OUTPUT
            content = await self._call("GET", path, largest=largest, timeout=_FILE_SECONDS)
            lines += read_lines(content)
        return lines

    async def _call(self, method: str, path: str, made_as: str = "", **request: Any) -> bytes:
        """`made_as`: the name of the batch that the call makes."""
        fault: Fault | None = None
        for attempt in range(self.pace.tries):
            if isinstance(fault, Unavailable):
                await asyncio.sleep(seconds_before_retry(attempt, fault.retry_after))
                # A try whose answer was lost may have made it.
                if made_as and (found := await self.find(made_as)):
                    return json.dumps({"id": found, "status": "found"}).encode()
            try:
                return await self.source.send(method, path, **request)
            except Unavailable as unavailable:
                fault = unavailable
            except Fault as refused:
                words, status = self.source.scrub(refused.reason), getattr(refused, "status", 400)
                raise RequestRefused(words, status) from None
        raise self.source.error(Errors.E312, reason=fault)

"""The files and batches of the tests' LLM server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

Reply = tuple[int, dict[str, Any]]


class Batches:
    """Keeps uploaded files and runs batches over them: a batch is done `seconds` after it was
    made. `answer` turns a request's body into a status and a body. In the first batch, the first
    `short` requests are left without an answer, as the status `expired` leaves them, and each
    `fail_every`th fails. `refuse` is why batches are not taken at all. `edit` changes the lines of
    its output. What is `gone` answers with 404. The next batches are made or not, and answered with
    a status all the same, as `faults` says.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], Reply]) -> None:
        self.seconds = 0.2
        self.short = 0
        self.fail_every = 0
        self.refuse = ""
        self.edit: Callable[[list[bytes]], list[bytes]] = lambda lines: lines
        self.gone: set[str] = set()
        self.faults: list[tuple[bool, int]] = []
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
        return None if name in self.gone else self._files.get(name)

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
            if batch["id"] == name and name not in self.gone:
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
                data_lines = [json.dumps(row).encode() for row in rows]
                if name == "output_file_id" and batch is self.made[0]:
                    data_lines = self.edit(data_lines)
                data = b"\n".join([*data_lines, b""])
                batch[name] = self.upload(data)["id"]

    @staticmethod
    def _shown(batch: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in batch.items() if name != "ready"}

"""The ways in which an endpoint fails, for the benchmarks' LLM server."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

from .llm_answers import completion

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

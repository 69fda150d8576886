"""Tables of the toy corpus."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import toy


def rows(count: int) -> list[dict[str, Any]]:
    """Posts of the toy corpus in turn, each with columns of its own."""
    texts = toy.texts()
    return [{"id": f"p{i}", "text": texts[i % len(texts)], "n": i} for i in range(count)]


def write_jsonl(path: Path, values: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), "utf-8")
    return path


def read_jsonl(path: Path) -> list[Any]:
    # Texts hold other characters at which splitlines would break.
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]

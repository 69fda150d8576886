"""What the benchmarks' LLM says: always the same to the same question, in the form asked for."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any


def question_id(body: dict[str, Any]) -> str:
    """Names a question by its model and first two messages: a repair round is the same question."""
    asked = json.dumps([body["model"], body["messages"][:2]], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:24]


def quoted(body: dict[str, Any], name: str) -> str:
    """What a prompt quotes under `name`; "" where it quotes no such part."""
    found = re.search(rf"<{name}-(\w+)>\n(.*?)\n</{name}-\1>", user_text(body), re.DOTALL)
    return found[2] if found else ""


def user_text(body: dict[str, Any]) -> str:
    """The words of the question, without its picture."""
    content = next(m["content"] for m in body["messages"] if m["role"] == "user")
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def sensible_answer(body: dict[str, Any]) -> str:
    """What a model that does as it is told would answer."""
    post, user = quoted(body, "post"), user_text(body)
    if '"swaps"' in user:
        old = json.loads(quoted(body, "mentions"))[0]
        text = post.replace(old, "Zanzibar")
        return json.dumps({"text": text, "swaps": [[old, "Zanzibar"]], "possible": True})
    if '"things"' in user:
        word = post.split()[0]
        return json.dumps({"things": [{"mention": word, "kind": "word", "explanation": "first"}]})
    return f"On this: {post}"


def completion(text: str | None, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion's body. Tokens are counted as four characters each."""
    said = len(text or "") // 4
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason,
                "message": {"role": "assistant", "content": text, **message},
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": said, "total_tokens": 100 + said},
    }

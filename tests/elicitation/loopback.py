"""A chat completions server on loopback."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any]


class ChatServer:
    """Serves /v1/chat/completions. `reply` turns a request body into a status and an answer text
    (or, as a dict or bytes, the whole body); `requests` holds what came, `keys` the headers."""

    def __init__(self) -> None:
        self.reply: Callable[[dict[str, Any]], Reply] = lambda body: (200, sensible_answer(body))
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(body)
                outer.keys.append(self.headers["Authorization"])
                status, answer = (404, {"error": {"message": "no such path"}})
                if self.path == "/v1/chat/completions":
                    status, answer = outer.reply(body)
                if isinstance(answer, str) and status == 200:
                    answer = completion(answer)
                kind = "text/html" if isinstance(answer, bytes) else "application/json"
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # the client was killed

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def completion(text: str | None, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    return {
        "id": "c1",
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
    }


def part(body: dict[str, Any], name: str) -> str:
    """What a prompt quotes under `name`."""
    user = body["messages"][1]["content"]
    found = re.search(rf"<{name}-(\w+)>\n(.*?)\n</{name}-\1>", user, re.DOTALL)
    return found[2] if found else ""


def sensible_answer(body: dict[str, Any]) -> str:
    """What a model that does as it is told would answer."""
    post = part(body, "post")
    user = body["messages"][1]["content"]
    if '"swaps"' in user:
        old = json.loads(part(body, "mentions"))[0]
        text = post.replace(old, "Zanzibar")
        return json.dumps({"text": text, "swaps": [[old, "Zanzibar"]], "possible": True})
    if '"things"' in user:
        word = post.split()[0]
        return json.dumps({"things": [{"mention": word, "kind": "word", "explanation": "first"}]})
    return f"On this: {post}"

"""The service as a serverless function: `handler(event, context)` answers the events of AWS
Lambda's function URLs and of API Gateway. Bodies, limits and errors are those of app.py.
"""

from __future__ import annotations

import base64
import json
from concurrent.futures import wait
from typing import Any

from pipeline import MAX_BYTES, TIMEOUT, Texts, code, describe_fault, find_problem, start_worker
from pydantic import ValidationError

# Loaded once a process, while the function starts.
_, worker = start_worker()


def handler(event: dict[str, Any], context: Any = None) -> dict[str, Any]:
    """The entities and relations of each text of the body, `{"texts": [...]}`."""
    body = (event.get("body") or "").encode("utf-8", "surrogatepass")
    content = base64.b64decode(body) if event.get("isBase64Encoded") else body
    if len(content) > MAX_BYTES:
        return error(413, f"The body has more than {MAX_BYTES} bytes.")
    try:
        texts = Texts.model_validate_json(content).texts
    except ValidationError as problem:
        return error(422, describe_fault(problem.errors()[0]))
    if problem := find_problem(texts):
        return error(422, problem)
    answers = []
    try:
        for text in texts:
            answers.append(worker.submit(text))
        if wait(answers, TIMEOUT).not_done:
            return error(504, f"The pipeline did not answer within {TIMEOUT:g} s.")
        return reply(200, {"results": [answer.result() for answer in answers]})
    except code.Busy as problem:
        return error(503, str(problem))
    except code.MMCoTError as problem:
        return error(422, str(problem))
    finally:
        for answer in answers:
            answer.cancel()


def error(status: int, message: str) -> dict[str, Any]:
    return reply(status, {"error": {"status": status, "message": message}})


def reply(status: int, content: dict[str, Any]) -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    return {"statusCode": status, "headers": headers, "body": json.dumps(content)}

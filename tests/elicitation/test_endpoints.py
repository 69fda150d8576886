"""The habits of real endpoints, played over HTTP: one odd reply, or some, to the first of four
posts, while the others get good ones. The table in docs/ELICITATION.md names them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from spacy_mmcot.elicitation.client import OpenAISettings, OpenAISource
from spacy_mmcot.elicitation.elicit import ElicitResult, elicit
from spacy_mmcot.elicitation.engine import Ending, Pace
from spacy_mmcot.elicitation.money import read_spend
from spacy_mmcot.elicitation.prompts import QuestionSettings
from spacy_mmcot.elicitation.store import AnswerStore
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import Dimension, Post
from tests.llm_server import LLMServer, completion, quoted, sensible_answer

KEY = "sk-very-secret-0815"
GOOD = json.dumps({"things": [{"mention": "Anna0", "kind": "person", "explanation": "sings"}]})
DRAFT = json.dumps({"things": [{"mention": "Oslo", "kind": "city", "explanation": "perhaps"}]})

pytestmark = pytest.mark.usefixtures("short_waits")


@dataclass
class Case:
    """What an endpoint replies to the first post, one after the other and then the last again. The
    post is answered, or rejected for a reason with `reason` in it and `raw` as its raw answer."""

    name: str
    replies: list[tuple[int, Any]]
    reason: str = ""
    raw: str = ""
    dimension: Dimension = "noun"
    value: str = ""
    requests: int = field(default=0)


def error(http: int, /, **fields: Any) -> tuple[int, Any]:
    return http, {"error": fields}


def said(text: Any, **more: Any) -> tuple[int, Any]:
    finish = more.pop("finish_reason", "stop")
    return 200, completion("x", finish, **more) | {
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text, **more},
            }
        ]
    }


TOO_LONG = "This model's maximum context length is 2048 tokens. However, you requested 9000"
CASES = [
    Case(
        "openai-context",
        [
            error(
                400, message=TOO_LONG, type="invalid_request_error", code="context_length_exceeded"
            )
        ],
        "context_length_exceeded): This model's maximum context length",
        requests=1,
    ),
    Case("openai-refusal", [said(None, refusal="I will not.")], "the model refused", "I will not."),
    Case("openai-busy", [error(429, message="Rate limit", code="rate_limit_exceeded"), said(GOOD)]),
    Case(
        "azure-prompt-filter",
        [
            error(
                400,
                message="The response was filtered due to the prompt",
                type=None,
                param="prompt",
                code="content_filter",
                status=400,
                innererror={"code": "ResponsibleAIPolicyViolation"},
            )
        ],
        "declined (content_filter): The response was filtered",
        requests=1,
    ),
    Case(
        "azure-answer-filter",
        [(200, {"choices": [{"index": 0, "finish_reason": "content_filter"}], "usage": None})],
        "content filter",
        requests=1,
    ),
    Case(
        "azure-forbidden",
        [error(403, message="The picture cannot be read", code="Forbidden")],
        "refused (HTTP 403): The picture cannot be read",
        requests=1,
    ),
    Case(
        "vllm-context",
        [
            (
                400,
                {
                    "object": "error",
                    "message": TOO_LONG,
                    "type": "BadRequestError",
                    "param": None,
                    "code": 400,
                },
            )
        ],
        "maximum context length",
        requests=1,
    ),
    Case(
        "vllm-picture",
        [(400, {"object": "error", "message": "cannot identify image file", "code": 400})],
        "refused (HTTP 400): cannot identify image file",
        requests=1,
    ),
    Case("vllm-reasoning", [said(GOOD, reasoning_content=f"Hm, {DRAFT}", tool_calls=[])]),
    Case(
        "vllm-reasoning-alone",
        [said(None, reasoning_content="Hm, who is Anna?")],
        "no text, only reasoning_content",
        "Hm, who is Anna?",
        requests=2,
    ),
    Case("vllm-aborted", [said("", finish_reason="abort"), said(GOOD)]),
    Case("ollama-think", [said(f"<think>\nIs it {DRAFT}?\n</think>\n\n{GOOD}")]),
    Case("ollama-reasoning", [said(GOOD, reasoning="It names a person.")]),
    Case(
        "ollama-think-text",
        [said("<think>It sings.</think>\nA concert.")],
        dimension="sentence",
        value="A concert.",
    ),
    Case(
        "llama.cpp-context",
        [
            error(
                400,
                code=400,
                message="the request exceeds the available context size, try increasing it",
                type="exceed_context_size_error",
                n_prompt_tokens=9000,
                n_ctx=4096,
            )
        ],
        "exceed_context_size_error): the request exceeds",
        requests=1,
    ),
    Case(
        "llama.cpp-context-500",
        [error(500, code=500, message="Context size has been exceeded.", type="server_error")],
        "Context size has been exceeded",
        requests=1,
    ),
    Case(
        "llama.cpp-loading",
        [error(503, code=503, message="Loading model", type="unavailable_error"), said(GOOD)],
    ),
    Case(
        "gpt-oss",
        [
            said(
                f"<|channel|>analysis<|message|>Perhaps {DRAFT}<|end|><|start|>assistant"
                f"<|channel|>final<|message|>{GOOD}<|return|>"
            )
        ],
    ),
    Case(
        "gpt-oss-text",
        [said("<|channel|>analysis<|message|>Hm.<|end|><|channel|>final<|message|>A concert.")],
        dimension="sentence",
        value="A concert.",
    ),
    Case(
        "lm-studio-context",
        [(400, {"error": "Trying to keep the first 9000 tokens when context length is 4096"})],
        "Trying to keep the first 9000 tokens",
        requests=1,
    ),
    Case("lm-studio-error-in-200", [(200, {"error": "Model is unloaded."}), said(GOOD)]),
    Case(
        "groq-json",
        [
            error(
                400,
                message="Failed to generate JSON. See 'failed_generation' for more details.",
                type="invalid_request_error",
                code="json_validate_failed",
                failed_generation='{"things": [{"mention"',
            ),
            said(GOOD),
        ],
        requests=2,
    ),
    Case(
        "groq-json-twice",
        [error(400, message="Failed", code="json_validate_failed", failed_generation='{"thing')],
        "json_validate_failed",
        '{"thing',
        requests=2,
    ),
    Case(
        "openrouter-error-in-choice",
        [
            (
                200,
                {
                    "id": "gen-1",
                    "choices": [
                        {
                            "error": {"code": 502, "message": "Provider disconnected"},
                            "finish_reason": "error",
                            "native_finish_reason": "error",
                            "message": {"role": "assistant", "content": GOOD[:20]},
                        }
                    ],
                },
            ),
            said(GOOD),
        ],
    ),
    Case(
        "openrouter-error-in-200",
        [(200, {"error": {"code": 429, "message": "rate-limited upstream"}}), said(GOOD)],
    ),
    Case(
        "openrouter-choices-null",
        [(200, {"id": "x", "choices": None, "error": {"code": 503, "message": "z"}}), said(GOOD)],
    ),
    Case(
        "openrouter-moderation",
        [
            error(
                403,
                code=403,
                message="Input was flagged",
                metadata={"reasons": ["violence"], "flagged_input": "Anna", "provider_name": "x"},
            )
        ],
        "refused (HTTP 403): Input was flagged",
        requests=1,
    ),
    Case(
        "openrouter-provider",
        [error(400, code=400, message="Provider returned error", metadata={"raw": "bad picture"})],
        "Provider returned error (bad picture)",
        requests=1,
    ),
    Case(
        "mistral-thinking",
        [
            said(
                [
                    {"type": "thinking", "thinking": [{"type": "text", "text": f"Or {DRAFT}"}]},
                    {"type": "text", "text": GOOD},
                ]
            )
        ],
    ),
    Case(
        "mistral-thinking-alone",
        [said([{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}])],
        "no text, only content",
        '[{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]',
        requests=2,
    ),
    Case("mistral-parts", [said([{"type": "text", "text": GOOD[:9]}, GOOD[9:]])]),
    Case("mistral-think-tags", [said(f"[THINK]{DRAFT}[/THINK]{GOOD}")]),
    Case("mistral-length", [said(GOOD[:9], finish_reason="model_length")], "cut off", GOOD[:9]),
    Case("deepseek-reasoning", [said(GOOD, reasoning_content=f"First {DRAFT}")]),
    Case(
        "deepseek-empty",
        [said("", reasoning_content="Hm.")],
        "no text, only reasoning_content",
        "Hm.",
        requests=2,
    ),
    Case("deepseek-overload", [said("", finish_reason="insufficient_system_resource"), said(GOOD)]),
    Case("an-object-for-a-text", [said(json.loads(GOOD))]),
    Case("a-list-for-a-text", [said(json.loads(GOOD)["things"])]),
    Case(
        "a-tool",
        [said(None, tool_calls=[{"id": "1", "function": {"name": "f"}}])],
        "no text, only tool_calls",
        '[{"id": "1", "function": {"name": "f"}}]',
    ),
    Case(
        "half-a-character",
        [said(GOOD.replace("sings", "\\ud83d"))],
        "halves",
        GOOD.replace("sings", "\\ud83d"),
    ),
    Case(
        "no-structured-outputs",
        [
            error(400, message="Structured outputs are not supported by this model"),
            error(422, message="JSON mode is not supported"),
            said(GOOD),
        ],
    ),
    Case("a-number", [said(7)], "no text, only content", "7"),
    Case("gemini-list", [(400, [{"error": {"code": 400, "message": "No."}}])], "HTTP 400): No"),
    Case("fastapi", [(422, {"detail": [{"loc": ["body"], "msg": "too odd"}]})], "too odd"),
    Case("plain-text", [(413, b"<h1>Too large</h1>")], "HTTP 413): <h1>Too large</h1>"),
]


def play(
    server: LLMServer, store: AnswerStore, posts: list[Post], case: Case, **options: Any
) -> ElicitResult:
    replies = iter(case.replies)
    last = case.replies[-1]

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        if quoted(body, "post") == posts[0].text:
            return next(replies, last)
        return 200, sensible_answer(body)

    server.reply = reply
    source = OpenAISource(OpenAISettings("gpt-4o-mini", server.url, KEY))
    settings = QuestionSettings.of(case.dimension)
    return elicit(posts, store, source, settings, pace=Pace(workers=1), **options)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_habits_of_endpoints(
    llm_server: LLMServer, store: AnswerStore, posts: list[Post], case: Case
) -> None:
    result = play(llm_server, store, posts[:4], case)
    total = result.report.total()
    assert result.ending is Ending.DONE
    assert (total.stored, total.rejected, total.missing) == (
        (3, 1, 0) if case.reason else (4, 0, 0)
    )
    if case.reason:
        (kept,) = store.rejected()
        assert kept.post_id == "p0" and case.reason in (kept.reason or "")
        assert kept.raw == case.raw
    elif case.dimension == "noun":
        (noun,) = store.answers()["p0"].noun or []
        assert noun.mention == "Anna0"
    else:
        assert getattr(store.answers()["p0"], case.dimension) == case.value
    assert len(llm_server.requests) - 3 == (case.requests or len(llm_server.requests) - 3)
    again = play(llm_server, store, posts[:4], case)
    assert again.report.total().asked == 0


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((404, b""), r"E313.+404: Not Found\. Check --model, --base-url"),
        (error(404, message="model 'm' not found, try pulling it first"), r"E313.+404.+not found"),
        (error(402, code=402, message="Insufficient credits"), "E313.+402: Insufficient credits"),
        (error(401, message=f"Incorrect API key provided: {KEY}"), r"E311.+HTTP 401\)"),
        (error(403, message="This project has no access"), "E311.+HTTP 403: This project has no"),
        (error(429, message="You exceeded your quota", code="insufficient_quota"), "E313.+429"),
        (error(400, message="temperature must be at most 1"), "E313.+400: temperature must"),
        ((200, {"object": "list", "data": []}), "E314.+choices.+list"),
        ((200, {"message": "Welcome to the API"}), "E314.+Welcome to the API"),
    ],
)
def test_what_every_request_gets_ends_the_run_with_the_endpoints_words(
    llm_server: LLMServer, store: AnswerStore, posts: list[Post], reply: Any, words: str
) -> None:
    llm_server.reply = lambda body: reply
    source = OpenAISource(OpenAISettings("m", llm_server.url, KEY))
    with pytest.raises(MMCoTError, match=words) as caught:
        elicit(posts, store, source, QuestionSettings.of("noun"), pace=Pace(workers=2))
    assert KEY not in str(caught.value)
    assert store.rejected() == [] and store.answers() == {}
    # Nothing of it stays: the run goes on once the cause is gone.
    llm_server.reply = None
    assert elicit(posts, store, source, QuestionSettings.of("noun")).report.total().stored == 12


def test_an_endpoint_that_starts_to_refuse_everything_ends_the_run(
    llm_server: LLMServer, store: AnswerStore, posts: list[Post]
) -> None:
    many = [
        p.model_copy(update={"id": f"q{i}", "text": f"{p.text} {i}"})
        for i in range(3)
        for p in posts
    ]
    many = [
        p.model_copy(update={"id": str(i), "text": f"{p.text} {i}"}) for i, p in enumerate(many)
    ]
    good = iter(range(4))
    llm_server.reply = lambda body: (
        (200, sensible_answer(body)) if next(good, None) is not None else error(403, message="gone")
    )
    source = OpenAISource(OpenAISettings("m", llm_server.url, KEY))
    with pytest.raises(MMCoTError, match=r"E311.+gone"):
        elicit(many, store, source, QuestionSettings.of("noun"), pace=Pace(workers=1))
    assert len(store.answers()) == 4 and store.rejected() == []


def test_azures_address_key_and_version(
    llm_server: LLMServer, store: AnswerStore, posts: list[Post]
) -> None:
    url = f"{llm_server.url}/openai/deployments/mini?api-version=2024-10-21"
    source = OpenAISource(OpenAISettings("mini", url, KEY))
    assert elicit(posts[:1], store, source, QuestionSettings.of("noun")).report.total().stored == 1
    line, *fields = llm_server.heads[0].decode().split("\r\n")
    path = "/v1/openai/deployments/mini/chat/completions?api-version=2024-10-21"
    assert line.split()[1] == path
    assert f"api-key: {KEY}" in {f"{k.lower()}: {v}" for k, v in (f.split(": ", 1) for f in fields)}


NO_COUNTS = (None, "100", True, -1, 2**63, 2**70, 1.5, float("nan"), float("inf"), [], {})


@pytest.mark.parametrize(
    ("usage", "booked"),
    [
        ({"prompt_tokens": 100, "completion_tokens": 20}, (100, 0, 20)),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 64},
            },
            (100, 64, 20),
        ),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 10**9},
            },
            (100, 0, 20),
        ),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 900},
            },
            (100, 100, 20),
        ),
        (
            {"prompt_tokens": 100, "completion_tokens": 20, "prompt_cache_hit_tokens": 50},
            (100, 50, 20),
        ),
        *(
            ({"prompt_tokens": bad, "completion_tokens": 20}, None)
            for bad in (
                None,
                "100",
                True,
                -1,
                2**63,
                2**70,
                1.5,
                float("nan"),
                float("inf"),
                [],
                {},
            )
        ),
        ({"prompt_tokens": 100}, None),
        ("many", None),
        (None, None),
        ([1, 2], None),
    ],
)
def test_counts_of_tokens_that_can_be_none_are_booked_by_estimate(
    llm_server: LLMServer, store: AnswerStore, posts: list[Post], usage: Any, booked: Any
) -> None:
    body = completion(GOOD) | {"usage": usage}
    case = Case("usage", [(200, body)])
    assert play(llm_server, store, posts[:1], case).report.total().stored == 1
    (row,) = read_spend(store)
    assert row.requests == 1 and row.cost + row.unconfirmed < 0.01
    counts = (row.input_tokens, row.cached_tokens, row.output_tokens)
    assert counts == (booked or (0, 0, 0))
    assert (row.unconfirmed > 0) == (booked is None)


@pytest.mark.parametrize("wish", ["inf", "-inf", "nan", "-5", "soon", "", "1e400", "Thu, 99 Foo"])
def test_wishes_to_wait_that_are_none_are_left_out(
    llm_server: LLMServer, store: AnswerStore, posts: list[Post], wish: str
) -> None:
    llm_server.headers = {"Retry-After": wish}
    case = Case("wait", [error(429, message="busy"), said(GOOD)])
    assert play(llm_server, store, posts[:1], case).report.total().stored == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"code": ["a"], "message": "busy"},
        {"code": {"a": 1}, "message": {"text": "busy"}},
        {"code": True, "message": 5},
        {"message": None, "type": 7, "metadata": "none", "innererror": []},
    ],
)
def test_errors_of_any_form_are_tried_again(
    llm_server: LLMServer, store: AnswerStore, posts: list[Post], fault: Any
) -> None:
    case = Case("form", [(500, {"error": fault}), (200, {"error": fault}), said(GOOD)])
    assert play(llm_server, store, posts[:1], case).report.total().stored == 1
    assert len(llm_server.requests) == 3


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body | {"choices": "none"},
        lambda body: body | {"choices": [None]},
        lambda body: body | {"choices": [{"message": None}]},
        lambda body: body | {"choices": [{"message": "hello"}]},
        lambda body: "hello",
        lambda body: 5,
    ],
)
def test_a_reply_of_another_form_after_good_ones_is_tried_again(
    llm_server: LLMServer, store: AnswerStore, posts: list[Post], change: Change
) -> None:
    strange = json.dumps(change(completion(GOOD))).encode()
    seen: list[str] = []

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        seen.append(quoted(body, "post"))
        strange_now = seen[-1] == posts[2].text and seen.count(posts[2].text) == 1
        return 200, strange if strange_now else sensible_answer(body)

    llm_server.reply = reply
    source = OpenAISource(OpenAISettings("m", llm_server.url, KEY))
    result = elicit(posts[:4], store, source, QuestionSettings.of("noun"), pace=Pace(workers=1))
    assert result.report.total().stored == 4

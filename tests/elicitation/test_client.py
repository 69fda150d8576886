"""The source `openai` against a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import itertools
import socket
from typing import Any

import pytest

from spacy_mmcot.elicitation.client import OpenAISettings, OpenAISource
from spacy_mmcot.elicitation.elicit import elicit
from spacy_mmcot.elicitation.engine import Pace
from spacy_mmcot.elicitation.money import read_total_spend
from spacy_mmcot.elicitation.prompts import QuestionSettings
from spacy_mmcot.elicitation.store import AnswerStore
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import DIMENSIONS, Post
from tests.llm_server import LLMServer, completion, quoted, sensible_answer

KEY = "sk-very-secret-0815"

pytestmark = pytest.mark.usefixtures("short_waits")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def source(server: LLMServer, **options: Any) -> OpenAISource:
    return OpenAISource(OpenAISettings("m", base_url=server.url, api_key=KEY, **options))


def test_good_answers_of_all_dimensions(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    report = elicit(posts, store, source(llm_server, temperature=0.0)).report
    assert list(report.counts) == [name for name in DIMENSIONS if name != "conclusion"]
    for counts in report.counts.values():
        assert (counts.asked, counts.stored) == (12, 12)
    answers = store.answers()["p3"]
    assert answers.noun is not None and answers.noun[0].mention == "Anna3"
    assert answers.entity is not None and answers.entity.text == "Zanzibar sings in Oslo tonight"
    assert answers.style == "On this: Anna3 sings in Oslo tonight"
    assert set(llm_server.keys) == {f"Bearer {KEY}"}
    for body in llm_server.requests:
        user = body["messages"][1]["content"]
        wants_json = '"things"' in user or '"swaps"' in user
        assert ("response_format" in body) == wants_json
        assert body["model"] == "m" and body["temperature"] == 0.0


def test_temperature_is_left_to_the_endpoint_by_default(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    elicit(posts[:1], store, source(llm_server), settings=QuestionSettings.of("sentence"))
    assert "temperature" not in llm_server.requests[0]


def test_settings_come_from_the_environment(
    llm_server: LLMServer,
    posts: list[Post],
    store: AnswerStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    monkeypatch.setenv("OPENAI_BASE_URL", llm_server.url)
    elicit(
        posts[:1],
        store,
        OpenAISource(OpenAISettings("m")),
        settings=QuestionSettings.of("sentence"),
    )
    assert llm_server.keys == [f"Bearer {KEY}"]


def test_fenced_json_is_read(llm_server: LLMServer, posts: list[Post], store: AnswerStore) -> None:
    llm_server.reply = lambda body: (200, f"Sure!\n```json\n{sensible_answer(body)}\n```\nBye.")
    counts = elicit(
        posts, store, source(llm_server), settings=QuestionSettings.of("noun", "entity")
    ).report.total()
    assert counts.stored == 24


def test_what_stays_useless_is_kept_with_its_reason_and_not_asked_again(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    replies: dict[str, Any] = {
        "p0": '{"things": [{"name": "Anna0"}]}',
        "p1": "I would rather not.",
        "p2": completion('{"things": [{"ment', finish_reason="length"),
        "p3": completion(None, finish_reason="content_filter"),
        "p4": completion(None, refusal="No."),
        "p5": completion(""),
    }
    by_text = {post.text: replies.get(post.id) for post in posts}
    llm_server.reply = lambda body: (200, by_text[quoted(body, "post")] or sensible_answer(body))
    counts = elicit(
        posts, store, source(llm_server), settings=QuestionSettings.of("noun")
    ).report.total()
    assert (counts.asked, counts.stored, counts.rejected) == (12, 6, 6)
    rejected = {answer.post_id: answer for answer in store.rejected()}
    reasons = {name: answer.reason or "" for name, answer in rejected.items()}
    assert "mention is missing" in reasons["p0"]
    assert "no JSON" in reasons["p1"] and rejected["p1"].raw == "I would rather not."
    assert "cut off" in reasons["p2"] and rejected["p2"].raw == '{"things": [{"ment'
    assert "content filter" in reasons["p3"]
    assert "refused" in reasons["p4"] and rejected["p4"].raw == "No."
    assert "empty" in reasons["p5"]
    # All but the content filter's, which would say the same again, had a repair round.
    assert len(llm_server.requests) == 17
    again = elicit(
        posts, store, source(llm_server), settings=QuestionSettings.of("noun")
    ).report.total()
    assert (again.asked, again.already_there, again.rejected) == (0, 6, 6)
    assert len(llm_server.requests) == 17


def test_a_declined_post_does_not_stop_the_others(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    fault = {"error": {"message": "too hot", "code": "content_filter"}}
    llm_server.reply = lambda body: (
        (400, fault) if "Anna4" in quoted(body, "post") else (200, sensible_answer(body))
    )
    counts = elicit(
        posts, store, source(llm_server), settings=QuestionSettings.of("sentence")
    ).report.total()
    assert (counts.stored, counts.rejected) == (11, 1)
    assert store.rejected()[0].reason == "the endpoint declined (content_filter): too hot"


def test_a_failing_server_is_tried_again(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    seen: list[str] = []

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        post = quoted(body, "post")
        seen.append(post)
        if seen.count(post) == 1:
            return (500, {"error": {"message": "busy"}})
        return (200, sensible_answer(body))

    llm_server.reply = reply
    counts = elicit(
        posts[:2], store, source(llm_server), settings=QuestionSettings.of("noun")
    ).report.total()
    assert (counts.asked, counts.stored) == (2, 2)
    assert len(llm_server.requests) == 4


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, {"error": {"message": f"Incorrect API key: {KEY}"}}, "E311.+HTTP 401"),
        (403, {"error": {"message": f"{KEY} may not"}}, "E311.+HTTP 403"),
        (404, {"error": {"message": f"no model m for {KEY}"}}, r"E313.+'p\d'.+404: no model m"),
        (400, {"error": "temperature"}, "E313.+400: temperature"),
        (429, {"error": {"message": "x", "code": "insufficient_quota"}}, "E313.+429: x"),
        (307, {}, "E314.+it redirects to"),
        (200, b"<html>Welcome</html>", "E314.+/v1"),
        (200, {"hello": 1}, "E314.+choices"),
        (200, {"choices": [7]}, "E314.+choices"),
        (200, [1, 2], "E314"),
        (200, None, "E314"),
    ],
)
def test_an_endpoint_that_cannot_be_used_ends_in_one_clear_error(
    llm_server: LLMServer,
    posts: list[Post],
    store: AnswerStore,
    status: int,
    body: Any,
    message: str,
) -> None:
    llm_server.reply = lambda _: (status, body)
    with pytest.raises(MMCoTError, match=message) as caught:
        elicit(
            posts,
            store,
            source(llm_server),
            settings=QuestionSettings.of("noun"),
            pace=Pace(workers=3),
        )
    assert KEY not in str(caught.value)
    assert llm_server.url in str(caught.value)
    # What may be a fault of some posts takes all twelve to be sure.
    assert len(llm_server.requests) <= (12 if status in (400, 403) else 3)
    assert store.answers() == {} and store.rejected() == []
    assert KEY.encode() not in store.path.read_bytes()


def test_a_server_that_dies_midway_leaves_what_was_answered(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    number = itertools.count()
    llm_server.reply = lambda body: (200, sensible_answer(body)) if next(number) < 5 else (500, {})
    impatient = Pace(workers=2, patience=0.3)
    with pytest.raises(MMCoTError, match=r"E312.+HTTP 500"):
        elicit(
            posts,
            store,
            source(llm_server),
            settings=QuestionSettings.of("sentence"),
            pace=impatient,
        )
    assert len(store.answers()) == 5
    llm_server.reply = lambda body: (200, sensible_answer(body))
    counts = elicit(
        posts, store, source(llm_server), settings=QuestionSettings.of("sentence")
    ).report.total()
    assert (counts.asked, counts.stored, counts.already_there) == (7, 7, 5)


def test_connection_refused(posts: list[Post], store: AnswerStore) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://user:pass@127.0.0.1:{free.getsockname()[1]}/v1?token=hidden"
    asked = OpenAISource(OpenAISettings("m", base_url=url, api_key=KEY))
    with pytest.raises(MMCoTError, match=r"E312.+http://127\.0\.0\.1:\d+/v1") as caught:
        elicit(posts, store, asked, pace=Pace(workers=8, patience=0.5))
    assert read_total_spend(store) == 0
    assert not any(secret in str(caught.value) for secret in (KEY, "pass", "hidden"))


def test_a_server_that_does_not_answer_in_time(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    import time

    llm_server.reply = lambda body: (time.sleep(0.4), (200, "late"))[1]
    late = source(llm_server, timeout=0.2)
    result = elicit(
        posts[:1], store, late, settings=QuestionSettings.of("sentence"), pace=Pace(tries=2)
    )
    assert result.report.total().missing == 1
    assert result.report.unanswered == {"no answer in 0.2 s": 1}
    assert store.answers() == {} and store.rejected() == []


def test_as_many_questions_in_flight_as_workers(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    import threading
    import time

    lock, now, most = threading.Lock(), 0, 0

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        return (200, sensible_answer(body))

    llm_server.reply = reply
    names = ["sentence", "noun"]
    elicit(
        posts, store, source(llm_server), settings=QuestionSettings.of(*names), pace=Pace(workers=3)
    )
    assert most == 3


def test_equal_questions_are_asked_once(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    twins = [posts[0].model_copy(update={"id": name}) for name in ("a", "b", "c")]
    counts = elicit(
        twins[:2], store, source(llm_server), settings=QuestionSettings.of("noun")
    ).report.total()
    assert (counts.asked, counts.stored) == (1, 2)
    counts = elicit(
        twins, store, source(llm_server), settings=QuestionSettings.of("noun")
    ).report.total()
    assert (counts.asked, counts.stored, counts.already_there) == (0, 0, 3)
    assert len(llm_server.requests) == 1
    assert len({a.noun[0] for a in store.answers().values() if a.noun}) == 1
    assert set(store.answers()) == {"a", "b", "c"}


def test_another_model_or_temperature_is_asked_anew(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    for asked in (
        source(llm_server),
        source(llm_server, temperature=0.5),
        OpenAISource(OpenAISettings("m2", base_url=llm_server.url, api_key=KEY)),
    ):
        counts = elicit(
            posts[:1], store, asked, settings=QuestionSettings.of("noun")
        ).report.total()
        assert counts.asked == 1


@pytest.mark.parametrize("key", ["", "  ", "sk-a\nb", "sk-ключ"])
def test_unusable_keys(key: str) -> None:
    with pytest.raises(MMCoTError, match=r"E310.+OPENAI_API_KEY") as caught:
        OpenAISource(OpenAISettings("m", api_key=key))
    assert not key.strip() or key not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://h:x/v1"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(MMCoTError, match=r"E315.+http://HOST:PORT/v1"):
        OpenAISource(OpenAISettings("m", base_url=url, api_key=KEY))


def test_the_constructor_stays_off_the_network(llm_server: LLMServer) -> None:
    made = source(llm_server)
    asyncio.run(made.close())
    assert llm_server.requests == []

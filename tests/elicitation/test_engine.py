"""The engine on a server that fails: retries, budget, breaker, time limits, shared stores."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from spacy_mmcot.elicitation.client import OpenAISettings, OpenAISource
from spacy_mmcot.elicitation.elicit import elicit
from spacy_mmcot.elicitation.engine import Ending, Pace
from spacy_mmcot.elicitation.money import Prices, read_spend, read_total_spend
from spacy_mmcot.elicitation.prompts import QuestionSettings
from spacy_mmcot.elicitation.store import AnswerStore
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import Post
from tests.llm_server import FAULTS, LLMServer, completion, quoted, sensible_answer

KEY = "sk-very-secret-0815"

pytestmark = pytest.mark.usefixtures("short_waits")


def source(server: LLMServer, model: str = "gpt-4o-mini", **more: Any) -> OpenAISource:
    return OpenAISource(OpenAISettings(model, base_url=server.url, api_key=KEY, **more))


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_overcome(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore, fault: str
) -> None:
    llm_server.configure(rate=0.4, kinds=[fault], seed=3)
    pace = Pace(workers=12, tries=30)
    # Long enough for a busy machine, but for what has to be waited for.
    asked = source(llm_server, timeout=1.0 if fault in ("hang", "drip") else 30)
    result = elicit(posts, store, asked, settings=QuestionSettings.of("noun", "style"), pace=pace)
    total = result.report.total()
    seen = llm_server.seen()
    assert (total.stored, total.rejected, total.missing) == (24, 0, 0)
    assert seen["faults"].get(fault, 0) >= 3
    assert seen["requests"] == 24 + sum(seen["faults"].values())
    assert set(seen["sold"].values()) == {1}


def test_retry_after_is_honoured(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    times: list[float] = []

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        times.append(time.monotonic())
        return (429, {"error": {}}) if len(times) == 1 else (200, sensible_answer(body))

    llm_server.reply = reply
    llm_server.headers = {"Retry-After-Ms": "500"}
    result = elicit(posts[:1], store, source(llm_server), settings=QuestionSettings.of("sentence"))
    assert result.report.total().stored == 1
    assert 0.5 <= times[1] - times[0] < 1.5


def test_retry_after_may_be_a_date(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    llm_server.reply = lambda body: (429, {"error": {"message": "busy"}})
    llm_server.headers = {"Retry-After": formatdate(time.time() + 7200, usegmt=True)}
    with pytest.raises(MMCoTError, match=r"E316.+wait (7200|7199) s"):
        elicit(posts, store, source(llm_server), settings=QuestionSettings.of("sentence"))


def test_a_wish_to_wait_for_hours_ends_the_run(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    llm_server.reply = lambda body: (429, {"error": {"message": "daily quota"}})
    llm_server.headers = {"Retry-After": "3600"}
    with pytest.raises(MMCoTError, match=r"E316.+wait 3600 s.+120 s"):
        elicit(posts, store, source(llm_server), settings=QuestionSettings.of("sentence"))


def test_the_breaker_spares_a_server_that_is_down_and_finds_it_back(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    down = threading.Event()
    answered = 0

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        nonlocal answered
        if down.is_set():
            return (503, {})
        answered += 1
        if answered == 20:
            down.set()
            threading.Timer(0.5, down.clear).start()
        return (200, sensible_answer(body))

    llm_server.reply = reply
    pace = Pace(workers=12, tries=20)
    result = elicit(posts, store, source(llm_server), pace=pace)
    assert (result.ending, result.report.total().stored) == (Ending.DONE, 72)
    # Twelve workers that each come back by themselves would have asked about eighty times.
    assert len(llm_server.requests) - 72 < 45


def test_a_budget_is_kept_and_a_larger_one_goes_on(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    llm_server.configure(latency=0.01)
    price = Prices().find("gpt-4o-mini")
    assert price is not None
    cap, workers = 0.0007, 4
    result = elicit(posts, store, source(llm_server), pace=Pace(workers=workers), budget=cap)
    assert result.ending is Ending.BUDGET
    assert (
        result.cost == pytest.approx(read_total_spend(store))
        and 0.5 * cap < read_total_spend(store) <= cap
    )
    kept = sum(len(a.model_fields_set) - 1 for a in store.answers().values())
    assert 0 < kept == sum(llm_server.seen()["sold"].values()) < 72
    # The cap holds for the store, not for a run.
    again = elicit(posts, store, source(llm_server), budget=cap)
    assert again.ending is Ending.BUDGET and again.report.total().asked <= 2
    larger = elicit(posts, store, source(llm_server), budget=1.0)
    assert larger.ending is Ending.DONE
    assert set(llm_server.seen()["sold"].values()) == {1}
    assert sum(llm_server.seen()["sold"].values()) == 72


def test_the_ledger_books_what_the_endpoint_counts_by_run_model_and_dimension(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 200,
        "prompt_tokens_details": {"cached_tokens": 400},
    }
    llm_server.reply = lambda body: (200, completion(sensible_answer(body)) | {"usage": usage})
    asked, large = source(llm_server), source(llm_server, "gpt-4o")
    elicit(posts, store, asked, settings=QuestionSettings.of("noun", "sentence"))
    elicit(posts, store, large, settings=QuestionSettings.of("style"))
    rows = {(row.model, row.dimension): row for row in read_spend(store)}
    assert set(rows) == {
        ("gpt-4o-mini", "noun"),
        ("gpt-4o", "style"),
        ("gpt-4o-mini", "sentence"),
    }
    assert rows["gpt-4o-mini", "noun"].run != rows["gpt-4o", "style"].run
    assert rows["gpt-4o-mini", "noun"].run == rows["gpt-4o-mini", "sentence"].run
    style = rows["gpt-4o", "style"]
    counts = (style.requests, style.input_tokens, style.cached_tokens, style.output_tokens)
    assert counts == (12, 12_000, 4_800, 2_400)
    assert style.cost == pytest.approx(12 * (600 * 2.5 + 400 * 1.25 + 200 * 10) / 1e6)
    assert style.unconfirmed == 0


def test_what_may_have_been_charged_is_booked_as_unconfirmed(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    half = json.dumps(completion("On this"))[:100].encode()
    llm_server.reply = lambda body: (200, half)
    result = elicit(
        posts[:1],
        store,
        source(llm_server),
        settings=QuestionSettings.of("sentence"),
        pace=Pace(tries=2),
    )
    assert result.report.total().missing == 1
    (row,) = read_spend(store)
    assert (
        row.requests == 2
        and row.cost == 0
        and row.unconfirmed == pytest.approx(read_total_spend(store))
    )
    assert row.unconfirmed > 0


def test_a_repair_round_shows_the_error_and_is_paid_for_once(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    bad = '{"things": [{"mention": "Anna0"}]}'
    llm_server.reply = lambda body: (
        (200, bad) if len(body["messages"]) == 2 else (200, sensible_answer(body))
    )
    result = elicit(posts[:1], store, source(llm_server), settings=QuestionSettings.of("noun"))
    assert (result.report.total().stored, result.report.total().repaired) == (1, 1)
    first, second = llm_server.requests
    assert second["messages"][:2] == first["messages"]
    assert second["messages"][2] == {"role": "assistant", "content": bad}
    assert "kind is missing" in second["messages"][3]["content"]
    assert second["messages"][3]["role"] == "user"


@pytest.mark.slow
def test_a_run_that_died_before_the_repair_round_does_not_buy_the_first_answer_again(
    llm_server: LLMServer, posts: list[Post], tmp_path: Path
) -> None:
    path = tmp_path / "answers.sqlite"
    script = f"""
import os
from pathlib import Path
from spacy_mmcot.elicitation import questions as module
from spacy_mmcot.elicitation.client import OpenAISettings, OpenAISource
from spacy_mmcot.elicitation.elicit import elicit
from spacy_mmcot.elicitation.prompts import QuestionSettings
from spacy_mmcot.elicitation.store import AnswerStore
from spacy_mmcot.types import Post
post = Post.model_validate_json({posts[0].model_dump_json()!r})
class Dies(OpenAISource):
    async def ask(self, prompt):
        if len(prompt.messages) > 2:
            os.kill(os.getpid(), 9)
        return await super().ask(prompt)
source = Dies(OpenAISettings("m", base_url={llm_server.url!r}, api_key="sk-test-0815"))
elicit([post], AnswerStore(Path({str(path)!r})), source, settings=QuestionSettings.of("noun"))
"""
    llm_server.reply = lambda body: (
        (200, "no JSON here") if len(body["messages"]) == 2 else (200, sensible_answer(body))
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert len(llm_server.requests) == 1
    with AnswerStore(path) as store:
        result = elicit(
            posts[:1], store, source(llm_server, "m"), settings=QuestionSettings.of("noun")
        )
        assert result.report.total().repaired == 1
        assert [len(body["messages"]) for body in llm_server.requests] == [2, 4]
        assert store.connection.execute("SELECT count(*) FROM attempts").fetchone() == (0,)


def test_the_run_timeout_keeps_what_is_in_flight(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    llm_server.configure(latency=0.2)
    pace = Pace(workers=2, run_timeout=0.5)
    result = elicit(posts, store, source(llm_server), pace=pace)
    assert result.ending is Ending.TIME
    stored = result.report.total().stored
    assert 4 <= stored <= 8 and stored == sum(llm_server.seen()["sold"].values())


def test_rates_are_kept(llm_server: LLMServer, posts: list[Post], store: AnswerStore) -> None:
    pace = Pace(workers=20, requests_per_minute=1200)
    started = time.monotonic()
    elicit(
        posts, store, source(llm_server), settings=QuestionSettings.of("noun", "style"), pace=pace
    )
    # Twenty a second after a burst of twenty.
    assert time.monotonic() - started > 0.19


def test_the_store_does_not_depend_on_timing(
    llm_server: LLMServer, posts: list[Post], tmp_path: Path
) -> None:
    contents = []
    for slow in ("Anna0 ", "Anna7 "):
        llm_server.reply = lambda body, slow=slow: (  # type: ignore[misc]
            time.sleep(0.2 if slow in quoted(body, "post") else 0),
            (200, sensible_answer(body)),
        )[1]
        with AnswerStore(tmp_path / f"{slow.strip()}.sqlite") as store:
            elicit(posts, store, source(llm_server), pace=Pace(workers=6))
            contents.append((list(store.iter_all()), list(store.answers().items())))
    assert contents[0] == contents[1]


def test_processes_that_share_a_store_buy_each_answer_once(
    llm_server: LLMServer, tmp_path: Path
) -> None:
    from benchmarks.elicit_runs import finished, start

    llm_server.configure(latency=0.05)
    path = tmp_path / "answers.sqlite"
    runs = [start(llm_server.url, path, 10, 8, 30.0) for _ in range(2)]
    ends = [finished(run) for run in runs]
    assert [end["stored"] for end in ends] == [60, 60]
    assert sum(end["asked"] for end in ends) == 60
    assert set(llm_server.seen()["sold"].values()) == {1}


def test_pieces_of_json_schema_support_are_found_out(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        asked = body.get("response_format", {}).get("type")
        if asked == "json_schema":
            message = "response_format.type json_schema is not supported"
            return (400, {"error": {"message": message}})
        return (200, sensible_answer(body))

    llm_server.reply = reply
    asked = source(llm_server)
    result = elicit(posts, store, asked, settings=QuestionSettings.of("noun"), pace=Pace(workers=1))
    assert result.report.total().stored == 12
    formats = [body.get("response_format", {}).get("type") for body in llm_server.requests]
    assert formats == ["json_schema"] + ["json_object"] * 12
    # What is granted is no part of the question: nothing is asked again.
    llm_server.reply = lambda body: (200, sensible_answer(body))
    assert (
        elicit(posts, store, source(llm_server), settings=QuestionSettings.of("noun"))
        .report.total()
        .asked
        == 0
    )


def test_variants_are_questions_of_their_own(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    result = elicit(
        posts,
        store,
        source(llm_server),
        settings=QuestionSettings(variants={"noun": 1, "style": 3}),
    )
    assert result.report.counts["style"].stored == 36
    for variant in range(3):
        answers = store.answers(variant=variant)
        assert all(a.style and a.noun for a in answers.values()) and len(answers) == 12
    assert all(a.style is None for a in store.answers(variant=3).values())


@pytest.mark.parametrize("first", [None, "", "  \n", "no JSON", "<think>" + "so " * 20_000, [], {}])
def test_a_repair_is_one_that_any_chat_template_takes(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore, first: Any
) -> None:
    """Templates that want user and assistant in turns, no empty message, and not too long a one."""

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        roles = [message["role"] for message in body["messages"]]
        texts = [message["content"] for message in body["messages"]]
        good = roles in (["system", "user"], ["system", "user", "assistant", "user"])
        if not good or not all(text.strip() and len(text) < 25_000 for text in texts):
            return 400, {"error": {"message": "roles must alternate", "code": 400}}
        if len(roles) == 2:
            return 200, completion(first)
        return 200, sensible_answer(body)

    llm_server.reply = reply
    result = elicit(posts[:2], store, source(llm_server), QuestionSettings.of("noun"))
    assert (result.report.total().repaired, len(llm_server.requests)) == (2, 4)


def test_the_first_answer_is_kept_where_the_second_is_none(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    llm_server.reply = lambda body: (
        (200, "paid for, but no JSON") if len(body["messages"]) == 2 else (200, completion(None))
    )
    elicit(posts[:1], store, source(llm_server), QuestionSettings.of("noun"))
    (kept,) = store.rejected()
    assert kept.raw == "paid for, but no JSON" and "empty" in (kept.reason or "")

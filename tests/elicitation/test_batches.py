"""The Batch API: a server with files and batches, processes that die at each step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spacy_mmcot.elicitation.client import OpenAISettings, OpenAISource
from spacy_mmcot.elicitation.elicit import ElicitResult, elicit
from spacy_mmcot.elicitation.engine import Ending, Pace
from spacy_mmcot.elicitation.money import read_spend, read_total_spend
from spacy_mmcot.elicitation.prompts import QuestionSettings
from spacy_mmcot.elicitation.store import AnswerStore
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import Post
from tests.llm_server import LLMServer, completion

KEY = "sk-very-secret-0815"
PACE = Pace(batch_size=10, batch_poll=0.05)
FAST = Pace(batch_poll=0.02)


def settings(server: LLMServer) -> OpenAISettings:
    return OpenAISettings("gpt-4o-mini", base_url=server.url, api_key=KEY)


def source(server: LLMServer) -> OpenAISource:
    return OpenAISource(settings(server), "openai-batch")


def run(server: LLMServer, posts: list[Post], store: AnswerStore, **options: Any) -> ElicitResult:
    settings = options.pop("settings", QuestionSettings.of("noun", "style"))
    pace = options.pop("pace", PACE)
    asked = source(server)
    return elicit(posts, store, asked, settings=settings, pace=pace, **options)


def left_over(store: AnswerStore) -> list[int]:
    tables = ("batches", "inbox", "claims", "attempts")
    query = "SELECT count(*) FROM "
    return [store.connection.execute(query + table).fetchone()[0] for table in tables]


def test_batches_bring_what_single_questions_bring(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore, tmp_path: Path
) -> None:
    result = run(llm_server, posts, store)
    total = result.report.total()
    assert (result.ending, total.asked, total.stored) == (Ending.DONE, 24, 24)
    assert llm_server.seen()["batches"] == 3 and llm_server.seen()["requests"] == 0
    assert left_over(store) == [0, 0, 0, 0]
    with AnswerStore(tmp_path / "other.sqlite") as other:
        single = OpenAISource(settings(llm_server))
        elicit(posts, other, single, settings=QuestionSettings.of("noun", "style"))
        assert other.answers() == store.answers()
        assert {a.key for a in other.iter_all()} == {a.key for a in store.iter_all()}
        assert read_total_spend(store) == pytest.approx(read_total_spend(other) / 2)
    assert {row.source for row in read_spend(store)} == {"openai-batch"}
    assert run(llm_server, posts, store).report.total().already_there == 24
    assert llm_server.seen()["batches"] == 3


def test_what_fails_or_expires_is_asked_again_and_nothing_else(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    llm_server.configure(batch_short=4, batch_fail_every=3)
    result = run(llm_server, posts, store)
    assert (result.ending, result.report.total().stored) == (Ending.DONE, 24)
    assert llm_server.seen()["batches"] == 4
    assert left_over(store) == [0, 0, 0, 0]


KILL_AT = {
    "before the upload": "BatchApi.upload = die",
    "after the upload": "BatchApi.create = die",
    "after the batch was made": """
create = BatchApi.create
async def made(self, *given):
    await create(self, *given)
    die()
BatchApi.create = made""",
    "while it runs": "BatchApi.wait_for = die",
    "before the download": "BatchApi.download = die",
    "after the download": "BatchRunner._settle_from_inbox = die_later",
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", KILL_AT)
def test_a_kill_at_any_step_loses_nothing_and_buys_nothing_twice(
    llm_server: LLMServer, posts: list[Post], tmp_path: Path, moment: str
) -> None:
    path = tmp_path / "answers.sqlite"
    file = tmp_path / "posts.jsonl"
    file.write_text("".join(post.model_dump_json() + "\n" for post in posts))
    script = f"""
import os
from pathlib import Path
from spacy_mmcot.elicitation.batches import BatchApi
from spacy_mmcot.elicitation.batches import BatchRunner
from spacy_mmcot.elicitation.engine import Pace
from spacy_mmcot.elicitation.prompts import QuestionSettings
from spacy_mmcot.elicitation.client import OpenAISettings, OpenAISource
from spacy_mmcot.elicitation.elicit import elicit
from spacy_mmcot.elicitation.store import AnswerStore
from spacy_mmcot.types import Post
def die(*given):
    os.kill(os.getpid(), 9)
from_inbox = BatchRunner._settle_from_inbox
def die_later(self, job):
    before = self._store.connection.execute("SELECT count(*) FROM inbox").fetchone()[0]
    result = from_inbox(self, job)
    if before == 7:
        die()
    return result
{KILL_AT[moment]}
posts = [Post.model_validate_json(line) for line in open({str(file)!r})]
settings = OpenAISettings("gpt-4o-mini", base_url={llm_server.url!r}, api_key="sk-test-0815")
source = OpenAISource(settings, "openai-batch")
with AnswerStore(Path({str(path)!r})) as store:
    asked = QuestionSettings.of("noun", "style")
    elicit(posts, store, source, asked, pace=Pace(batch_size=10, batch_poll=0.05))
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    with AnswerStore(path) as store:
        result = run(llm_server, posts, store)
        assert result.ending is Ending.DONE
        assert result.report.total().stored + result.report.total().already_there == 24
        assert left_over(store) == [0, 0, 0, 0]
    sold = llm_server.seen()["sold"]
    assert len(sold) == 24 and set(sold.values()) == {1}


def change(lines: list[bytes], number: int, **fields: Any) -> list[bytes]:
    """The lines with other fields in one of them."""
    return [
        json.dumps(json.loads(line) | fields).encode() if i == number else line
        for i, line in enumerate(lines)
    ]


def respond(status: Any, body: Any) -> dict[str, Any]:
    return {"status_code": status, "request_id": "r", "body": body}


REFUSED = {"error": {"message": "strange picture", "type": "invalid_request_error"}}
FILTERED = {"error": {"message": "too hot", "code": "content_filter"}}
STRANGE = {"code": ["a"], "message": None}
HUGE = {"prompt_tokens": 2**70, "completion_tokens": True}
GOOD = completion('{"things": []}')


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        # A fault of one question is that question's: asked again, or kept as rejected.
        ({"response": respond(200, None)}, "stored"),
        ({"response": respond(200, "hello")}, "stored"),
        ({"response": respond(200, {"choices": []})}, "stored"),
        ({"response": respond(500, {"error": STRANGE})}, "stored"),
        ({"response": respond(200, GOOD | {"usage": HUGE})}, "stored"),
        ({"response": respond("200", GOOD)}, "stored"),
        ({"response": respond("ok", GOOD)}, "stored"),
        ({"response": respond(None, GOOD)}, "stored"),
        ({"response": respond(1e999, GOOD)}, "stored"),
        ({"response": respond(True, None)}, "stored"),
        ({"response": respond([200], {"a": 1})}, "stored"),
        ({"response": None, "error": {"code": "batch_expired", "message": "late"}}, "stored"),
        ({"response": None, "error": None}, "stored"),
        ({"response": "none"}, "stored"),
        ({"custom_id": "nobody"}, "stored"),
        ({"custom_id": 7}, "stored"),
        ({"custom_id": None}, "stored"),
        ({"response": respond(400, REFUSED)}, "strange picture"),
        ({"response": respond(403, REFUSED)}, "strange picture"),
        ({"response": respond(400, FILTERED)}, "too hot"),
        ({"response": None, "error": FILTERED["error"]}, "too hot"),
        ({"response": respond(400, None)}, "HTTP 400"),
        ({"response": respond(400, [["x"]])}, "x"),
    ],
)
def test_a_lines_fault_is_its_questions(
    llm_server: LLMServer,
    posts: list[Post],
    store: AnswerStore,
    fields: dict[str, Any],
    outcome: str,
) -> None:
    llm_server.configure(batch_edit=lambda lines: change(lines, 3, **fields))
    result = run(llm_server, posts, store, settings=QuestionSettings.of("noun"), pace=FAST)
    total = result.report.total()
    assert result.ending is Ending.DONE and left_over(store) == [0, 0, 0, 0]
    assert read_total_spend(store) < 0.01
    if outcome == "stored":
        assert (total.stored, total.rejected) == (12, 0)
    else:
        assert (total.stored, total.rejected) == (11, 1)
        assert outcome in (store.rejected()[0].reason or "")
    assert len(llm_server.batches.made) <= 3


@pytest.mark.parametrize(
    "edit",
    [
        lambda lines: [*lines, lines[0], lines[3]],
        lambda lines: [*lines, *change(lines[:1], 0, response=respond(500, {}))],
        lambda lines: [*change(lines[:1], 0, response=respond(400, REFUSED)), *lines],
        lambda lines: [*change(lines[:1], 0, response=None, error=STRANGE), *lines],
        lambda lines: [*change(lines[:1], 0, response=respond(200, None)), *lines],
        lambda lines: [b"", b"\xff\xfe", b"[]", b"null", b"7", b"{", b"{}", *lines, b'"x"'],
        lambda lines: [b"[" * 100_000, *lines],
    ],
)
def test_a_good_line_counts_whatever_stands_beside_it(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore, edit: Any
) -> None:
    llm_server.configure(batch_edit=edit)
    result = run(llm_server, posts, store, settings=QuestionSettings.of("noun"), pace=FAST)
    assert result.report.total().stored == 12 and len(llm_server.batches.made) == 1
    assert set(llm_server.seen()["sold"].values()) == {1}


@pytest.mark.parametrize("gone", ["batch_0", "file-1"])
def test_what_the_endpoint_has_deleted_is_asked_again_with_a_word(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore, gone: str
) -> None:
    llm_server.configure(batch_seconds=3.0)
    hasty = Pace(batch_poll=0.02, run_timeout=1.0)
    asked = QuestionSettings.of("noun")
    assert run(llm_server, posts, store, pace=hasty, settings=asked).ending is Ending.TIME
    llm_server.configure(batch_seconds=0.0)
    llm_server.batches.gone.add(gone)
    report = run(llm_server, posts, store, settings=asked, pace=FAST).report
    assert report.total().stored == 12
    (note,) = report.notes
    assert "batch_0 is gone" in note and "asked again" in note
    assert left_over(store) == [0, 0, 0, 0]


def test_the_addresss_own_query_is_in_every_request(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    llm_server.batches.faults = [(True, 500)]
    url = f"{llm_server.url}?api-version=2024-10-21"
    asked = OpenAISource(OpenAISettings("gpt-4o-mini", url, KEY), "openai-batch")
    result = elicit(posts, store, asked, QuestionSettings.of("noun"), pace=FAST)
    assert result.report.total().stored == 12 and len(llm_server.batches.made) == 1
    assert len(llm_server.paths) == 5
    assert all("api-version=2024-10-21" in path for path in llm_server.paths)


def test_one_lost_batch_leaves_the_others_alone(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    llm_server.batches.gone.add("batch_1")
    report = run(llm_server, posts, store).report
    assert report.total().stored == 24
    sold = llm_server.seen()["sold"]
    assert len(sold) == 24 and set(sold.values()) == {1}


@pytest.mark.parametrize(
    ("faults", "batches"),
    [
        ([(True, 500)], 1),
        ([(True, 503), (True, 503)], 1),
        ([(False, 500)], 1),
        ([(True, 500)] * 2, 1),
    ],
)
def test_a_batch_whose_making_was_not_confirmed_is_not_made_again(
    llm_server: LLMServer,
    posts: list[Post],
    store: AnswerStore,
    faults: list[tuple[bool, int]],
    batches: int,
) -> None:
    asked = QuestionSettings.of("noun")
    # Without a second try: the run ends, and the next one finds the batch.
    llm_server.batches.faults = faults[:1]
    with pytest.raises(MMCoTError, match="E312"):
        run(llm_server, posts, store, settings=asked, pace=Pace(batch_poll=0.02, tries=1))
    llm_server.batches.faults = faults[1:]
    assert run(llm_server, posts, store, settings=asked, pace=FAST).report.total().stored == 12
    assert len(llm_server.batches.made) == batches
    assert set(llm_server.seen()["sold"].values()) == {1}


def test_a_batch_that_was_surely_not_made_is_forgotten(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    llm_server.batches.faults = [(False, 400)]
    with pytest.raises(MMCoTError, match=r"E313.+400: injected"):
        run(llm_server, posts, store, settings=QuestionSettings.of("noun"), pace=FAST)
    assert left_over(store) == [0, 0, 0, 0]


def test_a_batch_that_is_refused_throughout_ends_the_run_and_not_the_next(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    def refuse(lines: list[bytes]) -> list[bytes]:
        for number in range(len(lines)):
            lines = change(lines, number, response=respond(400, REFUSED))
        return lines

    llm_server.configure(batch_edit=refuse)
    asked = QuestionSettings.of("noun")
    with pytest.raises(MMCoTError, match=r"E313.+strange picture"):
        run(llm_server, posts, store, settings=asked, pace=FAST)
    assert store.rejected() == [] and left_over(store) == [0, 0, 0, 0]
    assert run(llm_server, posts, store, settings=asked, pace=FAST).report.total().stored == 12


def test_a_batch_that_is_refused_says_why_and_can_be_made_again(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    llm_server.configure(batch_refuse="Enqueued token limit reached")
    with pytest.raises(MMCoTError, match=r"E317.+batch_0.+Enqueued token limit reached"):
        run(llm_server, posts, store)
    llm_server.configure(batch_refuse="")
    assert run(llm_server, posts, store).report.total().stored == 24
    assert set(llm_server.seen()["sold"].values()) == {1}


def test_the_budget_counts_batches_under_way(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    cap = 0.0001
    result = run(llm_server, posts, store, budget=cap, settings=QuestionSettings.of("noun"))
    assert result.ending is Ending.BUDGET
    assert 0 < read_total_spend(store) <= cap
    assert 0 < result.report.total().stored < 12
    assert left_over(store) == [0, 0, 0, 0]


def test_a_run_that_ends_leaves_its_batches_to_the_next(
    llm_server: LLMServer, posts: list[Post], store: AnswerStore
) -> None:
    llm_server.configure(batch_seconds=0.8)
    hasty = Pace(batch_size=10, batch_poll=0.05, run_timeout=0.4)
    assert run(llm_server, posts, store, pace=hasty).ending is Ending.TIME
    # Single questions leave alone what waits in batches.
    single = OpenAISource(settings(llm_server))
    report = elicit(posts, store, single, settings=QuestionSettings.of("noun", "style")).report
    assert report.total().missing == 24
    assert list(report.unanswered) == ["waits in a batch: run --source openai-batch"]
    assert run(llm_server, posts, store).report.total().stored == 24
    assert llm_server.seen()["batches"] == 3 and llm_server.seen()["requests"] == 0

"""Prices, tokens, and the plan before a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spacy_mmcot.elicitation.client import OpenAISettings, OpenAISource
from spacy_mmcot.elicitation.elicit import elicit, plan
from spacy_mmcot.elicitation.money import Price, Prices, estimate
from spacy_mmcot.elicitation.prompts import KINDS, QuestionSettings
from spacy_mmcot.elicitation.replies import Usage
from spacy_mmcot.elicitation.store import AnswerStore
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import Post
from tests.llm_server import LLMServer


def test_prices_are_a_million_tokens_each() -> None:
    price = Price(input=2.0, cached=0.5, output=8.0)
    usage = Usage(input=1_000_000, cached=250_000, output=500_000)
    assert price.cost(usage) == pytest.approx(0.75 * 2 + 0.25 * 0.5 + 0.5 * 8)
    assert price.cost(usage, batch=True) == pytest.approx(0.75 * 1 + 0.25 * 0.5 + 0.5 * 4)
    assert Price(input=2.0, output=8.0).cost(usage) == pytest.approx(2 + 4)


def test_the_users_table_comes_first(tmp_path: Path) -> None:
    table = {
        "mine": {"input": 1, "output": 2.5, "vision": True},
        "gpt-4o": {"input": 9, "output": 9},
    }
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(table))
    prices = Prices(path)
    assert prices.cost("mine", Usage(1_000_000, 0, 1_000_000)) == 3.5
    assert prices.cost("gpt-4o", Usage(input=1_000_000)) == 9
    assert prices.find("gpt-4o-mini-2024-07-18") == prices.find("gpt-4o-mini") is not None
    assert prices.find("strange") is None and prices.cost("strange", Usage(9, 9, 9)) == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", r"the row is \[\]"),
        ("{", "not JSON"),
        ('{"m": {"input": Infinity, "output": 2}}', "field m.input is inf"),
        ('{"m": {"input": 1, "output": 1e308}}', "field m.output is"),
        ('{"m": {"input": -1, "output": 2}}', "field m.input is -1"),
        ('{"m": {"input": 1}}', "m.output is missing"),
        ('{"m": {"input": 1, "output": 1, "tax": 2}}', "tax"),
        ('{"m": 3}', "3"),
    ],
)
def test_broken_tables_of_prices(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "prices.json"
    path.write_text(text)
    with pytest.raises(MMCoTError, match=rf"E320.+prices\.json.+{problem}"):
        Prices(path)
    with pytest.raises(MMCoTError, match="E100"):
        Prices(tmp_path / "none.json")


def test_tables_of_prices_as_windows_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_text('{"m": {"input": 1, "output": 2}}', encoding)
        assert Prices(path).find("m") == Price(input=1, output=2)


def test_published_prices_and_who_sees() -> None:
    prices = Prices()
    mini, gemini = prices.find("gpt-4o-mini"), prices.find("gemini-2.5-flash")
    assert mini and gemini and not gemini.vision
    assert (mini.input, mini.cached, mini.output) == (0.15, 0.075, 0.6)
    assert mini.vision and mini.picture == 2833
    assert prices.has_vision("gpt-4o") and not prices.has_vision("strange")


def test_a_budget_needs_the_price_of_the_model(posts: list[Post], tmp_path: Path) -> None:
    source = OpenAISource(OpenAISettings("strange", base_url="https://localhost/v1", api_key="any"))
    with (
        AnswerStore(tmp_path / "a.sqlite") as store,
        pytest.raises(MMCoTError, match=r"E321.+strange"),
    ):
        elicit(posts, store, source, budget=1.0)


def test_an_estimate_is_near_the_truth_for_plain_english(posts: list[Post]) -> None:
    prompt = QuestionSettings().render(posts[0], "sentence")
    assert prompt is not None
    words = sum(len(m["content"].split()) for m in prompt.messages)
    usage = estimate(prompt, None)
    assert 1.0 < usage.input / words < 2.0
    assert usage.output == KINDS["sentence"].tokens
    assert estimate(prompt, None, 31.2) == Usage(usage.input, 0, 31)


def test_the_plan_counts_what_a_run_then_asks(
    llm_server: LLMServer, posts: list[Post], tmp_path: Path
) -> None:
    prices = Prices()
    source = OpenAISource(OpenAISettings("gpt-4o", base_url=llm_server.url, api_key="any"))
    dimensions = {**QuestionSettings().variants, "style": 2}
    held_out = [post.model_copy(update={"split": "test"}) for post in posts[:3]]
    every = [*held_out, *posts[3:]]
    settings = QuestionSettings(variants=dimensions)
    made = plan(every, source, prices, settings)
    assert {name: row.requests for name, row in made.items()} == {
        **dict.fromkeys(("noun", "sentence", "multimodality"), 12),
        **dict.fromkeys(("entity", "image"), 9),
        "style": 18,
    }
    assert made["style"].not_applicable == 6
    style, noun = made["style"], made["noun"]
    assert style.cost == pytest.approx((style.input_tokens * 2.5 + style.output_tokens * 10) / 1e6)
    assert noun.batch_cost == pytest.approx((noun.cost or 0) / 2)
    assert llm_server.seen()["requests"] == 0
    with AnswerStore(tmp_path / "a.sqlite") as store:
        asked = elicit(every, store, source, QuestionSettings(variants=dimensions)).report
        for name, row in made.items():
            assert asked.counts[name].asked == row.requests
        after = plan(every, source, prices, settings, store)
        assert all(row.requests == 0 and row.cost == 0 for row in after.values())
        # New posts are planned with the lengths that the answers so far had.
        more = [
            post.model_copy(update={"id": f"q{i}", "text": f"Anna{i} rests"})
            for i, post in enumerate(posts)
        ]
        learned = plan(more, source, prices, QuestionSettings(variants={"style": 1}), store)[
            "style"
        ]
        assert 0 < learned.output_tokens < 12 * 20


def test_models_without_a_price_cost_nobody_knows_what(posts: list[Post]) -> None:
    source = OpenAISource(OpenAISettings("strange", base_url="https://localhost/v1", api_key="any"))
    made = plan(posts, source, Prices(), QuestionSettings("rel", {"noun": 1}))
    assert made["noun"].cost is None and made["noun"].input_tokens > 0

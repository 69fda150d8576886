from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from research.listing import parse_listing


def pairs(text: str) -> list[tuple[str, str]]:
    return [(item.mention, item.kind) for item in parse_listing(text)[0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Named entities:1. J. Cole (person/rapper)2. 16. August (date)Reasoning: So.",
            [("J. Cole", "person/rapper"), ("16. August", "date")],
        ),
        (
            "Named entities: 1. Windows 2. 0 (software) 2. U.S. (country) Reasoning:So.",
            [("Windows 2. 0", "software"), ("U.S.", "country")],
        ),
        (
            "Named entities:1. Chicago (IL) (city (in Illinois))2. 4.5 Mile Run (event)",
            [("Chicago (IL)", "city (in Illinois)"), ("4.5 Mile Run", "event")],
        ),
        ("1. The Cure (band); 2. TV (media).", [("The Cure", "band"), ("TV", "media")]),
        ("1) Shannon (name)2) Jared (name)", [("Shannon", "name"), ("Jared", "name")]),
        (
            "Named entities: Iachini (person/coach), Udinese (football club/team).",
            [("Iachini", "person/coach"), ("Udinese", "football club/team")],
        ),
        ("Named Entity: Rocky (person/dog) Reasoning: x", [("Rocky", "person/dog")]),
        (
            '1. TWICE - a girl group 2. "Gag Concert" - a show',
            [("TWICE", "a girl group"), ("Gag Concert", "a show")],
        ),
        (
            "Named entities:\n- Oslo (city)\n- Bergen (city)\n",
            [("Oslo", "city"), ("Bergen", "city")],
        ),
        ("Named entities:1. Police 2. Eshleman Hall (building)", [("Eshleman Hall", "building")]),
    ],
)
def test_items(text: str, expected: list[tuple[str, str]]) -> None:
    assert pairs(text) == expected


def test_more_than_nine_items_run_together() -> None:
    names = [f"Name{i} {i + 1}" for i in range(1, 13)]
    text = "Named entities:" + "".join(f"{i}. {n} (x)" for i, n in enumerate(names, start=1))
    assert pairs(text) == [(name, "x") for name in names]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Named entities: None. Reasoning: a (slang) phrase.",
        "Named entities: 1. None Reasoning: a (slang) phrase.",
        "There are no named entities (none) in the sentence. Reasoning: a (slang) phrase.",
        "The sentence does not contain any named entities (at all).",
    ],
)
def test_nothing(text: str) -> None:
    items, reasoning = parse_listing(text)
    assert items == []
    if "Reasoning:" in text:
        assert reasoning == "a (slang) phrase."


def test_reasoning_is_the_rest() -> None:
    _, reasoning = parse_listing("Named entities:1. Oslo (city)Reasoning:The city (in Norway).")
    assert reasoning == "The city (in Norway)."
    assert parse_listing("Named entities:1. Oslo (city)")[1] == ""


def test_recorded_knowledge_files() -> None:
    """By an independent count, the number before the last item, nearly all items are found."""
    shared_data = Path(__file__).parents[3] / "shared" / "data"
    if not shared_data.is_dir():
        pytest.skip(f"{shared_data} is not here")
    rows = whole = items = 0
    for name in (
        "twitter2015/train",
        "twitter2015/valid",
        "twitter2017/train",
        "twitter2017/valid",
    ):
        for line in (shared_data / f"{name}.knowledge.jsonl").open(encoding="utf-8"):
            text = json.loads(line)["knowledge"]
            head = re.split(r"Reasoning\s*:", text)[0]
            if not re.search(r"1[.)].*\(", head):
                continue
            found = parse_listing(text)[0]
            numbers = re.findall(r"(?:^|[\s):;,.])(\d{1,2})[.)](?=\D)", head)
            rows += 1
            items += len(found)
            whole += len(found) == max(int(n) for n in numbers if int(n) < 25)
            assert all(item.mention and item.kind for item in found)
    assert rows > 8_900 and items > 26_000
    assert whole / rows > 0.998

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from spacy_mmcot.corpus.exports import read_prodigy
from spacy_mmcot.corpus.posts import Findings, ReadSettings, make_text_id
from spacy_mmcot.errors import MMCoTError

ANNA = {"start": 0, "end": 4, "label": "PER", "token_start": 0, "token_end": 0}
OSLO = {"start": 8, "end": 12, "label": "LOC"}
UNLABELLED = {"start": 5, "end": 7, "label": None}
TASK = {
    "text": "Anna in Oslo",
    "tokens": [{"text": "Anna", "start": 0, "end": 4, "id": 0}],
    "spans": [ANNA, OSLO],
    "answer": "accept",
    "_input_hash": 1,
}


def test_accepted_tasks_become_posts(jsonl: Callable[..., Path]) -> None:
    path = jsonl(
        "ner.jsonl",
        TASK,
        {**TASK, "answer": "reject"},
        {**TASK, "answer": "ignore"},
        {**TASK, "meta": {"id": "named"}, "spans": []},
        {"text": "nobody looked at this"},
    )
    findings = Findings()
    posts = [row.post for row in read_prodigy(path, findings, ReadSettings())]
    assert [post.id for post in posts] == [
        make_text_id("Anna in Oslo"),
        "named",
        make_text_id("nobody looked at this"),
    ]
    assert [(e.start, e.end, e.label) for e in posts[0].entities or []] == [
        (0, 4, "PER"),
        (8, 12, "LOC"),
    ]
    assert posts[1].entities == []
    assert posts[2].entities is None
    report = "\n".join(findings.describe())
    assert "tasks answered 'reject', left out: 1" in report
    assert "tasks answered 'ignore', left out: 1" in report


def test_relations_join_spans(jsonl: Callable[..., Path]) -> None:
    relation = {"head": 2, "child": 0, "label": "home", "head_span": OSLO, "child_span": ANNA}
    path = jsonl("rel.jsonl", {**TASK, "relations": [relation]})
    (row,) = read_prodigy(path, Findings(), ReadSettings())
    (found,) = row.post.relations or []
    assert (found.head, found.tail, found.label) == (1, 0, "home")


def test_no_relation_is_not_the_same_as_nobody_looked(jsonl: Callable[..., Path]) -> None:
    path = jsonl("rel.jsonl", {**TASK, "relations": []}, TASK)
    assert [row.post.relations for row in read_prodigy(path, Findings(), ReadSettings())] == [
        [],
        None,
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"spans": [{**ANNA, "start": "0"}]}, "field spans[0].start is '0'"),
        ({"spans": [{"start": 0, "end": 4}]}, "field spans[0].label is missing"),
        ({"spans": [ANNA, {**OSLO, "start": 2}]}, "overlap"),
        ({"spans": [{**OSLO, "end": 13}]}, "ends past the text's 12 characters"),
        ({"answer": "maybe"}, "field answer is 'maybe'"),
        ({"text": " "}, "text is empty"),
        ({"text": None}, "field text is None"),
        (
            {"spans": [ANNA], "relations": [{"label": "x", "head_span": OSLO, "child_span": ANNA}]},
            "a relation joins (8, 12)",
        ),
        (
            # Between tokens that are no span, which have no label.
            {"relations": [{"label": "x", "head_span": UNLABELLED, "child_span": ANNA}]},
            "a relation joins (5, 7)",
        ),
        (
            {"relations": [{"label": "x", "head_span": ANNA, "child_span": ANNA}]},
            "relations[0] joins entity 0 to itself",
        ),
        (
            {"relations": [{"label": x, "head_span": ANNA, "child_span": OSLO} for x in "ab"]},
            "relations[1] joins (0, 1), as relations[0] does",
        ),
        ({"relations": [{"head_span": ANNA, "child_span": OSLO}]}, "relations[0].label is missing"),
        ({"relations": [{"label": "", "head_span": ANNA, "child_span": OSLO}]}, "is ''"),
        ({"relations": [{"label": "x", "head": 0, "child": 2}]}, "relations[0].head_span is"),
        ({"relations": {}}, "field relations is {}"),
    ],
)
def test_broken_tasks(jsonl: Callable[..., Path], change: dict, problem: str) -> None:
    path = jsonl("ner.jsonl", TASK, {**TASK, **change}, TASK)
    with pytest.raises(MMCoTError) as caught:
        list(read_prodigy(path, Findings(), ReadSettings()))
    assert str(caught.value).startswith(f"[E101] {path}, line 2: ")
    assert problem in str(caught.value)

    findings = Findings(skip_invalid=True)
    assert [row.number for row in read_prodigy(path, findings, ReadSettings())] == [0, 2]
    assert len(findings.skipped) == 1

"""MNRE files: what a row says arrives, and broken rows are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mnre_rows import ANNA, LIND, NORWAY, OSLO, pairs, read, relations, row

from spacy_mmcot.corpus.formats import guess_format
from spacy_mmcot.corpus.mnre import MAX_LINE
from spacy_mmcot.corpus.posts import Findings
from spacy_mmcot.errors import MMCoTError


def test_a_row_is_a_post_of_one_judged_pair(mnre: Callable[..., Path]) -> None:
    path = mnre(row(OSLO, ANNA, "/loc/per/of"), b"", row(ANNA, NORWAY), name="valid.txt")
    first, second = read(path)
    assert first.post.text == "Anna Lind sings in Oslo , Norway"
    assert [(e.start, e.end, e.label) for e in first.post.entities or []] == [
        (0, 9, "ENTITY"),
        (19, 23, "ENTITY"),
    ]
    assert relations(first.post) == [("Oslo", "Anna Lind", "/loc/per/of")]
    assert pairs(first.post) == [("Oslo", "Anna Lind")]
    assert (second.post.relations, pairs(second.post)) == ([], [("Anna Lind", "Norway")])
    assert [(r.number, r.post.id, r.post.split) for r in (first, second)] == [
        (0, "7.jpg", "dev"),
        (1, "7.jpg-2", "dev"),
    ]


def test_tokens_are_told_by_the_space_alone(mnre: Callable[..., Path]) -> None:
    tokens = ["#a\u200b", "b c", "d\xa0e", "\x85", "f"]
    sides = {"h": {"name": "#a\u200b", "pos": [0, 1]}, "t": {"name": "b  c", "pos": [1, 2]}}
    findings = Findings()
    (found,) = read(mnre(row(ANNA, OSLO, token=tokens, **sides)), findings)
    assert found.post.text.split(" ") == ["#a\u200b", "b\xa0c", "d\xa0e", "\x85", "f"]
    assert "tokens with a space inside, written with a no-break space" in "\n".join(
        findings.describe()
    )


def test_a_row_of_overlapping_mentions_is_left_out(mnre: Callable[..., Path]) -> None:
    findings = Findings()
    path = mnre(row(ANNA, OSLO), row(LIND, OSLO), row(ANNA, LIND), row(ANNA, ANNA))
    assert [pairs(found.post) for found in read(path, findings)] == [
        [("Anna Lind", "Oslo")],
        [("Lind", "Oslo")],
    ]
    report = "\n".join(findings.describe())
    assert "rows left out: one mention overlaps the other" in report
    assert f"{path}, line 3: 'Anna Lind' and 'Lind'" in report
    assert f"{path}, line 4: 'Anna Lind' and 'Anna Lind'" in report


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (b"{'token': ['a'", "not a Python literal"),
        (b"__import__('os').getcwd()", "not a Python literal"),
        (b"{[]: 1}", "not a Python literal"),
        (b"{'token': ['\\ud83d']}", "a text without halves of surrogate pairs"),
        (b"{'token': ['caf\xe9']}", "is not UTF-8"),
        (b"a\x00b", "not a Python literal"),
        (b"(" * 5_000, "not a Python literal"),
        (b"-" * 50_000 + b"1", "nested too deeply"),
        (b"'" + b"x" * MAX_LINE + b"'", "the line has 100002 characters"),
        (b"[1]", "the row is [1]"),
        (row(ANNA, OSLO, token=[]), "h.pos is [0, 2], which is no stretch of the row's 0 tokens"),
        (row(ANNA, OSLO, token=["Anna", ""]), "field token[1] is ''"),
        (row(ANNA, OSLO, token="Anna"), "field token is 'Anna'"),
        (row(ANNA, OSLO, h={"name": "x", "pos": [3, 3]}), "h.pos is [3, 3]"),
        (row(ANNA, OSLO, t={"name": "x", "pos": [-1, 1]}), "t.pos is [-1, 1]"),
        (row(ANNA, OSLO, t={"name": "x", "pos": ["4", 5]}), "field t.pos[0] is '4'"),
        (row(ANNA, OSLO, t={"name": "Rome", "pos": [4, 5]}), "t.name is 'Rome', but the tokens"),
        (row(ANNA, OSLO, t={"pos": [4, 5]}), "field t.name is missing"),
        (row(ANNA, OSLO, ""), "field relation is ''"),
        (row(ANNA, OSLO, img_id=None), "field img_id is None"),
    ],
)
def test_broken_rows(mnre: Callable[..., Path], broken: dict | bytes, problem: str) -> None:
    path = mnre(row(ANNA, OSLO), broken, row(OSLO, NORWAY))
    with pytest.raises(MMCoTError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"[E101] {path}, line 2: ")
    assert problem in message
    assert "\n" not in message
    findings = Findings(skip_invalid=True)
    assert [r.number for r in read(path, findings)] == [0, 2]
    assert len(findings.skipped) == 1


def test_the_format_is_told_by_the_first_row(mnre: Callable[..., Path], tmp_path: Path) -> None:
    assert guess_format(mnre(b"", row(ANNA, OSLO))) == "mnre"
    conll = tmp_path / "conll.txt"
    conll.write_text("IMGID:7\n{\tO\n", encoding="utf-8")
    assert guess_format(conll) == "conll"

"""Rows of one tweet become one post."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mnre_rows import ANNA, LIND, NORWAY, OSLO, pairs, read, relations, row

from research.join_rows import join_rows
from spacy_mmcot.corpus.posts import Findings
from spacy_mmcot.types import Answers, NounItem, Post


def test_rows_of_a_tweet_become_one_post(mnre: Callable[..., Path]) -> None:
    other = row(ANNA, OSLO, img_id="8.jpg")
    path = mnre(row(OSLO, NORWAY, "/in"), other, row(ANNA, OSLO), row(ANNA, NORWAY, "/home"))
    first, second = join_rows(read(path), Findings())
    assert first.post.id == "7.jpg"
    surfaces = [first.post.text[e.start : e.end] for e in first.post.entities or []]
    assert surfaces == ["Anna Lind", "Oslo", "Norway"]
    assert pairs(first.post) == [("Oslo", "Norway"), ("Anna Lind", "Oslo"), ("Anna Lind", "Norway")]
    assert relations(first.post) == [("Oslo", "Norway", "/in"), ("Anna Lind", "Norway", "/home")]
    assert Post.model_validate(first.post.model_dump()) == first.post
    assert (second.post.id, pairs(second.post)) == ("8.jpg", [("Anna Lind", "Oslo")])


def test_mentions_that_overlap_live_in_two_posts(mnre: Callable[..., Path]) -> None:
    findings = Findings()
    path = mnre(row(ANNA, OSLO), row(LIND, OSLO), row(ANNA, LIND), row(LIND, NORWAY, "/x"))
    first, second = join_rows(read(path, findings), findings)
    assert pairs(first.post) == [("Anna Lind", "Oslo")]
    assert pairs(second.post) == [("Lind", "Oslo"), ("Lind", "Norway")]
    assert relations(second.post) == [("Lind", "Norway", "/x")]
    assert second.post.id == "7.jpg-2"
    report = "\n".join(findings.describe())
    assert "rows left out: one mention overlaps the other" in report
    assert f"{path}, line 3: 'Anna Lind' and 'Lind'" in report
    assert "kept as a post of their own: 1" in report


def test_a_pair_that_is_judged_twice(mnre: Callable[..., Path]) -> None:
    findings = Findings()
    twice = mnre(row(ANNA, OSLO, "/x"), row(ANNA, OSLO, "/x"), row(ANNA, OSLO, "/y"))
    (joined,) = join_rows(read(twice, findings), findings)
    assert relations(joined.post) == [("Anna Lind", "Oslo", "/x")]
    assert len(pairs(joined.post)) == 1
    report = "\n".join(findings.describe())
    assert "rows that repeat a pair of their post, counted once: 1" in report
    assert "row 2: 7.jpg-3: /y" in report
    # The other direction is another pair.
    (both,) = join_rows(read(mnre(row(ANNA, OSLO, "/x"), row(OSLO, ANNA))), Findings())
    assert pairs(both.post) == [("Anna Lind", "Oslo"), ("Oslo", "Anna Lind")]


def test_what_is_known_of_the_rows_is_united(mnre: Callable[..., Path]) -> None:
    anna, again, oslo = (
        NounItem(mention=mention, kind=kind)
        for mention, kind in (("Anna Lind", "singer"), ("Anna Lind", "woman"), ("Oslo", "city"))
    )
    answers = [
        Answers(id="7.jpg", noun=[anna], sentence="She sings."),
        Answers(id="7.jpg-2", noun=[again, oslo], sentence="She sings."),
        Answers(id="7.jpg-3", sentence="In Norway."),
    ]
    rows = read(mnre(row(ANNA, OSLO), row(OSLO, NORWAY), row(ANNA, NORWAY)))
    known = [r._replace(answers=a) for r, a in zip(rows, answers, strict=True)]
    (joined,) = join_rows(known, Findings())
    assert joined.answers == Answers(
        id="7.jpg", noun=[anna, oslo], sentence="She sings. In Norway."
    )

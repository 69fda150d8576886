"""Splitting a corpus, and what is said about its labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_mmcot.corpus.formats import check_labels, count_labels, split_rows
from spacy_mmcot.corpus.posts import Findings, Row, read_posts
from spacy_mmcot.types import Entity, Post, make_text_key

Command = Callable[..., Result]


def make_row(number: int, label: str | None, group: str | None = None, text: str = "") -> Row:
    text = text or f"text number {number}"
    entities = [Entity(start=0, end=4, label=label)] if label else []
    return Row(number, Post(id=str(number), text=text, entities=entities), group=group)


def test_every_label_is_shared_out() -> None:
    labels = [*["PER"] * 100, *["ORG"] * 40, *["RARE"] * 10, *[None] * 50]
    rows = [make_row(i, label) for i, label in enumerate(labels)]
    found = split_rows(rows, {"dev": 0.1, "test": 0.2})
    assert [row.post.id for row in found] == [row.post.id for row in rows]
    counts = count_labels(row.post for row in found)
    assert counts == {
        "train": {"PER": 70, "ORG": 28, "RARE": 7},
        "dev": {"PER": 10, "ORG": 4, "RARE": 1},
        "test": {"PER": 20, "ORG": 8, "RARE": 2},
    }
    assert Counter(row.post.split for row in found) == {"train": 140, "dev": 20, "test": 40}
    assert split_rows(rows, {"dev": 0.1, "test": 0.2}) == found


@settings(max_examples=50, deadline=None)
@given(
    parts=st.lists(
        st.tuples(
            st.sampled_from(["PER", "ORG", None]),
            st.sampled_from(["a", "b", "c", None]),
            st.integers(0, 15),
        ),
        max_size=40,
    ),
    dev=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_documents_and_duplicates_stay_together(
    parts: list[tuple[str | None, str | None, int]], dev: float
) -> None:
    rows = [
        make_row(i, label, group, ("Text {}", "text, {}!")[i % 2].format(text))
        for i, (label, group, text) in enumerate(parts)
    ]
    held = make_row(99, "PER", text="held out")
    held = held._replace(post=held.post.model_copy(update={"split": "test"}))
    found = split_rows([*rows, held], {"dev": dev})
    assert found[-1] == held
    for key in ("group", "text"):
        splits: dict[object, set[str]] = {}
        for row in found[:-1]:
            name = row.group if key == "group" else make_text_key(row.post.text)
            if name is not None:
                splits.setdefault(name, set()).add(row.post.split)
        assert all(len(found) == 1 for found in splits.values())


def test_what_is_odd_about_labels_is_reported() -> None:
    posts = [
        make_row(i, label).post
        for i, label in enumerate(["ORG", "Org", "ORG ", "PER", "work_of_art", "WORK OF ART"])
    ]
    posts.append(make_row(7, "LOC").post.model_copy(update={"split": "dev"}))
    posts.append(posts[0].model_copy(update={"id": "same", "split": "test"}))
    findings = Findings()
    check_labels(posts, findings)
    assert findings.changed == {
        "labels that look like the same one": [
            "'ORG' (2), 'ORG ' (1), 'Org' (1)",
            "'WORK OF ART' (1), 'work_of_art' (1)",
        ],
        "labels that no training post has": ["'LOC', in dev"],
        "training posts whose text is also held out": ["0"],
    }


def test_the_command(command: Command, tmp_path: Path) -> None:
    lines = [f"Anna{i} B-PER\nin O\nOslo{i} B-{'LOC' if i % 2 else 'Loc'}\n" for i in range(40)]
    (tmp_path / "all.conll").write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "posts.jsonl"
    result = command("convert", tmp_path / "all.conll", "-o", out, "--dev", 0.1, "--test", 0.2)
    assert result.exit_code == 0, result.output
    splits = Counter(post.split for post in read_posts(out))
    assert splits == {"train": 28, "dev": 4, "test": 8}
    assert "labels that look like the same one: 1" in result.output
    assert ["PER", "28", "4", "8"] in [line.split() for line in result.output.splitlines()]
    refused = command("convert", out, "-o", out, "--dev", 0.1, "--split", "test")
    assert refused.exit_code == 2 and "exclude each other" in refused.output


@pytest.mark.parametrize("option", ["--dev", "--test"])
def test_a_share_of_all_is_refused(command: Command, tmp_path: Path, option: str) -> None:
    result = command("convert", tmp_path / "x.jsonl", "-o", tmp_path / "y.jsonl", option, 1.5)
    assert result.exit_code == 2

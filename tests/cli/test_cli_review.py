"""The command `review`, and what becomes of its corrections."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
import toy
from click.testing import Result
from spacy.tokens import DocBin

from spacy_mmcot.corpus.posts import read_posts
from spacy_mmcot.types import ID_KEY

Command = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The toy texts without labels, and those of dev with them."""
    folder = tmp_path / "gold"
    folder.mkdir()
    nlp = spacy.blank("en")
    for split in ("train", "dev"):
        docs = [
            example.reference if split == "dev" else example.predicted
            for example in toy.examples(nlp)
        ]
        for number, doc in enumerate(docs):
            doc.user_data[ID_KEY] = f"{split}{number}"
        DocBin(docs=docs, store_user_data=True).to_disk(folder / f"{split}.spacy")
    return folder


def test_corrections_reach_the_posts(
    command: Command, toy_model: Path, data: Path, tmp_path: Path
) -> None:
    tasks = tmp_path / "tasks.jsonl"
    options = ("--format", "prodigy", "-n", 3)
    done = command("review", toy_model, data / "train.spacy", "-o", tasks, *options)
    assert done.exit_code == 0, done.output
    assert "3 of 7 texts" in done.stdout
    rows = [json.loads(line) for line in tasks.read_text("utf-8").splitlines()]
    assert len(rows) == 3 and any(row["spans"] for row in rows)
    for row in rows:  # a person finds one name alone
        row["spans"] = [{"start": 0, "end": 2, "label": "NEW"}]
    tasks.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    posts = tmp_path / "posts.jsonl"
    assert command("convert", data, "-o", posts).exit_code == 0
    done = command("convert", posts, "--reviewed", tasks, "-o", tmp_path / "next.jsonl")
    assert done.exit_code == 0, done.output
    changed = [post for post in read_posts(tmp_path / "next.jsonl") if post.entities is not None]
    assert {post.id for post in changed if post.split == "train"} == {
        row["meta"]["id"] for row in rows
    }
    assert [e.label for post in changed if post.split == "train" for e in post.entities or ()] == [
        "NEW"
    ] * 3


def test_reviewed_texts_are_not_shown_again(
    command: Command, toy_model: Path, data: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    as_tasks = ("--format", "prodigy")
    assert command("review", toy_model, data, "-o", first, *as_tasks, "-n", 5).exit_code == 0
    assert command("convert", first, "-o", tmp_path / "done.jsonl").exit_code == 0
    skip = ("--skip", tmp_path / "done.jsonl")
    assert command("review", toy_model, data, "-o", second, *as_tasks, *skip).exit_code == 0
    ids = [
        {json.loads(line)["meta"]["id"] for line in path.read_text("utf-8").splitlines()}
        for path in (first, second)
    ]
    assert (len(ids[0]), len(ids[1])) == (5, 9) and not ids[0] & ids[1]


def test_a_page_has_the_labels_of_the_pipeline(
    command: Command, toy_model: Path, data: Path, tmp_path: Path
) -> None:
    page = tmp_path / "review.html"
    done = command("review", toy_model, data / "train.spacy", "-o", page)
    assert done.exit_code == 0, done.output
    shown = json.loads(page.read_text("utf-8").split('id="data">')[1].split("</script>")[0])
    assert list(shown["labels"]) == list(toy.LABELS)
    assert len(shown["texts"]) == 7


def test_a_format_has_its_suffix(
    command: Command, toy_model: Path, data: Path, tmp_path: Path
) -> None:
    done = command("review", toy_model, data, "-o", tmp_path / "tasks.jsonl")
    assert (done.exit_code, done.stderr[:9]) == (2, "✘ [E729] ")


def test_a_pipeline_without_labels_needs_a_scheme(
    command: Command, data: Path, tmp_path: Path
) -> None:
    spacy.blank("en").to_disk(tmp_path / "blank")
    page = ("-o", tmp_path / "review.html")
    done = command("review", tmp_path / "blank", data, *page)
    assert (done.exit_code, done.stderr[:9]) == (2, "✘ [E811] ")
    (tmp_path / "scheme.yml").write_text("entities: {PER: people}")
    scheme = ("--scheme", tmp_path / "scheme.yml")
    assert command("review", tmp_path / "blank", data, *page, *scheme).exit_code == 0

"""Recorded rewritings beside a corpus file, by row number."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Command = Callable[..., Result]

POST = {
    "id": "a",
    "text": "Anna and Bo sing in Oslo",
    "entities": [
        {"start": 20, "end": 24, "label": "LOC"},
        {"start": 0, "end": 4, "label": "PER"},
        {"start": 9, "end": 11, "label": "PER"},
    ],
}
REWRITING: dict[str, Any] = {
    "n": 1,
    "style": "wow , Anna and Bo sing in Oslo",
    "entity": "Cy and Bo sing in Rome",
    "swaps": ["Cy", "Bo", "Rome"],
    "possible": False,
    "image": "a stage",
}


@pytest.fixture
def run(command: Command, jsonl: Callable[..., Path], tmp_path: Path) -> Callable[..., Result]:
    def convert(*rewritings: dict[str, Any], options: tuple[object, ...] = ()) -> Result:
        posts = jsonl("posts.jsonl", {"id": "first", "text": "nothing here"}, POST)
        file = jsonl("rewritings.jsonl", *rewritings)
        out = ("-o", tmp_path / "out.jsonl", "--answers-out", tmp_path / "answers.jsonl")
        return command("convert", posts, "--rewritings", file, *out, *options)

    return convert


def test_swaps_stand_for_the_entities_in_text_order(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    done = run(REWRITING)
    assert done.exit_code == 0, done.output
    (answers,) = map(json.loads, (tmp_path / "answers.jsonl").read_text("utf-8").splitlines())
    assert answers == {
        "id": "a",
        "style": REWRITING["style"],
        "entity": {
            "text": REWRITING["entity"],
            "swaps": [["Anna", "Cy"], ["Oslo", "Rome"]],
            "possible": False,
        },
        "image": "a stage",
    }


def test_rewritings_join_what_is_known(
    run: Callable[..., Result], jsonl: Callable[..., Path], tmp_path: Path
) -> None:
    known = jsonl("known.jsonl", {"id": "a", "sentence": "A concert."})
    assert run(REWRITING, options=("--answers", known)).exit_code == 0
    (answers,) = map(json.loads, (tmp_path / "answers.jsonl").read_text("utf-8").splitlines())
    assert answers["sentence"] == "A concert." and answers["style"] == REWRITING["style"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"swaps": ["Cy"]}, "1 swaps for row 1, 'a'"),
        ({"swaps": ["Cy", "", "Rome"]}, "swaps[1]"),
        ({"stile": "x"}, "stile"),
        ({"n": "1"}, "field n"),
    ],
)
def test_broken_rows_are_named_or_skipped(
    change: dict[str, Any], words: str, run: Callable[..., Result]
) -> None:
    done = run(REWRITING | change)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert "[E101]" in line and "rewritings.jsonl, line 1" in line and words in line
    done = run(REWRITING | change, options=("--skip-invalid",))
    assert done.exit_code == 0 and "1 broken rows skipped" in done.output


def test_a_row_that_is_not_there_is_listed(run: Callable[..., Result]) -> None:
    done = run(REWRITING | {"n": 9})
    assert done.exit_code == 0 and "row 9" in done.output


@pytest.mark.parametrize(("dimension", "made"), [("style", 447), ("entity", 413), ("image", 447)])
def test_the_rewritings_of_twitter2017_make_posts(
    dimension: str, made: int, command: Command, shared: Path, tmp_path: Path
) -> None:
    folder, answers = shared / "twitter2017", tmp_path / "answers.jsonl"
    posts = tmp_path / "posts.jsonl"
    done = command(
        *("convert", folder / "train.txt", "--labelled", folder / "low_resource.json"),
        *("--rewritings", folder / "augmentations.jsonl", "-o", posts, "--answers-out", answers),
    )
    assert done.exit_code == 0, done.output
    new = tmp_path / "new.jsonl"
    out = ("-o", new, "--answers-out", tmp_path / "new.answers.jsonl")
    done = command("augment", posts, answers, "--dimension", dimension, *out)
    assert done.exit_code == 0, done.output
    assert len(new.read_text("utf-8").splitlines()) == made

"""Parts of a corpus: so much of it labelled, one domain of it, under other labels."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from research.__main__ import app
from spacy_mmcot.corpus.posts import read_posts
from spacy_mmcot.types import Post

Command = Callable[..., Result]
Convert = Callable[..., dict[str, list[Post]]]


@pytest.fixture
def command() -> Command:
    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})

    return run


@pytest.fixture
def posts(jsonl: Callable[..., Path]) -> Path:
    def post(number: int, split: str, domain: str) -> dict[str, Any]:
        entity = {"start": 0, "end": 4, "label": "PER" if number % 2 else "OTHER"}
        text = f"Anna says {number}"
        return {
            **{"id": str(number), "text": text, "entities": [entity]},
            **{"split": split, "domain": domain},
        }

    train = [post(i, "train", "places" if i < 10 else "sports") for i in range(20)]
    return jsonl("posts.jsonl", *train, post(20, "unlabelled", "places"), post(21, "dev", "sports"))


@pytest.fixture
def convert(command: Command, posts: Path, tmp_path: Path) -> Convert:
    """The posts of each split that `convert` writes."""

    def run(*options: object) -> dict[str, list[Post]]:
        output = tmp_path / "out.jsonl"
        done = command("convert", posts, "-o", output, *options)
        assert done.exit_code == 0, done.output
        found: dict[str, list[Post]] = {}
        for post in read_posts(output):
            found.setdefault(post.split, []).append(post)
        return found

    return run


def ids(posts: list[Post]) -> set[str]:
    return {post.id for post in posts}


def test_parts_lie_in_one_another(convert: Convert) -> None:
    parts = [convert("--fraction", f) for f in (0.05, 0.1, 0.5, 1.0)]
    assert [len(part["train"]) for part in parts] == [1, 2, 10, 20]
    for small, large in pairwise(parts):
        assert ids(small["train"]) < ids(large["train"])
    for part in parts:
        labelled, rest = ids(part["train"]), ids(part["unlabelled"])
        assert not labelled & rest and len(labelled | rest) == 21
        assert "20" in rest and ids(part["dev"]) == {"21"}


def test_the_draw_hangs_on_its_seed(convert: Convert) -> None:
    first = ids(convert("--fraction", 0.5)["train"])
    assert ids(convert("--fraction", 0.5, "--seed", 1)["train"]) == first
    assert ids(convert("--fraction", 0.5, "--seed", 2)["train"]) != first


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, "nan"])
def test_what_is_no_fraction(fraction: object, command: Command, posts: Path) -> None:
    done = command("convert", posts, "-o", posts.parent / "out.jsonl", "--fraction", fraction)
    assert done.exit_code == 2
    assert done.stderr.startswith("✘ [E714] ") and len(done.stderr.splitlines()) == 1


def test_domains(convert: Convert) -> None:
    found = convert("--domain", "places")
    assert {name: len(part) for name, part in found.items()} == {"train": 10, "unlabelled": 1}
    found = convert("--domain", "places", "--domain", "sports")
    assert sum(map(len, found.values())) == 22


def test_an_unknown_domain(command: Command, posts: Path) -> None:
    done = command("convert", posts, "-o", posts.parent / "out.jsonl", "--domain", "music")
    assert done.exit_code == 2
    assert "[E716]" in done.stderr and "places, sports" in done.stderr


def test_labels_under_other_names(convert: Convert) -> None:
    found = convert("--rename-label", "OTHER=MISC")
    labels = [entity.label for post in found["train"] for entity in post.entities or ()]
    assert sorted(labels) == ["MISC"] * 10 + ["PER"] * 10


@pytest.mark.parametrize(
    ("renaming", "code", "status"),
    [
        (["OTHER"], "E715", 2),
        (["=MISC"], "E715", 2),
        (["OTHER="], "E715", 2),
        (["OTHER=A", "OTHER=B"], "E715", 2),
        (["OHTER=MISC"], "E207", 1),
    ],
)
def test_what_cannot_be_renamed(
    renaming: list[str], code: str, status: int, command: Command, posts: Path
) -> None:
    options = [word for text in renaming for word in ("--rename-label", text)]
    done = command("convert", posts, "-o", posts.parent / "out.jsonl", *options)
    assert done.exit_code == status
    assert done.stderr.startswith(f"✘ [{code}] ") and len(done.stderr.splitlines()) == 1


def test_one_split_alone_as_another(convert: Convert, command: Command, posts: Path) -> None:
    """How the labels of unlabelled posts come into a file that only scores read."""
    found = convert("--only", "unlabelled", "--split", "test")
    assert list(found) == ["test"] and ids(found["test"]) == {"20"}
    assert list(convert("--only", "dev")) == ["dev"]
    done = command("convert", posts, "-o", posts.parent / "out.jsonl", "--only", "test")
    assert done.exit_code == 1 and "[E720]" in done.stderr

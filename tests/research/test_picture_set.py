"""The synthetic corpus: only who looks at the pictures can be better than chance."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from research import picture_set
from research.__main__ import app
from spacy_mmcot.types import Post

Floats = NDArray[numpy.float64]
POSTS = 600


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    picture_set.write_picture_set(folder, seed=3, posts=POSTS)
    return folder


@pytest.fixture(scope="module")
def posts(folder: Path) -> list[Post]:
    lines = (folder / "posts.jsonl").read_text("utf-8").splitlines()
    return [Post.model_validate_json(line) for line in lines]


def label_of(post: Post) -> str:
    (entity,) = post.entities or []
    return entity.label


def test_splits_and_names(posts: list[Post]) -> None:
    assert Counter(post.split for post in posts) == {"train": 360, "dev": 120, "test": 120}
    assert len({post.id for post in posts}) == POSTS
    for post in posts:
        (entity,) = post.entities or []
        assert post.text[entity.start : entity.end] in picture_set.NAMES
        assert sum(post.text.count(name) for name in picture_set.NAMES) == 1
        assert post.caption is None


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_text_is_right_half_of_the_time(split: str, posts: list[Post]) -> None:
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    names: Counter[str] = Counter()
    for post in posts:
        if post.split == split:
            labels[post.text][label_of(post)] += 1
            (entity,) = post.entities or []
            names[post.text[entity.start : entity.end]] += 1
    right = sum(max(counts.values()) for counts in labels.values())
    assert right / sum(names.values()) == 0.5
    assert set(names) == set(picture_set.NAMES)
    assert max(names.values()) <= 1.5 * min(names.values())


def test_no_picture_twice(folder: Path, posts: list[Post]) -> None:
    assert len({post.image for post in posts}) == POSTS
    digests = set()
    for post in posts:
        assert post.image is not None
        with Image.open(folder / post.image) as image:
            assert (image.mode, image.size) == ("RGB", (96, 72))
            digests.add(hashlib.sha256(image.tobytes()).digest())
    assert len(digests) == POSTS


def accuracy(features: Floats, posts: list[Post], ridge: float) -> float:
    """Of a linear classifier fitted to the train split, on the other two."""
    signs = numpy.array([1.0 if label_of(post) == "PER" else -1.0 for post in posts])
    train = numpy.array([post.split == "train" for post in posts])
    scaled = (features - features[train].mean(0)) / features[train].std(0)
    known = scaled[train]
    weights = numpy.linalg.solve(
        known.T @ known + ridge * numpy.eye(known.shape[1]), known.T @ signs[train]
    )
    return float((scaled[~train] @ weights * signs[~train] > 0).mean())


@pytest.fixture(scope="module")
def pixels(folder: Path, posts: list[Post]) -> Floats:
    """(posts, height, width, 3)"""
    arrays = [numpy.asarray(Image.open(folder / str(post.image))) for post in posts]
    return numpy.stack(arrays).astype("float64")


def test_mean_colour_does_not_tell(pixels: Floats, posts: list[Post]) -> None:
    mean = pixels.mean((1, 2))
    assert 0.4 < accuracy(mean, posts, 1.0) < 0.6
    # Nor does how far it is from the middle.
    products = numpy.stack([mean[:, i] * mean[:, j] for i in range(3) for j in range(i, 3)], 1)
    assert 0.4 < accuracy(numpy.concatenate([mean, products], 1), posts, 1.0) < 0.6


def test_what_is_drawn_tells(pixels: Floats, posts: list[Post]) -> None:
    """Where the edges are, in a grid of 9 x 12, is enough to be right nearly always."""
    grey = pixels.mean(3).reshape(len(posts), 36, 2, 48, 2).mean((2, 4))
    edges = abs(numpy.diff(grey, axis=1, append=0)) + abs(numpy.diff(grey, axis=2, append=0))
    features = edges.reshape(len(posts), 9, 4, 12, 4).mean((2, 4)).reshape(len(posts), -1)
    assert accuracy(features, posts, 100.0) > 0.85


def test_the_seed_decides(tmp_path: Path) -> None:
    def write(name: str, seed: int) -> dict[str, bytes]:
        folder = tmp_path / name
        words = ["picture-set", str(folder), "--seed", str(seed), "--posts", "20"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        assert "20 posts" in done.output
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    first = write("a", 1)
    assert len(first) == 21
    assert first == write("b", 1)
    other = write("c", 2)
    assert not set(first.values()) & set(other.values())
    splits = Counter(json.loads(row)["split"] for row in first["posts.jsonl"].splitlines())
    assert splits == {"train": 12, "dev": 4, "test": 4}


@pytest.mark.parametrize("posts", ["11", "8", "-2", "x"])
def test_a_number_of_posts_that_cannot_be(posts: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["picture-set", str(tmp_path), "--posts", posts])
    assert done.exit_code == 2
    assert "--posts" in done.stderr
    assert list(tmp_path.iterdir()) == []

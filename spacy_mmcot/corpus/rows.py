"""What every reader of a corpus file yields, and how rows come by a unique id."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..types import SPLITS, Answers, Post, Split


class Row(NamedTuple):
    """A post, the number of its row in the file (from 0, broken and skipped rows included), and
    the answers about it where the file holds them. Rows of one `group` and text are parts of one
    post (see `joining`)."""

    number: int
    post: Post
    answers: Answers | None = None
    group: str | None = None


def unique_id(name: str, ids: set[str]) -> str:
    """`name`, or `name-2`, `name-3`... where earlier posts have it; the id is added to `ids`."""
    result, count = name, 1
    while result in ids:
        count += 1
        result = f"{name}-{count}"
    ids.add(result)
    return result


def split_of(path: Path) -> Split:
    """The split a file's name stands for; `train` where it stands for none."""
    stem = path.stem.lower()
    if stem in {"valid", "validation", "val"}:
        return "dev"
    return next((split for split in SPLITS if split == stem), "train")

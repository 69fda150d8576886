"""Posts files: a JSON object a line, the interchange format of all stages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import located
from ..types import Post
from .rows import CURE, Findings, Row, iter_records, write_records


def read_rows(path: Path, findings: Findings, ids: set[str]) -> Iterator[Row]:
    """The posts of a posts file. An id that is in `ids` makes a broken row."""
    for number, line, post in iter_records(path, Post, findings):
        if post.id in ids:
            problem = f"field id is {post.id!r}, which an earlier post has"
            findings.reject(located(path, line, problem, "an id of its own for each post", CURE))
            continue
        ids.add(post.id)
        yield Row(number, post)


def iter_posts(path: Path | str, findings: Findings | None = None) -> Iterator[Post]:
    """Stream the posts of a posts file (JSON Lines).

    Raises MMCoTError for a missing file and, unless `findings.skip_invalid`, at the first broken
    row.
    """
    for row in read_rows(Path(path), findings or Findings(), set()):
        yield row.post


def read_posts(path: Path | str, findings: Findings | None = None) -> list[Post]:
    """All posts of a posts file; raises like `iter_posts`."""
    return list(iter_posts(path, findings))


def write_posts(path: Path | str, posts: Iterable[Post]) -> int:
    """Write a posts file, whole or not at all; returns the number of posts."""
    return write_records(Path(path), posts)

"""Reading a corpus file of any format, and the paths of its pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import Errors, MMCoTError
from ..files import iter_lines
from ..pictures.read import is_address
from ..types import Post, Split
from . import conll, docbin, mnre, posts, prodigy
from .posts import Findings, Row

Format = Literal["posts", "conll", "mnre", "prodigy", "spacy"]
FORMATS: tuple[Format, ...] = get_args(Format)

_CONLL_SUFFIXES = {".conll", ".bio", ".iob", ".tsv"}
_PRODIGY_FIELDS = {"spans", "tokens", "answer", "meta", "_input_hash", "_task_hash"}


def guess_format(path: Path) -> Format:
    """The format that a file's name and first row tell. Raises MMCoTError where they tell none."""
    suffix = path.suffix.lower()
    if suffix == docbin.SUFFIX or path.is_dir():
        return "spacy"
    if suffix in _CONLL_SUFFIXES:
        return "conll"
    if suffix not in {".txt", ".jsonl"}:
        raise MMCoTError(Errors.E104.format(path=path, allowed=", ".join(FORMATS)))
    line, raw = next(((line, raw) for line, raw in iter_lines(path) if raw.strip()), (0, b""))
    if suffix == ".txt":
        return "mnre" if raw.lstrip().startswith(b"{") else "conll"
    try:
        row = posts.parse_line(path, line, raw)
    except MMCoTError:
        return "posts"
    return "prodigy" if isinstance(row, dict) and row.keys() & _PRODIGY_FIELDS else "posts"


def read_rows(
    path: Path,
    findings: Findings,
    ids: set[str],
    *,
    format: Format | None = None,
    split: Split | None = None,
    repair_bio: bool = False,
) -> Iterator[Row]:
    """Stream a file's rows.

    format: None guesses it.
    split: replaces each post's own.
    repair_bio: see `conll.read_rows`.

    A picture's path is relative to the file's folder in the file, and to the working directory in
    the rows; a picture that is not there is reported. Raises MMCoTError for a file that is missing
    or of another format and, unless `findings.skip_invalid`, at the first invalid row.
    """
    readers: dict[Format, Callable[[Path, Findings, set[str]], Iterator[Row]]] = {
        "posts": posts.read_rows,
        "conll": partial(conll.read_rows, repair_bio=repair_bio),
        "mnre": mnre.read_rows,
        "prodigy": prodigy.read_rows,
        "spacy": docbin.read_rows,
    }
    chosen = format or guess_format(path)
    for row in readers[chosen](path, findings, ids):
        update: dict[str, str] = {}
        if split:
            update["split"] = split
        # The paths in a .spacy file are relative to the working directory already.
        if row.post.image and chosen != "spacy":
            update["image"] = join_image(path.parent, row.post.image)
        post = row.post.model_copy(update=update)
        if post.image and not is_address(post.image) and not Path(post.image).is_file():
            findings.change("posts whose picture is not there", f"{post.id}: {post.image}")
        yield row._replace(post=post)


def read_corpus(paths: Iterable[Path], findings: Findings, **settings: Any) -> list[Row]:
    """The rows of several files, whose ids are unique among all. settings: those of `read_rows`."""
    ids: set[str] = set()
    return [row for path in paths for row in read_rows(path, findings, ids, **settings)]


def replace_labels(rows: Iterable[Row], reviewed: Iterable[Row]) -> list[Row]:
    """The rows, with text and labels of the reviewed posts of the same id in place of theirs; then
    the reviewed posts that are no one else's. A reviewed post keeps its split, but for
    `unlabelled`, whose labels nobody would read."""
    found = {row.post.id: row for row in reviewed}
    kept = []
    for row in rows:
        post = row.post
        if new := found.pop(post.id, None):
            names = ("text", "entities", "relations", "pairs")
            update = {name: getattr(new.post, name) for name in names}
            split = "train" if post.split == "unlabelled" else post.split
            row = row._replace(post=post.model_copy(update={**update, "split": split}))
        kept.append(row)
    return [*kept, *found.values()]


def join_image(folder: Path, image: str) -> str:
    """The picture's path in a posts file of `folder`, relative to the working directory. Addresses
    and absolute paths stay."""
    return image if is_address(image) else (folder / image).as_posix()


def make_image_relative(post: Post, folder: Path) -> Post:
    """The post with its picture's path as a posts file in `folder` holds it."""
    if post.image is None or is_address(post.image):
        return post
    return post.model_copy(update={"image": Path(os.path.relpath(post.image, folder)).as_posix()})

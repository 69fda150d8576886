"""Reading a corpus file of any format, and the paths of its pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from ..errors import Errors, MMCoTError
from ..files import iter_lines
from ..types import Post, Split
from . import conll as formats_conll
from . import docbin_posts as formats_spacy
from . import mnre as formats_mnre
from . import posts as formats
from . import prodigy as formats_prodigy
from .rows import Findings, Row, parse_line

Format = Literal["posts", "conll", "mnre", "prodigy", "spacy"]
FORMATS: tuple[Format, ...] = get_args(Format)

_PRODIGY_ONLY = {"spans", "tokens", "answer", "meta", "_input_hash", "_task_hash"}


def guess_format(path: Path) -> Format:
    """Raises MMCoTError where neither the name nor the first row tells."""
    suffix = path.suffix.lower()
    if suffix == ".spacy" or path.is_dir():
        return "spacy"
    if suffix == ".txt":
        first_row = next((raw for _, raw in iter_lines(path) if raw.strip()), b"")
        return "mnre" if first_row.lstrip().startswith(b"{") else "conll"
    if suffix in {".conll", ".bio", ".iob", ".tsv"}:
        return "conll"
    if suffix == ".jsonl":
        for line, raw in iter_lines(path):
            if raw.strip():
                try:
                    first = parse_line(path, line, raw)
                except MMCoTError:
                    break
                if isinstance(first, dict) and first.keys() & _PRODIGY_ONLY:
                    return "prodigy"
                break
        return "posts"
    raise MMCoTError(Errors.E104.format(path=path, allowed=", ".join(FORMATS)))


def read_rows(
    path: Path,
    findings: Findings,
    ids: set[str],
    *,
    format: Format | None = None,
    split: Split | None = None,
    repair_bio: bool = False,
) -> Iterator[Row]:
    """Stream a file's rows, those of an MNRE file not yet joined; `split` overrides each post's
    own. Picture paths, relative to the
    file's folder in the file, come out relative to where that folder was given from.

    A picture that is not there is reported. Raises MMCoTError for a file that is missing or of
    another format and, unless `findings.skip_invalid`, at the first broken row.
    """
    readers: dict[Format, Callable[[Path, Findings, set[str]], Iterator[Row]]] = {
        "posts": formats.read_rows,
        "conll": partial(formats_conll.read_rows, repair_bio=repair_bio),
        "mnre": formats_mnre.read_rows,
        "prodigy": formats_prodigy.read_rows,
        "spacy": formats_spacy.read_rows,
    }
    chosen = format or guess_format(path)
    for row in readers[chosen](path, findings, ids):
        update: dict[str, str] = {}
        if split:
            update["split"] = split
        # A .spacy file is not read where it was written, so its paths do not hang on its folder.
        if row.post.image and chosen != "spacy":
            update["image"] = join_image(path.parent, row.post.image)
        post = row.post.model_copy(update=update)
        if post.image and "://" not in post.image and not Path(post.image).is_file():
            findings.change("posts whose picture is not there", f"{post.id}: {post.image}")
        yield row._replace(post=post)


def join_image(folder: Path, image: str) -> str:
    """The picture of a posts file in `folder` as seen from where `folder` is. Web addresses and
    absolute paths stay."""
    return image if "://" in image else (folder / image).as_posix()


def relative_image(post: Post, folder: Path) -> Post:
    """The post with its picture's path as a posts file in `folder` holds it."""
    if post.image is None or "://" in post.image:
        return post
    return post.model_copy(update={"image": Path(os.path.relpath(post.image, folder)).as_posix()})

"""Posts files, the interchange format of all stages: JSON Lines, a post a line. Also what all
readers of corpus files share: they yield `Row` and report in `Findings`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import MMCoTError
from ..files import decode_line, iter_lines, open_text, parse_json, write_records
from ..messages import explain, located, shown
from ..pictures.read import is_address
from ..types import SPLITS, Answers, Post, Split

# The fields that a post need not have, and how like one of them a misspelt one is.
_OPTIONAL = Post.model_fields.keys() - {"id", "text"}
_LIKENESS = 0.8
CURE = "Correct the row, or leave such rows out with convert --skip-invalid."


class BadRow(ValueError):
    """What is wrong with a row, and what is expected."""


class Row(NamedTuple):
    """A post, the number of its row in the file (from 0, invalid rows counted too), where it is
    ("line 7"), and the answers about it where the file holds them.

    group: rows of one group are parts of one document, or about the same tweet. picture: the name
    under which the file refers to the post's picture, where it gives no path.
    """

    number: int
    post: Post
    place: str = ""
    answers: Answers | None = None
    group: str | None = None
    picture: str | None = None


@dataclass(frozen=True)
class ReadSettings:
    """How to read corpus files.

    format: None detects it.
    split: of all posts, instead of their own.
    repair_bio: read an I- tag that continues no entity as B-.
    text_column, id_column: columns of tables; None stands for `text`, and for `id` if there is one.
    delimiter: of CSV files; None detects it.
    encoding: of text files; None stands for UTF-8, or what a byte order mark says.
    pictures: folder in which posts' pictures are looked for by name or id.
    extracted: folder to which pictures that a corpus file contains are written.
    """

    format: str | None = None
    split: Split | None = None
    repair_bio: bool = False
    text_column: str | None = None
    id_column: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    pictures: Path | None = None
    extracted: Path | None = None


DEFAULTS = ReadSettings()


@dataclass
class Findings:
    """What reading and converting skipped, lost or changed.

    skip_invalid: skip an invalid row and list it, instead of raising its error.
    skipped: the errors of the skipped rows.
    lost: what could not be kept, and changed: what was kept in another form. Both map a headline
        to the places.
    """

    skip_invalid: bool = False
    skipped: list[str] = field(default_factory=list)
    lost: dict[str, list[str]] = field(default_factory=dict)
    changed: dict[str, list[str]] = field(default_factory=dict)

    def reject(self, error: MMCoTError) -> None:
        """Note an invalid row, or raise its error."""
        if not self.skip_invalid:
            raise error
        self.skipped.append(str(error))

    @contextmanager
    def checking(self, path: Path, place: int | str) -> Iterator[None]:
        """Reject the row at this place of a file, a line number or a name, where the block raises
        BadRow, ValidationError or MMCoTError."""
        try:
            yield
        except BadRow as error:
            problem, expected = error.args
            self.reject(located(path, place, problem, expected, CURE))
        except ValidationError as error:
            self.reject(located(path, place, *explain(error), CURE))
        except MMCoTError as error:
            self.reject(error)

    def lose(self, headline: str, place: str) -> None:
        self.lost.setdefault(headline, []).append(place)

    def change(self, headline: str, place: str) -> None:
        self.changed.setdefault(headline, []).append(place)

    def describe(self, changes_shown: int = 5) -> Iterator[str]:
        """The lines of a report: every skipped row and every loss, the first few of each kind of
        change."""
        if self.skipped:
            yield f"{len(self.skipped)} invalid rows skipped:"
            yield from (f"  {error}" for error in self.skipped)
        for kind, limit in ((self.lost, None), (self.changed, changes_shown)):
            for headline, places in kind.items():
                yield f"{headline}: {len(places)}"
                yield from (f"  {place}" for place in places[:limit])
                if limit and len(places) > limit:
                    yield f"  and {len(places) - limit} more"


def make_text_id(text: str) -> str:
    """The id of a post whose file gives it none. It depends on the text alone, so that answers
    about a post stay with it when other rows come or go."""
    return f"text-{sha256(text.encode()).hexdigest()[:12]}"


def make_unique_id(name: str, ids: dict[str, int]) -> str:
    """`name`, or `name-2`, `name-3`... where earlier posts have it. Adds the id to `ids`, which
    count how often each name was taken."""
    result = name
    while result in ids:
        ids[name] += 1
        result = f"{name}-{ids[name]}"
    ids[result] = 1
    return result


def find_split(name: str) -> Split | None:
    """The split that a name stands for, such as "validation" or "train-00000-of-00002"."""
    name = re.sub(r"-\d+-of-\d+$", "", name.strip().lower())
    if name in {"valid", "validation", "val"}:
        return "dev"
    return next((split for split in SPLITS if split == name), None)


Model = TypeVar("Model", bound=BaseModel)


def read_rows(path: Path, findings: Findings, settings: ReadSettings = DEFAULTS) -> Iterator[Row]:
    """The posts of a posts file."""
    for number, place, post in iter_records(path, Post, findings, settings.encoding):
        yield Row(number, post, place)


def claim_id(name: str, ids: dict[str, int]) -> None:
    """Add a post's id to `ids`. Raises BadRow where an earlier post has it."""
    if name in ids:
        problem = f"field id is {name!r}, which an earlier post has"
        raise BadRow(problem, "a unique id for each post")
    ids[name] = 1


def iter_posts(path: Path | str, findings: Findings | None = None) -> Iterator[Post]:
    """Stream the posts of a posts file (JSON Lines). Raises MMCoTError for a missing file and,
    unless `findings.skip_invalid`, at the first invalid row."""
    path, findings, ids = Path(path), findings or Findings(), dict[str, int]()
    for row in read_rows(path, findings):
        with findings.checking(path, row.place):
            claim_id(row.post.id, ids)
            yield row.post


def read_posts(path: Path | str, findings: Findings | None = None) -> list[Post]:
    """All posts of a posts file; raises like `iter_posts`."""
    return list(iter_posts(path, findings))


def write_posts(path: Path | str, posts: Iterable[Post]) -> int:
    """Write a posts file, whole or not at all; returns the number of posts."""
    return write_records(Path(path), posts)


def join_image(folder: Path, image: str) -> str:
    """The picture's path in a posts file of `folder`, relative to the working directory. Addresses
    and absolute paths stay."""
    return image if is_address(image) else (folder / image).as_posix()


def make_image_relative(post: Post, folder: Path) -> Post:
    """The post with its picture's path as a posts file in `folder` holds it."""
    if post.image is None or is_address(post.image):
        return post
    return post.model_copy(update={"image": Path(os.path.relpath(post.image, folder)).as_posix()})


def iter_records(
    path: Path, model: type[Model], findings: Findings, encoding: str | None = None
) -> Iterator[tuple[int, str, Model]]:
    """The values of `iter_values` as records of the model. An invalid row has a number too, so that
    numbers stay true to the file."""
    for number, place, value in iter_values(path, findings, encoding):
        with findings.checking(path, place):
            yield number, place, model.model_validate(value)


def iter_values(
    path: Path, findings: Findings, encoding: str | None = None
) -> Iterator[tuple[int, str, Any]]:
    """Row numbers from 0, places, and values: of the list in a .json file, otherwise of the lines
    of a JSON Lines file, which may be called .json too. A blank line is no row."""
    if path.suffix.lower() == ".json" and not _has_json_lines(path, encoding):
        for number, value in enumerate(_read_list(path, encoding)):
            yield number, f"row {number + 1}", value
        return
    for number, (line, raw) in enumerate(iter_filled_lines(path, encoding)):
        with findings.checking(path, line):
            text = decode_line(path, line, raw)
            try:
                value = parse_json(text)
            except ValueError as error:
                expected = "one JSON object (convert makes posts of other formats)"
                raise BadRow(str(error), expected) from None
            yield number, f"line {line}", value


def iter_filled_lines(path: Path, encoding: str | None = None) -> Iterator[tuple[int, bytes]]:
    """Those of `iter_lines` that are not blank."""
    return ((line, raw) for line, raw in iter_lines(path, encoding) if raw.strip())


def _has_json_lines(path: Path, encoding: str | None) -> bool:
    """Whether the first of several lines is a JSON value."""
    lines = [raw for _, raw in islice(iter_filled_lines(path, encoding), 2)]
    try:
        return len(lines) == 2 and parse_json(lines[0].decode()) is not None
    except ValueError:
        return False


def _read_list(path: Path, encoding: str | None) -> list[Any]:
    """The list in a JSON file, or its only object."""
    with open_text(path, encoding) as file:
        whole = file.read()
    try:
        value = parse_json(whole)
    except ValueError as error:
        raise located(path, "the whole file", str(error), "one JSON list") from None
    if isinstance(value, dict):
        # Some tools wrap the list: {"classes": ["PER"], "annotations": [...]}.
        lists = [v for v in value.values() if isinstance(v, list) and v]
        inner = [v for v in lists if isinstance(v[0], list | dict)]
        is_post = bool(value.keys() & {"text", "data"})
        if len(inner) > 1 and not is_post:
            names = ", ".join(value)
            raise located(path, "the whole file", f"it holds several lists: {names}", "one list")
        value = inner[0] if inner and not is_post else [value]
    if not isinstance(value, list):
        raise located(path, "the whole file", f"it is {shown(value)}", "one JSON list")
    return [item for item in value if item is not None]


def find_entity(names: Sequence[Any], name: Any) -> int:
    """The index among the entities of the one that a relation names. Raises BadRow where none has
    that name."""
    if name not in names:
        problem = f"a relation joins {name!r}, which is no entity of the row"
        raise BadRow(problem, "relations between the row's entities")
    return names.index(name)


def is_misspelt_field(name: str) -> bool:
    """Whether the name of a column is most likely meant as that of a post's field."""
    alike = [known for known in _OPTIONAL if known[:1] == name[:1].lower()]
    return bool(get_close_matches(name.lower(), alike, 1, _LIKENESS))

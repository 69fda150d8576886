"""What a run of reading and converting left out or changed, so that nothing vanishes silently.

What every reader of a corpus file yields, and how rows come by a unique id.

JSON Lines files of pydantic records, with errors that name line and field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import MMCoTError, explain, located
from ..files import decode_line, iter_lines, parse_json, replace_file
from ..types import SPLITS, Answers, Post, Split


@dataclass
class Findings:
    """A broken row raises its error, or is skipped and listed where `skip_invalid` is set.

    `skipped` holds the errors of skipped rows, `lost` what could not be kept, `changed` what was
    kept in another form; the last two map a headline to the places.
    """

    skip_invalid: bool = False
    skipped: list[str] = field(default_factory=list)
    lost: dict[str, list[str]] = field(default_factory=dict)
    changed: dict[str, list[str]] = field(default_factory=dict)

    def reject(self, error: MMCoTError) -> None:
        if not self.skip_invalid:
            raise error
        self.skipped.append(str(error))

    def lose(self, headline: str, place: str) -> None:
        self.lost.setdefault(headline, []).append(place)

    def change(self, headline: str, place: str) -> None:
        self.changed.setdefault(headline, []).append(place)

    def lines(self, changes_shown: int = 5) -> Iterator[str]:
        """The report: every skipped row and every loss, and the first few of each change."""
        if self.skipped:
            yield f"{len(self.skipped)} broken rows skipped:"
            yield from (f"  {error}" for error in self.skipped)
        for headline, places in self.lost.items():
            yield f"{headline}: {len(places)}"
            yield from (f"  {place}" for place in places)
        for headline, places in self.changed.items():
            yield f"{headline}: {len(places)}"
            yield from (f"  {place}" for place in places[:changes_shown])
            if len(places) > changes_shown:
                yield f"  and {len(places) - changes_shown} more"


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


Model = TypeVar("Model", bound=BaseModel)

CURE = "Correct the row, or leave such rows out with --skip-invalid."


def parse_line(path: Path, line: int, raw: bytes) -> Any:
    """Raises MMCoTError where the line is not one JSON value in UTF-8."""
    text = decode_line(path, line, raw)
    try:
        return parse_json(text)
    except ValueError as error:
        raise located(path, line, str(error), "one JSON object", CURE) from None


def validate(path: Path, line: int, model: type[Model], value: Any) -> Model:
    """Raises MMCoTError that names the field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise located(path, line, *explain(error), CURE) from None


def iter_records(
    path: Path, model: type[Model], findings: Findings
) -> Iterator[tuple[int, int, Model]]:
    """Row numbers from 0, line numbers from 1, and records. Blank lines are no rows; a broken row
    has a number too, so that numbers stay true to the file."""
    row = -1
    for line, raw in iter_lines(path):
        if not raw.strip():
            continue
        row += 1
        try:
            record = validate(path, line, model, parse_line(path, line, raw))
        except MMCoTError as error:
            findings.reject(error)
            continue
        yield row, line, record


def write_records(path: Path, records: Iterable[BaseModel]) -> int:
    """Write a record a line, fields that are None left out; returns how many."""
    count = 0
    with (
        replace_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        for record in records:
            file.write(record.model_dump_json(exclude_none=True) + "\n")
            count += 1
    return count

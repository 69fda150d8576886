"""What every reader of a corpus file yields and reports.

Nothing is lost in silence: what a reader skips, loses or changes is listed in `Findings`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..errors import MMCoTError
from ..types import SPLITS, Answers, Post, Split

# The cure in the message of an invalid row.
CURE = "Correct the row, or leave such rows out with --skip-invalid."


class Row(NamedTuple):
    """A post, the number of its row in the file (from 0, invalid rows counted too), and the
    answers about it where the file holds them. Rows of one `group` and text are parts of one post
    (see `mnre.join_rows`)."""

    number: int
    post: Post
    answers: Answers | None = None
    group: str | None = None


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
        for kind, shown in ((self.lost, None), (self.changed, changes_shown)):
            for headline, places in kind.items():
                yield f"{headline}: {len(places)}"
                yield from (f"  {place}" for place in places[:shown])
                if shown and len(places) > shown:
                    yield f"  and {len(places) - shown} more"


def make_unique_id(name: str, ids: set[str]) -> str:
    """`name`, or `name-2`, `name-3`... where earlier posts have it. Adds the id to `ids`."""
    result, count = name, 1
    while result in ids:
        count += 1
        result = f"{name}-{count}"
    ids.add(result)
    return result


def guess_split(path: Path) -> Split:
    """The split that a file's name stands for; `train` where it stands for none."""
    stem = path.stem.lower()
    if stem in {"valid", "validation", "val"}:
        return "dev"
    return next((split for split in SPLITS if split == stem), "train")

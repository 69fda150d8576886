"""What every reader of a corpus file yields, what it reports, and how rows are selected.

Nothing is lost in silence: what a reader skips, loses or changes is listed in `Findings`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..errors import Errors, MMCoTError, UsageError
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
        for headline, places in self.lost.items():
            yield f"{headline}: {len(places)}"
            yield from (f"  {place}" for place in places)
        for headline, places in self.changed.items():
            yield f"{headline}: {len(places)}"
            yield from (f"  {place}" for place in places[:changes_shown])
            if len(places) > changes_shown:
                yield f"  and {len(places) - changes_shown} more"


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


def label_fraction(
    rows: Sequence[Row], fraction: float, seed: int, first: Iterable[int] = ()
) -> list[Row]:
    """The same rows, `fraction` of them `train` and the rest `unlabelled`. The labelled posts of a
    smaller fraction are among those of a larger one.

    The rows with the numbers `first` are labelled first, in this order, then the others in a
    random order that depends on `seed`. Rows of the splits dev and test stay as they are and do
    not count, nor do those of `unlabelled` that `first` does not name.

    Raises UsageError for a fraction that is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise UsageError(Errors.E714.format(received=fraction))
    places = {row.number: place for place, row in enumerate(rows)}
    named = dict.fromkeys(places[number] for number in first)
    pool = [i for i, row in enumerate(rows) if row.post.split == "train" and i not in named]
    random.Random(seed).shuffle(pool)
    order = [*named, *pool]
    n_labelled = max(1, round(fraction * len(order)))
    splits: dict[int, Split] = dict.fromkeys(order[:n_labelled], "train")
    splits |= dict.fromkeys(order[n_labelled:], "unlabelled")
    return [
        row._replace(post=row.post.model_copy(update={"split": splits.get(i, row.post.split)}))
        for i, row in enumerate(rows)
    ]


def select_domains(rows: Sequence[Row], domains: Iterable[str]) -> list[Row]:
    """The rows whose posts are of one of the domains. Raises UsageError for a domain that no post
    is of."""
    wanted = set(domains)
    known = {row.post.domain for row in rows if row.post.domain is not None}
    if unknown := sorted(wanted - known):
        allowed = ", ".join(sorted(known)) or "none"
        raise UsageError(Errors.E716.format(received=", ".join(unknown), allowed=allowed))
    return [row for row in rows if row.post.domain in wanted]


def parse_renaming(texts: Iterable[str]) -> dict[str, str]:
    """New names of labels by old ones, from texts OLD=NEW. Raises UsageError for another form,
    and where one label is renamed twice."""
    names: dict[str, str] = {}
    for text in texts:
        old, equals, new = text.partition("=")
        if not (old and equals and new) or old in names:
            raise UsageError(Errors.E715.format(received=text))
        names[old] = new
    return names


def rename_labels(rows: Sequence[Row], names: Mapping[str, str]) -> list[Row]:
    """The rows with entity labels under their new names. Raises MMCoTError where no entity has a
    label that is to be renamed."""
    found = {entity.label for row in rows for entity in row.post.entities or ()}
    if unknown := sorted(names.keys() - found):
        problem = f"no entity has the label {', '.join(unknown)}"
        expected = f"one of the labels {', '.join(sorted(found)) or 'none'}"
        message = Errors.E207.format(path="--rename-label", problem=problem, expected=expected)
        raise MMCoTError(message)
    renamed = []
    for row in rows:
        if row.post.entities:
            entities = [
                entity.model_copy(update={"label": names.get(entity.label, entity.label)})
                for entity in row.post.entities
            ]
            row = row._replace(post=row.post.model_copy(update={"entities": entities}))
        renamed.append(row)
    return renamed

"""Which posts of an input are taken, which of them count as labelled, and under which labels."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

from ..errors import Errors, MMCoTError, UsageError
from ..types import Split
from .rows import Row


def labelled_fraction(
    rows: Sequence[Row], fraction: float, seed: int, first: Iterable[int] = ()
) -> list[Row]:
    """The same rows, of which `fraction` are `train` and the rest `unlabelled`; the labelled posts
    of a smaller fraction are among those of a larger one.

    The order in which rows become labelled is that of the row numbers `first`, then that of a
    draw by `seed` from the others. Rows of the splits dev and test stay as they are and do not
    count; so do those of `unlabelled` that `first` does not name.

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


def of_domains(rows: Sequence[Row], domains: Iterable[str]) -> list[Row]:
    """The rows whose posts are of one of the domains.

    Raises UsageError for a domain that no post is of.
    """
    wanted = set(domains)
    known = {row.post.domain for row in rows if row.post.domain is not None}
    if unknown := sorted(wanted - known):
        allowed = ", ".join(sorted(known)) or "none"
        raise UsageError(Errors.E716.format(received=", ".join(unknown), allowed=allowed))
    return [row for row in rows if row.post.domain in wanted]


def parse_renaming(texts: Iterable[str]) -> dict[str, str]:
    """OLD=NEW each. Raises UsageError for what has another form or names one label twice."""
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
        raise MMCoTError(
            Errors.E207.format(
                path="--rename-label",
                problem=problem,
                expected=f"one of the labels {', '.join(sorted(found)) or 'none'}",
            )
        )
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

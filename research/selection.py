"""Parts of a corpus: so much of it labelled, one split or domain of it, under other labels."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

from spacy_mmcot.corpus.posts import Row
from spacy_mmcot.errors import Errors, MMCoTError, UsageError
from spacy_mmcot.types import Split

from .errors import StudyErrors


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
        raise UsageError(StudyErrors.E714.format(received=fraction))
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


def select_split(rows: Sequence[Row], split: Split, new: Split) -> list[Row]:
    """The rows whose posts are of the split `split`, as posts of the split `new`. Raises MMCoTError
    where there is none."""
    found = [row for row in rows if row.post.split == split]
    if not found:
        raise MMCoTError(StudyErrors.E720.format(split=split))
    return [row._replace(post=row.post.model_copy(update={"split": new})) for row in found]


def select_domains(rows: Sequence[Row], domains: Iterable[str]) -> list[Row]:
    """The rows whose posts are of one of the domains. Raises UsageError for a domain that no post
    is of."""
    wanted = set(domains)
    known = {row.post.domain for row in rows if row.post.domain is not None}
    if unknown := sorted(wanted - known):
        allowed = ", ".join(sorted(known)) or "none"
        raise UsageError(StudyErrors.E716.format(received=", ".join(unknown), allowed=allowed))
    return [row for row in rows if row.post.domain in wanted]


def parse_renaming(texts: Iterable[str]) -> dict[str, str]:
    """New names of labels by old ones, from texts OLD=NEW. Raises UsageError for another form,
    and where one label is renamed twice."""
    names: dict[str, str] = {}
    for text in texts:
        old, equals, new = text.partition("=")
        if not (old and equals and new) or old in names:
            raise UsageError(StudyErrors.E715.format(received=text))
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

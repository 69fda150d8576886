"""Several predictions of the same Docs, brought into one order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import Errors, MMCoTError
from .predictions import Predicted
from .scores import mentions

_SHOWN = 3


def in_order_of(
    first: Sequence[Predicted], others: Sequence[Predicted], *, paths: tuple[Path, Path]
) -> list[Predicted]:
    """The Docs of `others` in the order of `first`. Their labels must be the same, but for a kind
    of labels that one side has nowhere: entities, where a pipeline was given them, or relations.

    paths: the files of both, for messages.

    Raises MMCoTError where their ids, texts or labels differ.
    """
    by_id = {doc.id: doc for doc in others}
    _check_ids({doc.id: doc for doc in first}, by_id, paths)
    matched = [by_id[doc.id] for doc in first]
    for part, read in _PARTS.items():
        own, theirs = [read(doc) for doc in first], [read(doc) for doc in matched]
        if all(value is None for value in own) or all(value is None for value in theirs):
            continue
        for doc, left, right in zip(first, own, theirs, strict=True):
            if left != right:
                raise MMCoTError(
                    Errors.E801.format(id=doc.id, part=part, first=paths[0], path=paths[1])
                )
    return matched


def _check_ids(
    first: Mapping[str, Predicted], other: Mapping[str, Predicted], paths: tuple[Path, Path]
) -> None:
    differences = []
    for path, own, against in zip(paths, (first, other), (other, first), strict=True):
        alone = [doc_id for doc_id in own if doc_id not in against]
        if alone:
            shown = ", ".join(map(repr, alone[:_SHOWN]))
            more = f" and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else ""
            differences.append(f"only {path} has {shown}{more}")
    if differences:
        raise MMCoTError(
            Errors.E800.format(first=paths[0], path=paths[1], differences="; ".join(differences))
        )


def _gold(doc: Predicted) -> object:
    return None if doc.gold is None else mentions(doc.gold)


def _gold_relations(doc: Predicted) -> object:
    if doc.gold_relations is None:
        return None
    return {(r.head, r.tail, r.label) for r in doc.gold_relations}


# What must be the same, under the name that a message gives it.
_PARTS: dict[str, Callable[[Predicted], object]] = {
    "text": lambda doc: doc.text,
    "set of labelled entities": _gold,
    "set of labelled relations": _gold_relations,
}

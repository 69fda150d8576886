"""Which relation labels a pair may have by the types of its mentions: the map `legal`."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..corpus.extensions import get_relations
from ..errors import Warnings
from ..model.pair_classifier import DocPairs

# Head type -> tail type -> relation labels.
Legal = Mapping[str, Mapping[str, Sequence[str]]]
# Of each (head type, tail type, label), how many relations there are.
TypeCounts = Counter[tuple[str, str, str]]

_MAX_NAMED = 5  # kinds of relations in a warning


def count_types(docs: Iterable[Doc]) -> TypeCounts:
    """Count the Docs' relations by the types of their mentions and their label."""
    return Counter(
        (head.label_, tail.label_, label)
        for doc in docs
        for head, tail, label, _ in get_relations(doc)
    )


def learn_legal(counts: Iterable[tuple[str, str, str]]) -> dict[str, dict[str, list[str]]]:
    """The map that allows the labels which these relations have, and no other."""
    legal: dict[str, dict[str, list[str]]] = {}
    for head, tail, label in sorted(set(counts)):
        legal.setdefault(head, {}).setdefault(tail, []).append(label)
    return legal


def warn_of_illegal(counts: TypeCounts, legal: Legal, component: str) -> None:
    """Warn where the map rules out relations that are gold."""
    illegal = {
        kind: count
        for kind, count in counts.items()
        if kind[2] not in legal.get(kind[0], {}).get(kind[1], ())
    }
    if not illegal:
        return
    named = sorted(illegal, key=lambda kind: -illegal[kind])[:_MAX_NAMED]
    kinds = ", ".join(f"{label} from {head} to {tail}" for head, tail, label in named)
    if len(illegal) > len(named):
        kinds += f" and {len(illegal) - len(named)} more"
    message = Warnings.W600.format(
        component=component, count=sum(illegal.values()), total=counts.total(), places=kinds
    )
    warnings.warn(message, stacklevel=2)


def mask_legal(entry: DocPairs, legal: Legal | None, labels: Sequence[str]) -> NDArray[numpy.bool_]:
    """bool (pairs, 1 + labels): which labels each pair may have. The first, no relation, is always
    allowed; without a map all are."""
    allowed = numpy.ones((len(entry.pairs), 1 + len(labels)), dtype=bool)
    if legal is None:
        return allowed
    rows: dict[tuple[str, str], list[bool]] = {}
    for i, (head, tail) in enumerate(entry.pairs.tolist()):
        types = entry.mentions[head][2], entry.mentions[tail][2]
        if types not in rows:
            known = legal.get(types[0], {}).get(types[1], ())
            rows[types] = [label in known for label in labels]
        allowed[i, 1:] = rows[types]
    return allowed

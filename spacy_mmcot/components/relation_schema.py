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
    illegal: TypeCounts = Counter()
    for (head, tail, label), count in counts.items():
        if label not in legal.get(head, {}).get(tail, ()):
            illegal[head, tail, label] = count
    if illegal:
        named = illegal.most_common(_MAX_NAMED)
        kinds = ", ".join(f"{label} from {head} to {tail}" for (head, tail, label), _ in named)
        if len(illegal) > len(named):
            kinds += f" and {len(illegal) - len(named)} more"
        numbers = {"count": illegal.total(), "total": counts.total()}
        message = Warnings.W600.format(component=component, places=kinds, **numbers)
        warnings.warn(message, stacklevel=2)


def mask_legal(entry: DocPairs, legal: Legal | None, labels: Sequence[str]) -> NDArray[numpy.bool_]:
    """bool (pairs, 1 + labels): which labels each pair may have. The first, no relation, is always
    allowed; without a map all are."""
    allowed = numpy.ones((len(entry.pairs), 1 + len(labels)), dtype=bool)
    if legal is not None:
        types = [mention[2] for mention in entry.mentions]
        rows = {
            (head, tail): [label in legal.get(head, {}).get(tail, ()) for label in labels]
            for head in set(types)
            for tail in set(types)
        }
        for i, (head, tail) in enumerate(entry.pairs.tolist()):
            allowed[i, 1:] = rows[types[head], types[tail]]
    return allowed

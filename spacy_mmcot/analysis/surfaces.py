"""Names that labelled data knows, and names that it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy

from ..types import Entity
from .predictions import Predicted
from .scores import mentions, prf

Name = tuple[str, str]  # case-folded surface, label


def seen_scores(docs: Iterable[Predicted], known: set[Name]) -> dict[str, Any]:
    """Strict scores apart for names that `known` holds and names that it does not.

    `seen`: the mention's surface was labelled with the mention's own label; `unseen`: all others.
    `surface_seen`: its surface was labelled, with whatever label; `surface_unseen`: all others.
    Gold and predicted mentions go to their group alike, each by its own surface and label, so a
    right one is in the same group on both sides. `PREFIX_p`, `_r`, `_f` are None where gold has no
    such mention, `PREFIX_n` says how many it has. Docs that nobody has labelled do not count.

    known: the case-folded surfaces and labels of labelled mentions.
    """
    docs = list(docs)
    surfaces = {surface for surface, _ in known}
    groups: dict[str, Callable[[Name], bool]] = {
        "seen": lambda name: name in known,
        "unseen": lambda name: name not in known,
        "surface_seen": lambda name: name[0] in surfaces,
        "surface_unseen": lambda name: name[0] not in surfaces,
    }
    scores: dict[str, Any] = {}
    for prefix, belongs in groups.items():
        total = numpy.zeros(3, dtype="int64")
        for doc in docs:
            if doc.gold is not None:
                found, gold = (
                    mentions(e for e in side if belongs(_name(doc, e)))
                    for side in (doc.entities, doc.gold)
                )
                total += (len(found & gold), len(found), len(gold))
        n = int(total[2])
        row = prf(prefix, total)
        scores.update(row if n else dict.fromkeys(row))
        scores[f"{prefix}_n"] = n
    return scores


def _name(doc: Predicted, entity: Entity) -> Name:
    return doc.text[entity.start : entity.end].casefold(), entity.label

"""What an elicitation did, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields

from ..types import Dimension


@dataclass
class Counts:
    """Outcomes of one dimension. `asked` counts questions sent; each post ends in exactly one of
    `stored`, `already_there`, `rejected`, `missing` and `not_applicable`; posts with the very same
    question share one answer. `repaired` counts stored answers that took a second round,
    `dropped_mentions` things that are not in their post."""

    asked: int = 0
    stored: int = 0
    already_there: int = 0
    rejected: int = 0
    missing: int = 0
    not_applicable: int = 0
    dropped_mentions: int = 0
    repaired: int = 0


@dataclass
class Report:
    """What an elicitation did, by dimension. `unanswered` counts why questions stayed without an
    answer, `captions_only` the posts whose picture a model that sees was not shown."""

    counts: dict[Dimension, Counts] = field(default_factory=dict)
    unanswered: Counter[str] = field(default_factory=Counter)
    captions_only: int = 0

    def total(self) -> Counts:
        every = self.counts.values()
        return Counts(**{f.name: sum(getattr(c, f.name) for c in every) for f in fields(Counts)})

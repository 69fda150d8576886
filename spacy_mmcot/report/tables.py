"""The tables of the report: pipelines side by side, labels, and confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy

from ..evaluation.predictions import Predicted
from ..evaluation.scores import (
    Counts,
    compute_prf,
    count_confusions,
    count_entities,
    count_labels,
    count_relations,
    pair_entities,
    pair_relations,
)
from ..types import NO_RELATION


class Table(NamedTuple):
    """Cells as they are shown; the first cell of each row is its heading."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""


class Pipeline(NamedTuple):
    """What one pipeline found in the report's Docs, and what else is known of it.

    metrics: as `evaluate` returns them. The page shows those that it cannot count itself: `rel_*`
        on gold mentions, `words_per_second`, `model_mb`, `training`.
    """

    name: str
    found: Sequence[Predicted]
    metrics: Mapping[str, Any]

    @property
    def entities(self) -> Counts | None:
        """(docs, 3); None where the pipeline predicts no entities, or none are labelled."""
        return count_entities(self.found) if any(d.gold is not None for d in self.found) else None

    @property
    def relations(self) -> Counts | None:
        """(docs, 3), end to end; None as above."""
        labelled = [doc for doc in self.found if doc.gold_relations is not None]
        predicts = any(doc.relations is not None for doc in labelled)
        return count_relations(self.found) if predicts else None


def make_scores(pipelines: Sequence[Pipeline]) -> Table:
    """A row per pipeline: quality, speed, size. Empty columns are left out."""
    columns = {
        "Entities F1": lambda p: _format_prf(p.entities, "f"),
        "P": lambda p: _format_prf(p.entities, "p"),
        "R": lambda p: _format_prf(p.entities, "r"),
        "Relations F1, gold mentions": lambda p: format_percent(p.metrics.get("rel_f")),
        "Relations F1, end to end": lambda p: _format_prf(p.relations, "f"),
        "Words/s": lambda p: _format_number(p.metrics.get("words_per_second")),
        "MB": lambda p: _format_number(p.metrics.get("model_mb")),
        "Trained, s": lambda p: _format_number((p.metrics.get("training") or {}).get("seconds")),
    }
    cells = {title: [cell(p) for p in pipelines] for title, cell in columns.items()}
    kept = {title: column for title, column in cells.items() if any(column)}
    return Table(
        "Pipelines",
        ["", *kept],
        [[p.name, *row] for p, *row in zip(pipelines, *kept.values(), strict=True)],
        "Correct entities have the same offsets and label as gold; correct relations also have "
        "two correct mentions.",
    )


def make_label_tables(pipelines: Sequence[Pipeline]) -> list[Table]:
    """F1 by label, of entities and of relations end to end, and P and R of the first pipeline."""
    entities = {p.name: pair_entities(p.found) for p in pipelines if p.entities is not None}
    relations = {p.name: pair_relations(p.found) for p in pipelines if p.relations is not None}
    titles = {"Entities by label": entities, "Relations by label, end to end": relations}
    nothing = numpy.zeros(3, dtype="int64")
    tables = []
    for title, pairs in titles.items():
        counts = {name: count_labels(found) for name, found in pairs.items()}
        lines = []
        for label in sorted(set().union(*counts.values())):
            totals = [by_label.get(label, nothing) for by_label in counts.values()]
            cells = [_format_prf(total, "f") for total in totals]
            cells += [_format_prf(totals[0], key) for key in "pr"]
            lines.append([label, str(totals[0][2]), *cells])
        if counts:
            first = next(iter(counts))
            heads = [*(f"{name} F1" for name in counts), f"{first} P", f"{first} R"]
            tables.append(Table(title, ["label", "gold", *heads], lines))
    return tables


def make_confusions(pipeline: Pipeline) -> list[Table]:
    """Which labels the pipeline confuses: a row per gold label, a column per predicted one."""
    titles = {
        f"Entities, {pipeline.name}": count_confusions(pipeline.found),
        f"Relations on gold mentions, {pipeline.name}": pipeline.metrics.get("rel_confusion"),
    }
    note = f"{NO_RELATION}: missed, or found where nothing is labelled."
    tables = []
    for title, counted in titles.items():
        table: Mapping[str, Mapping[str, int]] = counted or {}
        found = {label for row in table.values() for label in row}
        columns, rows = (
            sorted(labels, key=lambda label: (label == NO_RELATION, label))
            for labels in (found, table)
        )
        lines = [[gold, *(str(table[gold].get(c, "·")) for c in columns)] for gold in rows]
        if lines:
            tables.append(Table(title, ["gold ↓ found →", *columns], lines, note))
    return tables


def format_percent(share: float | None) -> str:
    """A share in percent, empty for None."""
    return "" if share is None else f"{100 * share:.2f}"


def _format_prf(counts: Counts | None, key: str) -> str:
    """counts: (docs, 3) or (3,)."""
    if counts is None:
        return ""
    return format_percent(compute_prf("x", counts.reshape(-1, 3).sum(axis=0))[f"x_{key}"])


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"

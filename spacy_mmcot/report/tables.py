"""The tables of the report: pipelines beside each other, labels, and the experiments' runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from research.results import SCORES, Row, by_data, rows

from ..evaluation.compare import paired_bootstrap
from ..evaluation.predictions import Predicted
from ..evaluation.scores import (
    Counts,
    entity_confusion,
    entity_counts,
    f_scores,
    prf,
    relation_counts,
)
from ..types import NO_RELATION


class Table(NamedTuple):
    """Cells as they are shown, the first of each row its heading."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""


class Pipeline(NamedTuple):
    """What one pipeline found in the report's docs, and what is known of it beside.

    metrics: as `evaluate` writes them; of these the page shows what it cannot count itself:
        `rel_*` on gold mentions, `words_per_second`, `model_mb`, `training`. knowledge: whether it
        read the LLM's answers, None where that is not known.
    """

    name: str
    found: Sequence[Predicted]
    metrics: Mapping[str, Any]
    knowledge: bool | None = None

    @property
    def entities(self) -> Counts | None:
        """(docs, 3), None where the pipeline looks for none, or none are labelled."""
        return entity_counts(self.found) if any(d.gold is not None for d in self.found) else None

    @property
    def relations(self) -> Counts | None:
        """(docs, 3), end to end, None as above."""
        labelled = [doc for doc in self.found if doc.gold_relations is not None]
        looks = any(doc.relations is not None for doc in labelled)
        return relation_counts(self.found) if looks else None


def scores_table(pipelines: Sequence[Pipeline]) -> Table:
    """A row a pipeline: quality, speed, size. A column that would be empty is left out."""
    columns = {
        "Entities F1": lambda p: _f(p.entities),
        "P": lambda p: _share(p.entities, "p"),
        "R": lambda p: _share(p.entities, "r"),
        "Relations F1, gold mentions": lambda p: percent(p.metrics.get("rel_f")),
        "Relations F1, end to end": lambda p: _f(p.relations),
        "Words/s": lambda p: _number(p.metrics.get("words_per_second")),
        "MB": lambda p: _number(p.metrics.get("model_mb")),
        "Trained, s": lambda p: _number((p.metrics.get("training") or {}).get("seconds")),
    }
    cells = {title: [cell(p) for p in pipelines] for title, cell in columns.items()}
    kept = {title: column for title, column in cells.items() if any(column)}
    return Table(
        "Pipelines",
        ["", *kept],
        [[p.name, *row] for p, *row in zip(pipelines, *kept.values(), strict=True)],
        "Entities count where offsets and label are gold's, relations where both mentions are "
        "right too.",
    )


def differences_table(pipelines: Sequence[Pipeline]) -> Table | None:
    """The first pipeline less each other, with a bootstrap interval; None where none compares."""
    first, *others = pipelines
    lines = []
    for other in others:
        pairs = {"entities": (other.entities, first.entities)}
        pairs["relations, end to end"] = (other.relations, first.relations)
        for task, (baseline, student) in pairs.items():
            if baseline is None or student is None:
                continue
            found = paired_bootstrap([baseline], [student])
            lines.append(
                [
                    f"{first.name} − {other.name}, {task}",
                    f"{100 * found.difference:+.2f}",
                    f"{100 * found.low:+.2f} to {100 * found.high:+.2f}",
                    _p_value(found.p_two_sided),
                ]
            )
    if not lines:
        return None
    return Table(
        "Differences in F1",
        ["", "points", "95% interval", "p (two-sided)"],
        lines,
        "Paired bootstrap over the docs, 10,000 resamples: how much of a difference may be due to "
        "these docs. Other training seeds are another matter; the experiments have several.",
    )


def label_tables(pipelines: Sequence[Pipeline]) -> list[Table]:
    """F1 by label, of entities and of relations end to end, of the first pipeline P and R too."""
    tables = []
    for title, side, gold in (
        ("Entities by label", "entities", "gold"),
        ("Relations by label, end to end", "relations", "gold_relations"),
    ):
        looking = [p for p in pipelines if getattr(p, side) is not None]
        if looking:
            tables.append(_by_label(title, looking, side, gold))
    return tables


def confusion_tables(pipeline: Pipeline) -> list[Table]:
    """Which label the pipeline takes for which: a row a gold label, a column a found one."""
    tables = []
    if pipeline.entities is not None:
        table = entity_confusion(pipeline.found)
        tables.append(_confusion(f"Entities, {pipeline.name}", table))
    relations = pipeline.metrics.get("rel_confusion")
    if relations:
        tables.append(_confusion(f"Relations on gold mentions, {pipeline.name}", relations))
    return [table for table in tables if table.rows]


def experiment_tables(results: list[dict[str, Any]]) -> list[Table]:
    """An experiment's runs over its seeds, a table for each score and each data scored on."""
    tables = []
    for data, lines in by_data(results).items():
        for score, title in SCORES.items():
            found = rows(lines, score)
            if found:
                tables.append(_runs(f"{data}: {title}", found))
    return tables


def _runs(title: str, found: Sequence[Row]) -> Table:
    seeds = sorted({seed for row in found for seed in row.scores})
    columns = ["run", *(f"seed {seed}" for seed in seeds), "mean", "spread", "train s"]
    lines = [
        [
            row.run,
            *(percent(row.scores.get(seed)) for seed in seeds),
            percent(row.mean),
            percent(row.spread),
            _number(row.seconds or None),
        ]
        for row in found
    ]
    return Table(title, columns, lines)


def _by_label(title: str, pipelines: Sequence[Pipeline], side: str, gold: str) -> Table:
    """side and gold: fields of Predicted with what is found and what is labelled."""
    labels = sorted(
        {
            item.label
            for p in pipelines
            for doc in p.found
            if getattr(doc, gold) is not None
            for item in [*getattr(doc, gold), *(getattr(doc, side) or ())]
        }
    )
    count = entity_counts if side == "entities" else relation_counts
    lines = []
    for label in labels:
        totals = [count(_only(p.found, label, side, gold)).sum(axis=0) for p in pipelines]
        first = prf("x", totals[0])
        lines.append(
            [
                label,
                str(totals[0][2]),
                *(percent(float(f_scores(total))) for total in totals),
                percent(first["x_p"]),
                percent(first["x_r"]),
            ]
        )
    name = pipelines[0].name
    heads = [f"{p.name} F1" for p in pipelines]
    return Table(title, ["label", "gold", *heads, f"{name} P", f"{name} R"], lines)


def _only(docs: Sequence[Predicted], label: str, side: str, gold: str) -> list[Predicted]:
    """The docs with the entities, or the relations, of one label."""
    kept = []
    for doc in docs:
        sides = {field: getattr(doc, field) for field in (side, gold)}
        update = {
            field: None if items is None else [item for item in items if item.label == label]
            for field, items in sides.items()
        }
        kept.append(doc.model_copy(update=update))
    return kept


def _confusion(title: str, table: Mapping[str, Mapping[str, int]]) -> Table:
    def order(label: str) -> tuple[bool, str]:
        return label == NO_RELATION, label

    columns = sorted({label for row in table.values() for label in row}, key=order)
    lines = [
        [gold, *(str(table[gold].get(label, "·")) for label in columns)]
        for gold in sorted(table, key=order)
    ]
    note = f"{NO_RELATION}: missed, or found where nothing is labelled."
    return Table(title, ["gold ↓ found →", *columns], lines, note)


def percent(share: float | None) -> str:
    """A share in percent, empty for None."""
    return "" if share is None else f"{100 * share:.2f}"


def _f(counts: Counts | None) -> str:
    return "" if counts is None else percent(float(f_scores(counts.sum(axis=0))))


def _share(counts: Counts | None, key: str) -> str:
    return "" if counts is None else percent(prf("x", counts.sum(axis=0))[f"x_{key}"])


def _p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"

"""The tables of the report: pipelines side by side, labels, and confusions."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from ..evaluation.compare import Comparison, compare_counts
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


_TASKS: Mapping[str, Callable[[Pipeline], Counts | None]] = {
    "entities": lambda pipeline: pipeline.entities,
    "relations, end to end,": lambda pipeline: pipeline.relations,
}


def make_verdict(pipelines: Sequence[Pipeline]) -> list[str]:
    """What the first pipeline is worth beside each other one, in sentences: F1 with a 95% interval,
    the difference and whether it is more than the choice of texts explains, and what it costs."""
    first, *others = pipelines
    sentences = []
    for what, get_counts in _TASKS.items():
        counts = get_counts(first)
        if counts is None:
            continue
        own = compare_counts(numpy.zeros_like(counts), counts)
        sentences.append(
            f"{first.name} finds {what} with F1 {100 * own.student_f:.1f} (95% interval "
            f"{100 * own.low:.1f} to {100 * own.high:.1f}, {own.docs} labelled texts)."
        )
        beside = [
            _describe_difference(compared, other.name)
            for other in others
            if (compared := _compare(first, other, get_counts)) is not None
        ]
        if beside:
            sentences.append(f"It is {'; '.join(beside)}.")
    if not sentences:
        sentences = ["No text is labelled, so there are no scores: compare the findings below."]
    trained, size = first.metrics.get("training") or {}, first.metrics.get("model_mb")
    costs = [f"takes {size:,.0f} MB"] if size else []
    costs += [f"was trained in {trained['seconds'] / 60:.1f} min"] if "seconds" in trained else []
    if speed := first.metrics.get("words_per_second"):
        costs.append(f"reads {speed:,.0f} words/s here ({describe_machine()}; one run)")
    if costs:
        sentences.append(f"It needs no LLM at run time, {', '.join(costs)}.")
    return sentences


def _compare(
    first: Pipeline, other: Pipeline, get_counts: Callable[[Pipeline], Counts | None]
) -> Comparison | None:
    """Both on the Docs that both were asked about; None where there are none."""
    rows = [
        (own, theirs)
        for own, theirs in zip(first.found, other.found, strict=True)
        if (own.gold is None, own.gold_relations is None)
        == (theirs.gold is None, theirs.gold_relations is None)
    ]
    if not rows:
        return None
    sides = (
        get_counts(pipeline._replace(found=list(docs)))
        for pipeline, docs in zip((first, other), zip(*rows, strict=True), strict=True)
    )
    own, theirs = sides
    return None if own is None or theirs is None else compare_counts(theirs, own)


def _describe_difference(compared: Comparison, name: str) -> str:
    difference = 100 * compared.difference
    side = "above" if difference >= 0 else "below"
    doubt = "" if compared.low > 0 or compared.high < 0 else ", so it may be chance"
    return (
        f"{abs(difference):.1f} {side} {name} ({100 * compared.baseline_f:.1f}; the difference is "
        f"{100 * compared.low:+.1f} to {100 * compared.high:+.1f}{doubt})"
    )


def describe_machine() -> str:
    """The processor, and how many of its cores this process may use."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        name = found[1] if found else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} core{'' if cores == 1 else 's'}"


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
    note = (
        "Correct entities have the same offsets and label as gold; correct relations also have two "
        "correct mentions."
    )
    if "Words/s" in kept:
        note += f" Words/s: one run on this machine ({describe_machine()})."
    return Table(
        "Pipelines",
        ["", *kept],
        [[p.name, *row] for p, *row in zip(pipelines, *kept.values(), strict=True)],
        note,
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

"""The tables and lines that `evaluate` shows of its metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

# Rows below the labels, and the prefixes of their metrics.
_OTHER_SCORES = {
    "boundaries alone": "ents_boundary",
    "overlap, right label": "ents_partial",
    "seqeval": "seqeval",
}
_SEEN = {
    "seen": "names labelled before with this label",
    "unseen": "all other names",
    "surface_seen": "names labelled before",
    "surface_unseen": "names never labelled before",
}


def make_tables(metrics: dict[str, Any], *, confusion: bool, reliability: bool) -> Iterable[Table]:
    """The scores of entities and relations, as far as there are any, and the tables asked for."""
    if "ents_f" in metrics:
        more = {
            name: {key: metrics[f"{prefix}_{key}"] for key in "prf"}
            for name, prefix in _OTHER_SCORES.items()
        }
        yield _make_scores("Entities (strict)", metrics, "ents", more)
    pairs: Mapping[str, Mapping[str, int]] = metrics.get("rel_confusion") or {}
    if "rel_f" in metrics:
        support = {label: sum(row.values()) for label, row in pairs.items()}
        macro = {"macro": {"f": metrics["rel_macro_f"]}}
        yield _make_scores("Relations on gold mentions", metrics, "rel", macro, support)
    if "rel_e2e_f" in metrics:
        yield _make_scores("Relations end to end", metrics, "rel_e2e")
    if confusion and metrics.get("ents_confusion"):
        yield _make_confusion("Confusion of entities", metrics["ents_confusion"])
    if confusion and pairs:
        yield _make_confusion("Confusion of relations", pairs)
    if reliability and "ents_f" in metrics:
        yield _make_reliability("Reliability of mentions", metrics["ents_reliability"])
        yield _make_reliability("Reliability of docs", metrics["docs_reliability"])


def format_lines(metrics: Mapping[str, Any]) -> Iterable[str]:
    """The lines below the tables."""
    for prefix, name in _SEEN.items():
        if f"{prefix}_n" in metrics:
            yield _format_group(name, metrics, prefix)
    yield _format_summary(metrics)


def _make_scores(
    title: str,
    metrics: Mapping[str, Any],
    prefix: str,
    more: Mapping[str, Mapping[str, float]] | None = None,
    support: Mapping[str, int] | None = None,
) -> Table:
    """P, R and F in percent: all, each label, and the rows of `more`; with `support`, the number of
    gold items of each label too."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "P", "R", "F", *(["gold"] if support is not None else []), title=title)
    rows: list[tuple[str, Mapping[str, float]]]
    rows = [("all", {key: metrics[f"{prefix}_{key}"] for key in "prf"})]
    rows += sorted((metrics[f"{prefix}_per_type"] or {}).items())
    rows += (more or {}).items()
    for name, row in rows:
        cells = [f"{100 * (row[key] or 0.0):.2f}" if key in row else "" for key in "prf"]
        gold = str((support or {}).get(name, ""))
        table.add_row(escape(name), *cells, *([gold] if support is not None else []))
    return table


def _make_confusion(title: str, pairs: Mapping[str, Mapping[str, int]]) -> Table:
    """A row for each gold label, a column for each predicted one, "None" last. Column headings are
    the rows' numbers: two dozen labels do not fit across a terminal."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from ..types import NO_RELATION

    predicted = {label for row in pairs.values() for label in row}
    labels = sorted(predicted.union(pairs), key=lambda label: (label == NO_RELATION, label))
    heads = {label: label if label == NO_RELATION else str(i) for i, label in enumerate(labels, 1)}
    columns = [label for label in labels if label in predicted]
    table = Table("gold", "", title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.min_width = len(title)  # rich wraps a title at the width of its table
    for label in columns:
        table.add_column(heads[label], justify="right", no_wrap=True)
    for label in labels:
        row = pairs.get(label, {})
        number = "" if label == NO_RELATION else heads[label]
        table.add_row(escape(label), number, *(str(row.get(column, "·")) for column in columns))
    return table


def _make_reliability(title: str, curve: Iterable[Mapping[str, Any]]) -> Table:
    """The bins that are not empty."""
    from rich.table import Table

    table = Table("score", "number", "mean score", "right", title=title)
    for row in curve:
        if row["n"]:
            shares = (f"{100 * row[key]:.1f}%" for key in ("score", "right"))
            table.add_row(f"{row['low']:.1f} to {row['high']:.1f}", str(row["n"]), *shares)
    return table


def _format_group(name: str, metrics: Mapping[str, Any], prefix: str) -> str:
    n = metrics[f"{prefix}_n"]
    if not n:
        return f"{name}: none in this data"
    p, r, f = (f"{100 * metrics[f'{prefix}_{key}']:.2f}" for key in "prf")
    return f"{name}: F {f} (P {p}, R {r}) over {n} mentions"


def _format_summary(metrics: Mapping[str, Any]) -> str:
    training = metrics["training"] or {}
    parts = [f"{metrics['docs']} docs", f"{metrics['words_per_second']} words/s"]
    if "ents_ece" in metrics:
        parts.append(f"calibration error {100 * metrics['ents_ece']:.2f}")
    if metrics["pictures"] != "none":
        parts.append(f"{metrics['pictures']} pictures on {metrics['docs_with_picture']}")
    parts.append(f"model {metrics['model_mb']} MB")
    parts.append(
        f"trained in {training.get('seconds', '?')} s ({training.get('steps', '?')} steps)"
    )
    return ", ".join(parts)

"""The experiments as one HTML page: learning curves, ablations, and a table of every run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from markupsafe import Markup

from spacy_mmcot.report.drawings import get_environment, read_asset
from spacy_mmcot.report.plots import TEXT_COLOR, Plot, get_look, open_figure, render_svg
from spacy_mmcot.report.tables import Table, format_percent

from .results import SCORES, Row, by_data, rows

_STYLES = ("page.css", "theme.css")


def render_page(results: Mapping[str, list[dict[str, Any]]]) -> str:
    """The page about the lines of a results file, by experiment.

    Raises MMCoTError where there is something to draw and matplotlib is not installed.
    """
    plots = []
    for name, lines in results.items():
        plots.append(plot_learning_curve(lines, name))
        if name.startswith("ablation"):
            plots.append(plot_ablation(lines, name))
    experiments = [(name, make_tables(lines)) for name, lines in results.items()]
    template = Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8")
    return (
        get_environment()
        .from_string(template)
        .render(
            style=Markup("".join(map(read_asset, _STYLES))),
            plots=[plot for plot in plots if plot is not None],
            experiments=[(name, tables) for name, tables in experiments if tables],
        )
    )


def plot_learning_curve(results: list[dict[str, Any]], name: str) -> Plot | None:
    """Entity F1 by the share of labels, of runs named like "student_25": the mean over seeds in a
    band from the least to the greatest. None without two shares of one kind."""
    series: dict[str, dict[int, Row]] = {}
    for row in rows(results, "ents_f"):
        named = re.fullmatch(r"(.+)_(\d+)", row.run)
        if named:
            series.setdefault(named[1], {})[int(named[2])] = row
    series = {kind: dict(sorted(points.items())) for kind, points in series.items()}
    if not any(len(points) > 1 for points in series.values()):
        return None
    shares = sorted({share for points in series.values() for share in points})
    with open_figure() as (figure, axes):
        for index, (kind, points) in enumerate(series.items()):
            color, marker = get_look(index)
            at = [shares.index(share) for share in points]
            scores = [[100 * s for s in row.scores.values()] for row in points.values()]
            low, high = [min(s) for s in scores], [max(s) for s in scores]
            axes.fill_between(at, low, high, color=color, alpha=0.18, linewidth=0)
            axes.plot(at, [mean(s) for s in scores], color=color, marker=marker, label=kind)
        axes.set_xticks(range(len(shares)), [f"{share}%" for share in shares])
        axes.set_xlabel("share of posts with labels")
        axes.set_ylabel("entity F1")
        svg = render_svg(figure, _make_id("learning", name), "Entity F1 by labels", list(series))
    lines = []
    for share in shares:
        cells = (format_percent(p[share].mean) if share in p else "" for p in series.values())
        lines.append([f"{share}%", *cells])
    table = Table("Entity F1, mean over seeds", ["labelled", *series], lines)
    caption = "Entity F1 by the share of labelled posts. Bands: from the worst to the best seed."
    return Plot(f"Learning curve: {name}", caption, svg, table)


def plot_ablation(results: list[dict[str, Any]], name: str) -> Plot | None:
    """The F1 of each run minus the student's, seed by seed: the mean as a bar and the seeds as
    dots. None without a student and a run that shares a seed with it."""
    # Teachers read the LLM's answers, so they are no variants of the student.
    students = [line for line in results if not line["description"].get("knowledge")]
    found = {row.run: row.scores for row in rows(students, "ents_f")}
    student = found.pop("student", {})
    changes: dict[str, list[float]] = {}
    for run, scores in found.items():
        differences = [100 * (scores[seed] - student[seed]) for seed in scores if seed in student]
        if differences:
            changes[run] = differences
    if not changes:
        return None
    ordered = sorted(changes.items(), key=lambda change: -mean(change[1]))
    with open_figure(1.2 + 0.32 * len(ordered)) as (figure, axes):
        for place, (_, differences) in enumerate(ordered):
            color = get_look(0 if mean(differences) >= 0 else 1)[0]
            axes.barh(place, mean(differences), color=color, alpha=0.75, height=0.6)
            axes.plot(differences, [place] * len(differences), ".", color=TEXT_COLOR, markersize=5)
        axes.axvline(0, color=TEXT_COLOR, linewidth=1)
        axes.set_yticks(range(len(ordered)), [run for run, _ in ordered])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("points of entity F1 against the student")
        svg = render_svg(figure, _make_id(name), "Change of entity F1", [r for r, _ in ordered])
    table = Table(
        "Entity F1 against the student, in points",
        ["run", "mean", "least", "greatest", "seeds"],
        [
            [run, f"{mean(d):+.2f}", f"{min(d):+.2f}", f"{max(d):+.2f}", str(len(d))]
            for run, d in ordered
        ],
    )
    caption = "Each run changes the student in one respect. Dots: seeds."
    return Plot(f"Ablation: {name}", caption, svg, table)


def make_tables(results: list[dict[str, Any]]) -> list[Table]:
    """An experiment's runs over its seeds, a table for each score and each data scored on."""
    tables = []
    for data, lines in by_data(results).items():
        for score, title in SCORES.items():
            found = rows(lines, score)
            if found:
                tables.append(_make_table(f"{data}: {title}", found))
    return tables


def _make_table(title: str, found: Sequence[Row]) -> Table:
    seeds = sorted({seed for row in found for seed in row.scores})
    lines = []
    for row in found:
        scores = (*(row.scores.get(seed) for seed in seeds), row.mean, row.spread)
        seconds = f"{row.seconds:,.0f}" if row.seconds else ""
        lines.append([row.run, *map(format_percent, scores), seconds])
    heads = ["run", *(f"seed {seed}" for seed in seeds), "mean", "spread", "train s"]
    return Table(title, heads, lines)


def _make_id(*names: str) -> str:
    return re.sub(r"\W+", "-", "-".join(names), flags=re.ASCII)

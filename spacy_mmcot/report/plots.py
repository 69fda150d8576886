"""matplotlib's drawings as SVG that is a part of its page: text as text, colours that turn with the
page's light and dark, and no address of any server.

The plots of the report, each with its figures as a table; a plot without data leaves a gap,
which says what makes the data.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from html import escape
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy
from markupsafe import Markup

from research.results import Row, rows

from ..errors import Errors, MMCoTError
from ..evaluation.calibration import expected_calibration_error, reliability, scored_mentions
from ..evaluation.scores import entity_counts, f_scores
from ..evaluation.selective import aurc, risk_coverage
from .tables import Pipeline, Table, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stand for the page's, which matplotlib cannot name.
_TEXT, _LINE, _CARD = "#010203", "#010204", "#010205"
_SERIES = ("#010210", "#010211", "#010212", "#010213", "#010214")
_OF_PAGE = {_TEXT: "var(--note)", _LINE: "var(--line)", _CARD: "var(--card)"} | {
    colour: f"var(--series-{index})" for index, colour in enumerate(_SERIES)
}
_MARKERS = "osD^v"
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a dollar sign in a name is one
    "svg.fonttype": "none",
    "svg.hashsalt": "spacy-mmcot",
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.8,
    "text.color": _TEXT,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _TEXT,
    "ytick.labelcolor": _TEXT,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}
_WIDTH, _HEIGHT = 5.0, 3.2  # inches
_KEY_LETTERS = 56  # what a line of the legend has room for, its lines and markers as 5 each


class Look(NamedTuple):
    """How a series is drawn: told apart by its marker as well as by its colour."""

    color: str
    marker: str


def look(index: int) -> Look:
    """Of the series number `index`, from 0; they repeat after five."""
    return Look(_SERIES[index % len(_SERIES)], _MARKERS[index % len(_MARKERS)])


LINE = _TEXT


def key(figure: Figure) -> None:
    """A legend above the axes, where no line runs through it."""
    labels = figure.axes[0].get_legend_handles_labels()[1]
    longest = max(map(len, labels))
    columns = min(len(labels), max(1, _KEY_LETTERS // (longest + 5)))
    figure.legend(loc="outside upper left", ncols=columns, fontsize=10, columnspacing=1.2)


@contextmanager
def drawing(height: float = _HEIGHT) -> Iterator[tuple[Figure, Axes]]:
    """A figure with its axes, in the page's style. height: inches.

    Raises MMCoTError where matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure as NewFigure
    except ImportError as error:
        raise MMCoTError(Errors.E725) from error
    # Only this block's settings: those of the program around stay as they are.
    with matplotlib.rc_context(_STYLE):
        figure = NewFigure(figsize=(_WIDTH, height), layout="constrained")
        yield figure, figure.subplots()


def inline(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an SVG element. name: a word that no other figure of the page has, from which
    its ids are made. description: what a screen reader says instead."""
    file = io.StringIO()
    empty = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=empty)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # HTML knows the name spaces.
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"(\d+(?:\.\d+)?)px (?:'[^']+', )*sans-serif", r"\1px system-ui, sans-serif", svg)
    for colour, variable in _OF_PAGE.items():
        svg = svg.replace(colour, variable)
    label = f'<svg role="img" aria-label="{escape(description)}"'
    return Markup(svg.replace("<svg", label, 1))


Results = Mapping[str, list[dict[str, Any]]]


class Plot(NamedTuple):
    title: str
    caption: str
    svg: Markup
    table: Table


class Gap(NamedTuple):
    """A plot that cannot be drawn, and the command that makes its data."""

    title: str
    command: str


def make_plots(pipelines: Sequence[Pipeline], results: Results) -> tuple[list[Plot], list[Gap]]:
    """All plots that there is data for, and the gaps that the others leave.

    results: lines of results files by experiment.

    Raises MMCoTError where there is something to draw and matplotlib is not installed.
    """
    evaluate = "spacy-mmcot evaluate PIPELINE DATA.spacy"
    wanted: list[tuple[str, str, Callable[[], Plot | None]]] = [
        (
            "Learning curve",
            "spacy project run low_resource",
            partial(learning_curve, results.get("low_resource", []), [p.name for p in pipelines]),
        ),
        (
            "Calibration",
            f"{evaluate} --predictions FILE.jsonl, with a pipeline that scores its mentions",
            partial(calibration, pipelines),
        ),
        (
            "Risk and coverage",
            f"{evaluate} --predictions FILE.jsonl, with a pipeline that has mmcot_ner",
            partial(risk, pipelines),
        ),
        (
            "Speed and quality",
            f"{evaluate} --output metrics/NAME.json, and report --metrics metrics",
            partial(cost, pipelines),
        ),
    ]
    # One plan for each corpus: ablation, ablation_demo, ...
    names = [name for name in results if name.startswith("ablation")] or ["ablation"]
    wanted[1:1] = [
        (
            name.capitalize().replace("_", ", "),
            "spacy project run ablation",
            partial(ablation, results.get(name, []), name),
        )
        for name in names
    ]
    plots, gaps = [], []
    for title, command, draw in wanted:
        plot = draw()
        if plot is None:
            gaps.append(Gap(title, command))
        else:
            plots.append(plot)
    return plots, gaps


def learning_curve(results: list[dict[str, Any]], names: Sequence[str] = ()) -> Plot | None:
    """Entity F1 over the share of labels: the mean over seeds in a band from least to greatest.
    Reads runs named as in "student_25"; None without two shares of one kind.

    names: of the page's pipelines, whose looks the runs of the same names take.
    """
    series: dict[str, dict[int, Row]] = {}
    for row in rows(results, "ents_f"):
        named = re.fullmatch(r"(.+)_(\d+)", row.run)
        if named:
            series.setdefault(named[1], {})[int(named[2])] = row
    order = [name for name in names if name in series]
    order += [name for name in series if name not in order]
    series = {name: dict(sorted(series[name].items())) for name in order}
    if not any(len(points) > 1 for points in series.values()):
        return None
    shares = sorted({share for points in series.values() for share in points})
    with drawing() as (figure, axes):
        for index, (name, points) in enumerate(series.items()):
            color, marker = look(index)
            at = [shares.index(share) for share in points]
            scores = [[100 * s for s in row.scores.values()] for row in points.values()]
            low, high = [min(s) for s in scores], [max(s) for s in scores]
            axes.fill_between(at, low, high, color=color, alpha=0.18, linewidth=0)
            axes.plot(at, [mean(s) for s in scores], color=color, marker=marker, label=name)
        axes.set_xticks(range(len(shares)), [f"{share}%" for share in shares])
        axes.set_xlabel("share of posts with labels")
        axes.set_ylabel("entity F1")
        key(figure)
        svg = inline(figure, "learning", _spoken("Entity F1 by share of labels", series))
    table = Table(
        "Entity F1, mean over seeds",
        ["labelled", *series],
        [
            [f"{share}%", *(percent(p[share].mean) if share in p else "" for p in series.values())]
            for share in shares
        ],
    )
    caption = "Entity F1 with few labels and with all. Bands: from the worst to the best seed."
    return Plot("Learning curve", caption, svg, table)


def ablation(results: list[dict[str, Any]], name: str = "ablation") -> Plot | None:
    """What every change of the student is worth: its F1 less the student's, seed by seed, the mean
    as a bar and the seeds as dots. None without a student and a run that shares a seed with it.

    name: the experiment's.
    """
    # Teachers read what no student has: they are no change of it.
    unaided = [line for line in results if not line["description"].get("knowledge")]
    found = {row.run: row.scores for row in rows(unaided, "ents_f")}
    student = found.pop("student", {})
    changes: dict[str, list[float]] = {}
    for run, scores in found.items():
        differences = [100 * (scores[seed] - student[seed]) for seed in scores if seed in student]
        if differences:
            changes[run] = differences
    if not changes:
        return None
    ordered = sorted(changes.items(), key=lambda change: -mean(change[1]))
    with drawing(1.2 + 0.32 * len(ordered)) as (figure, axes):
        for place, (_, differences) in enumerate(ordered):
            color = look(0).color if mean(differences) >= 0 else look(1).color
            axes.barh(place, mean(differences), color=color, alpha=0.75, height=0.6)
            axes.plot(differences, [place] * len(differences), ".", color=LINE, markersize=5)
        axes.axvline(0, color=LINE, linewidth=1)
        axes.set_yticks(range(len(ordered)), [run for run, _ in ordered])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("points of entity F1 against the student")
        svg = inline(figure, _word(name), "Change of entity F1 by run, as in the table below")
    table = Table(
        "Entity F1 against the student, in points",
        ["run", "mean", "least", "greatest", "seeds"],
        [
            [run, f"{mean(d):+.2f}", f"{min(d):+.2f}", f"{max(d):+.2f}", str(len(d))]
            for run, d in ordered
        ],
    )
    return Plot(
        name.capitalize().replace("_", ", "),
        "Each run is one change from the student. Dots: seeds.",
        svg,
        table,
    )


def calibration(pipelines: Sequence[Pipeline]) -> Plot | None:
    """The share of right mentions by score; None where no pipeline scores its mentions."""
    curves = {}
    for pipeline in pipelines:
        scores, right = scored_mentions(pipeline.found)
        if len(scores):
            filled = [point for point in reliability(scores, right) if point["n"]]
            curves[pipeline.name] = filled, expected_calibration_error(scores, right)
    if not curves:
        return None
    with drawing() as (figure, axes):
        axes.plot([0, 1], [0, 1], color=LINE, linewidth=1, linestyle="--")
        for index, (name, (points, error)) in enumerate(curves.items()):
            color, marker = look(index)
            label = f"{name}: {100 * error:.1f}"
            x, y = [p["score"] for p in points], [p["right"] for p in points]
            axes.plot(x, y, color=color, marker=marker, label=label)
        axes.set_xlabel("probability that the pipeline gives")
        axes.set_ylabel("share that is right")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.05)
        key(figure)
        svg = inline(figure, "calibration", _spoken("Share of right mentions by score", curves))
    lines = [
        [
            f"{name}, {p['low']:.1f} to {p['high']:.1f}",
            str(p["n"]),
            f"{p['score']:.3f}",
            f"{p['right']:.3f}",
        ]
        for name, (points, _) in curves.items()
        for p in points
    ]
    table = Table("Mentions by score", ["", "mentions", "mean score", "share right"], lines)
    caption = (
        "Whether scores can be taken at their word: on the dashed line they can. Beside the names: "
        "the mean gap, in points."
    )
    return Plot("Calibration", caption, svg, table)


def risk(pipelines: Sequence[Pipeline]) -> Plot | None:
    """The share of docs with a mistake among those that a pipeline is surest of; None where no
    pipeline has a confidence on every labelled doc."""
    curves = {}
    for pipeline in pipelines:
        docs = [doc for doc in pipeline.found if doc.gold is not None]
        sure = [doc.confidence for doc in docs if doc.confidence is not None]
        if docs and len(sure) == len(docs):
            confidence, counts = numpy.array(sure), entity_counts(docs)
            points = [p for p in risk_coverage(confidence, counts) if p.error_rate is not None]
            curves[pipeline.name] = points[::-1], aurc(confidence, counts)
    if not curves:
        return None
    with drawing() as (figure, axes):
        for index, (name, (points, area)) in enumerate(curves.items()):
            x = [100 * p.coverage for p in points]
            y = [100 * (p.error_rate or 0.0) for p in points]
            label = f"{name}: {area:.2f}"
            axes.step(x, y, where="post", color=look(index).color, label=label)
        axes.set_xlabel("docs kept, the surest first, %")
        axes.set_ylabel("docs with a mistake, %")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, None)
        key(figure)
        svg = inline(figure, "risk", _spoken("Share of wrong docs by coverage", curves))
    shares = (0.25, 0.5, 0.75, 1.0)
    lines = [
        [name, *(_error_at(points, share) for share in shares), f"{area:.3f}"]
        for name, (points, area) in curves.items()
    ]
    columns = ["docs with a mistake, %", *(f"{share:.0%} kept" for share in shares), "area"]
    caption = (
        "How many mistakes are left where the doubtful docs go to an LLM: lower is better. Beside "
        "the names: the area under the curve."
    )
    return Plot("Risk and coverage", caption, svg, Table("Risk by coverage", columns, lines))


def cost(pipelines: Sequence[Pipeline]) -> Plot | None:
    """Entity F1, or that of relations where none are looked for, against words a second, or where
    these are not known, against seconds of training. None where fewer than two have both."""
    fast = _priced(pipelines, "words_per_second")
    points = fast if len(fast) > 1 else _priced(pipelines, "seconds")
    if len(points) < 2:
        return None
    unit = "words a second" if points is fast else "training, s"
    with drawing() as (figure, axes):
        for index, name, price, quality in points:
            color, marker = look(index)
            axes.plot([price], [quality], marker, color=color, markersize=9, label=name)
        axes.margins(0.15, 0.2)
        axes.set_xlim(left=0)
        key(figure)
        axes.set_xlabel(unit)
        axes.set_ylabel("F1")
        svg = inline(figure, "cost", "F1 by cost of each pipeline, as in the table below")
    lines = [[name, f"{price:,.0f}", f"{quality:.2f}"] for _, name, price, quality in points]
    table = Table("F1 and cost", ["", unit, "F1"], lines)
    caption = f"Up and {'right' if points is fast else 'left'} is better."
    return Plot("Speed and quality", caption, svg, table)


def _priced(pipelines: Sequence[Pipeline], unit: str) -> list[tuple[int, str, float, float]]:
    """Number, name, price in the unit, and F1 in percent of the pipelines that have both."""
    points = []
    for index, pipeline in enumerate(pipelines):
        counts = pipeline.relations if pipeline.entities is None else pipeline.entities
        price = {**(pipeline.metrics.get("training") or {}), **pipeline.metrics}.get(unit)
        if counts is not None and price:
            quality = 100 * float(f_scores(counts.sum(axis=0)))
            points.append((index, pipeline.name, float(price), quality))
    return points


def _error_at(points: Sequence[Any], coverage: float) -> str:
    """Of the point that keeps at least this share of docs, and the fewest."""
    point = min((p for p in points if p.coverage >= coverage), key=lambda p: p.coverage)
    return f"{100 * point.error_rate:.1f}"


def _word(name: str) -> str:
    """A name as an id can hold it."""
    return re.sub(r"\W+", "-", name, flags=re.ASCII)


def _spoken(what: str, series: Mapping[str, Any]) -> str:
    return f"{what}, one line each for {', '.join(series)}; the figures stand in the table below"

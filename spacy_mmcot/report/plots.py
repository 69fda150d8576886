"""The plots of the report.

matplotlib's drawings are inline SVG: text stays text, colours follow the page's light and dark
theme, and nothing is loaded from a server.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy
from markupsafe import Markup

from ..errors import Errors, MMCoTError
from ..evaluation.calibration import (
    collect_mention_scores,
    compute_calibration_error,
    compute_reliability,
)
from ..evaluation.cascade import Point, compute_aurc, trace_risk_coverage
from ..evaluation.scores import count_entities
from .tables import Pipeline, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Placeholders of the page's colours, which are CSS variables that matplotlib cannot name.
TEXT_COLOR, _LINE_COLOR = "#010203", "#010204"
_SERIES = ("#010210", "#010211", "#010212", "#010213", "#010214")
_VARIABLES = {TEXT_COLOR: "var(--note)", _LINE_COLOR: "var(--line)"} | {
    color: f"var(--series-{index})" for index, color in enumerate(_SERIES)
}
_MARKERS = "osD^v"
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "svg.fonttype": "none",
    "svg.hashsalt": "spacy-mmcot",
    "font.size": 11,
    "axes.edgecolor": _LINE_COLOR,
    "axes.labelcolor": TEXT_COLOR,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _LINE_COLOR,
    "text.color": TEXT_COLOR,
    "xtick.color": TEXT_COLOR,
    "ytick.color": TEXT_COLOR,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
_WIDTH, _HEIGHT = 5.0, 3.2  # inches
_LEGEND_LETTERS = 56  # that fit in a line of the legend, a marker counted as 5


class Plot(NamedTuple):
    title: str
    caption: str
    svg: Markup
    table: Table | None = None


def make_plots(pipelines: Sequence[Pipeline]) -> list[Plot]:
    """Calibration, and risk and coverage, as far as there is data for them.

    Raises MMCoTError where there is something to draw and matplotlib is not installed.
    """
    return [plot for draw in (plot_calibration, plot_risk) if (plot := draw(pipelines))]


def plot_calibration(pipelines: Sequence[Pipeline]) -> Plot | None:
    """The share of right mentions by score; None where no pipeline scores its mentions."""
    curves = {}
    for pipeline in pipelines:
        scores, right = collect_mention_scores(pipeline.found)
        if len(scores):
            error = compute_calibration_error(scores, right)
            curves[pipeline.name] = compute_reliability(scores, right), error
    if not curves:
        return None
    with open_figure() as (figure, axes):
        axes.plot([0, 1], [0, 1], color=TEXT_COLOR, linewidth=1, linestyle="--")
        for index, (name, (points, error)) in enumerate(curves.items()):
            color, marker = get_look(index)
            x, y = [p["score"] for p in points], [p["right"] for p in points]
            label = f"{name}: {100 * error:.1f}"
            axes.plot(x, y, color=color, marker=marker, label=label)
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("share right")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.05)
        svg = render_svg(figure, "calibration", "Share of right mentions by score", curves)
    caption = (
        "How well scores match accuracy: on the dashed line they are equal. Beside the names: the "
        "calibration error, in points."
    )
    return Plot("Calibration of entity scores", caption, svg)


def plot_risk(pipelines: Sequence[Pipeline]) -> Plot | None:
    """The share of Docs with an error among the most confident ones; None where no pipeline has a
    confidence on every labelled Doc."""
    curves: dict[str, tuple[list[Point], float]] = {}
    for pipeline in pipelines:
        docs = [doc for doc in pipeline.found if doc.gold is not None]
        known = [doc.confidence for doc in docs if doc.confidence is not None]
        if docs and len(known) == len(docs):
            confidence, counts = numpy.array(known), count_entities(docs)
            points = [p for p in trace_risk_coverage(confidence, counts) if p.coverage]
            curves[pipeline.name] = points[::-1], compute_aurc(confidence, counts)
    if not curves:
        return None
    with open_figure() as (figure, axes):
        for index, (name, (points, area)) in enumerate(curves.items()):
            x = [100 * p.coverage for p in points]
            y = [100 * (p.error_rate or 0.0) for p in points]
            label = f"{name}: {area:.2f}"
            axes.step(x, y, where="post", color=get_look(index)[0], label=label)
        axes.set_xlabel("docs kept, the most confident first, %")
        axes.set_ylabel("docs with an error, %")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, None)
        svg = render_svg(figure, "risk", "Share of wrong docs by coverage", curves)
    caption = (
        "The errors that remain where docs of low confidence go to an LLM: lower is better. Beside "
        "the names: the area under the curve."
    )
    return Plot("Texts with a wrong entity, by confidence", caption, svg)


def get_look(index: int) -> tuple[str, str]:
    """Colour and marker of the series with this number, from 0; they repeat after five."""
    return _SERIES[index % len(_SERIES)], _MARKERS[index % len(_MARKERS)]


@contextmanager
def open_figure(height: float = _HEIGHT) -> Iterator[tuple[Figure, Axes]]:
    """A figure with its axes, in the page's style. height: inches.

    Raises MMCoTError where matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure as NewFigure
    except ImportError as error:
        raise MMCoTError(Errors.E725) from error
    # The calling program's settings stay as they are.
    with matplotlib.rc_context(_STYLE):
        figure = NewFigure(figsize=(_WIDTH, height), layout="constrained")
        yield figure, figure.subplots()


def render_svg(
    figure: Figure, name: str, title: str, series: Sequence[str] | Mapping[str, Any] = ()
) -> Markup:
    """The figure as an SVG element, with a legend above the axes where lines have labels.

    name: a word that no other figure of the page has, from which its ids are made. title, series:
        what screen readers say.
    """
    labels = figure.axes[0].get_legend_handles_labels()[1]
    if labels:
        columns = min(len(labels), max(1, _LEGEND_LETTERS // (max(map(len, labels)) + 5)))
        figure.legend(loc="outside upper left", ncols=columns, fontsize=10, columnspacing=1.2)
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    # HTML needs neither metadata nor name spaces, and ids must be unique on the page.
    unneeded = r'<metadata>.*?</metadata>|<!--.*?-->|\s+xmlns(:\w+)?="[^"]*"'
    svg = re.sub(unneeded, "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"(\d+(?:\.\d+)?)px (?:'[^']+', )*sans-serif", r"\1px system-ui, sans-serif", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    spoken = f"{title}: {', '.join(series)}."
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(spoken)}"', 1))

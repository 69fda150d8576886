"""matplotlib's drawings as SVG that is a part of its page: text as text, colours that turn with the
page's light and dark, and no address of any server."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from ..errors import Errors, MMCoTError

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

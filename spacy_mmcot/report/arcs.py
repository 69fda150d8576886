"""Texts with their entities and relations as HTML, and the templates of the page.

An arc over the text stands for each relation. displaCy is not used: its dependency view draws a
text as one line that never wraps, at a fixed distance per word, and cannot show scores or which
relations are right, wrong and missed; its entity view escapes texts but not labels.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, Literal, NamedTuple

import jinja2
from markupsafe import Markup

# How a mention or a relation compares with gold.
Status = Literal["", "right", "wrong", "missed"]

_SIGNS: dict[Status, str] = {"right": " ✓", "wrong": " ✗", "missed": " missed", "": ""}


class Mention(NamedTuple):
    """A mention by character offsets, end exclusive; `score` is a probability or None."""

    start: int
    end: int
    label: str
    score: float | None = None
    status: Status = ""


class Arc(NamedTuple):
    """A relation between two (start, end) of character offsets; `score` as in Mention."""

    head: tuple[int, int]
    tail: tuple[int, int]
    label: str
    score: float | None = None
    status: Status = ""


def render_text(text: str, mentions: Iterable[Mention], arcs: Sequence[Arc] | None) -> Markup:
    """A text with its mentions and the relations between them, as an HTML fragment.

    Mentions do not overlap. The end of a relation that no mention touches is marked without a
    label. arcs: None where relations are not annotated.
    """
    shown = _add_ends(mentions, arcs or ())
    pieces: list[tuple[str, dict[str, Any] | None, str]] = []
    at = 0
    for mention in shown:
        marked = {**mention._asdict(), "text": text[mention.start : mention.end]}
        # The verdict on what is not right, with the pipeline's score.
        status = "" if mention.status == "right" else _SIGNS[mention.status]
        if status and mention.score is not None:
            status += f" {mention.score:.2f}"
        pieces.append((text[at : mention.start], marked, status))
        at = mention.end
    pieces.append((text[at:], None, ""))
    links = None if arcs is None else [_make_link(text, shown, arc) for arc in arcs]
    return render_template("text.html.jinja", pieces=pieces, links=links)


def _make_link(text: str, mentions: list[Mention], arc: Arc) -> dict[str, Any]:
    head, tail = (_find_mention(mentions, span) for span in (arc.head, arc.tail))
    score = ("" if arc.score is None else f"{arc.score:.2f}") + _SIGNS[arc.status]
    texts = {"head_text": text[slice(*arc.head)], "tail_text": text[slice(*arc.tail)]}
    return {**arc._asdict(), **texts, "head": head, "tail": tail, "score": score.strip()}


def _add_ends(mentions: Iterable[Mention], arcs: Iterable[Arc]) -> list[Mention]:
    """The mentions, and the ends of relations that none of them touches, in text order."""
    found = list(mentions)
    for arc in arcs:
        for start, end in (arc.head, arc.tail):
            if all(end <= other.start or other.end <= start for other in found):
                found.append(Mention(start, end, ""))
    return sorted(found, key=lambda mention: mention[:2])


def _find_mention(mentions: list[Mention], span: tuple[int, int]) -> int:
    """The index of the mention that is the span, or else of the first one that it touches."""
    touched = [i for i, m in enumerate(mentions) if m.start < span[1] and span[0] < m.end]
    return next((i for i in touched if mentions[i][:2] == span), touched[0])


def compute_hue(label: str) -> int:
    """The colour of a label, the same in every process: a hue in degrees, [0, 360)."""
    return zlib.crc32(label.encode()) % 360


def read_asset(name: str) -> str:
    """A file of the folder static."""
    return (files(__package__) / "static" / name).read_text(encoding="utf-8")


def render_template(name: str, **values: Any) -> Markup:
    """A template of the folder static, with all values escaped that are not Markup."""
    return Markup(get_environment().get_template(name).render(**values))


@functools.cache
def get_environment() -> jinja2.Environment:
    """The templates of the folder static, with values escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["hue"] = compute_hue
    return environment

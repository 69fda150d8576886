"""Texts with their entities and relations as HTML: displaCy marks the mentions, an arc over the
text (or, where arcs have no room, a labelled connector under it) stands for each relation.
"""

from __future__ import annotations

import functools
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Literal, NamedTuple

from spacy.displacy import EntityRenderer
from spacy.tokens import Doc

from ..types import RELATIONS_KEY

# What is said of a mention or a relation beside gold.
Status = Literal["", "right", "wrong", "missed"]

# Without white space of its own, so that the text can be shown with the white space it has.
_MARK = '<mark{status} style="--hue: {hue}">{text}<span>{label}</span></mark>'

_CONNECTOR = """\
<li class="{status}" data-head="{head}" data-tail="{tail}" style="--hue: {hue}" title="{tip}">
<span class="mmcot-end" style="--hue: {head_hue}">{head_text}</span>
<span class="mmcot-link">
<span class="mmcot-label"><span class="mmcot-name">{label}</span> <small>{score}</small></span>
<svg aria-label="to"><line x1="0" y1="5" x2="100%" y2="5"/>\
<svg x="100%" overflow="visible"><path d="M0 5l-7 -4v8z"/></svg></svg>
</span>
<span class="mmcot-end" style="--hue: {tail_hue}">{tail_text}</span>
</li>
"""

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


def render_relations(doc: Doc, *, min_score: float = 0.0) -> str:
    """The Doc's text with its entities and its `doc._.mmcot_rel`, as an HTML fragment in which all
    text is escaped. It takes its looks from `assets()`, which the page needs once.

    Relations with a score below `min_score` are left out.
    """
    mentions = [Mention(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]
    # Straight from the user data, so that the extension attributes need not be registered.
    stored = doc.user_data.get(RELATIONS_KEY)
    arcs = [Arc((h0, h1), (t0, t1), *rest) for h0, h1, t0, t1, *rest in stored or ()]
    # A part of a Doc, cut out with its user data, no longer holds every mention.
    text = doc.text
    inside = [arc for arc in arcs if all(text[s:e] and e <= len(text) for s, e in arc[:2])]
    kept = [arc for arc in inside if (arc.score or 0.0) >= min_score]
    return render_text(text, mentions, None if stored is None else kept)


def render_text(text: str, mentions: Iterable[Mention], arcs: Sequence[Arc] | None) -> str:
    """A text with its mentions and the relations between them, as `render_relations` shows a Doc's.

    Offsets count characters of the text; mentions do not overlap. A relation's end that no mention
    touches is marked without a label. arcs: None where nobody looked for relations.
    """
    shown = _with_ends(mentions, arcs or ())
    connectors = "".join(_connector(text, shown, arc) for arc in arcs or ())
    if connectors:
        relations = f'<ul class="mmcot-relations">\n{connectors}</ul>\n'
    else:
        found = "Relations not annotated" if arcs is None else "No relations"
        relations = f'<p class="mmcot-none">{found}</p>\n'
    return f'<figure class="mmcot">{_marked_text(text, shown)}\n{relations}</figure>\n'


def assets() -> str:
    """The style and the script of the fragments, as HTML. Without the script, or where it is not
    allowed, the relations show as connectors."""
    style = asset("theme.css") + asset("relations.css")
    return f"<style>\n{style}</style>\n<script>\n{asset('relations.js')}</script>"


def asset(name: str) -> str:
    """A file of the folder static."""
    return (files(__package__) / "static" / name).read_text(encoding="utf-8")


def hue(label: str) -> int:
    """The colour of a label, the same in every process: a hue in degrees, [0, 360)."""
    return zlib.crc32(label.encode()) % 360


def _marked_text(text: str, mentions: list[Mention]) -> str:
    # displaCy escapes the text, but not the labels.
    marks = [
        {
            "start": mention.start,
            "end": mention.end,
            "label": escape(f"{mention.label}{_verdict(mention)}"),
            "params": {
                "hue": hue(mention.label),
                "status": f' class="mmcot-{mention.status}"' if mention.status else "",
            },
        }
        for mention in mentions
    ]
    settings = {"lang": "en", "direction": _direction(text)}
    return _renderer().render([{"text": text, "ents": marks, "settings": settings}]).strip()


@functools.cache
def _renderer() -> EntityRenderer:
    return EntityRenderer(options={"template": _MARK})


def _verdict(mention: Mention) -> str:
    """The sign of what is not right, with the score that the pipeline gave it."""
    if mention.status in ("", "right"):
        return ""
    score = "" if mention.score is None else f" {mention.score:.2f}"
    return f"{_SIGNS[mention.status]}{score}"


def _connector(text: str, mentions: list[Mention], arc: Arc) -> str:
    head, tail = (_index(mentions, span) for span in (arc.head, arc.tail))
    texts = [text[start:end] for start, end in (arc.head, arc.tail)]
    score = ("" if arc.score is None else f"{arc.score:.2f}") + _SIGNS[arc.status]
    words = f"{texts[0]} → {texts[1]}: {arc.label}"
    return _CONNECTOR.format(
        status=f"mmcot-{arc.status}" if arc.status else "",
        head=head,
        tail=tail,
        hue=hue(arc.label),
        head_hue=hue(mentions[head].label),
        tail_hue=hue(mentions[tail].label),
        head_text=escape(texts[0]),
        tail_text=escape(texts[1]),
        label=escape(arc.label),
        score=score.strip(),
        tip=escape(f"{words}, {score.strip()}" if score else words),
    )


def _with_ends(mentions: Iterable[Mention], arcs: Iterable[Arc]) -> list[Mention]:
    """The mentions, and the relations' ends that none of them touches, in text order."""
    found = list(mentions)
    for arc in arcs:
        for start, end in (arc.head, arc.tail):
            if all(end <= other.start or other.end <= start for other in found):
                found.append(Mention(start, end, ""))
    return sorted(found, key=lambda mention: mention[:2])


def _index(mentions: list[Mention], span: tuple[int, int]) -> int:
    """The mention that is the span, or else the first one it touches."""
    touched = [i for i, m in enumerate(mentions) if m.start < span[1] and span[0] < m.end]
    return next((i for i in touched if mentions[i][:2] == span), touched[0])


def _direction(text: str) -> str:
    """That of the first letter which has one, as browsers take it for dir=auto."""
    for character in text:
        kind = unicodedata.bidirectional(character)
        if kind in ("L", "R", "AL"):
            return "ltr" if kind == "L" else "rtl"
    return "ltr"

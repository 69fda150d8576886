"""Docs with their entities and relations as HTML: displaCy marks the mentions, an arc over the text
(or, where arcs have no room, a labelled connector under it) stands for each relation."""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from itertools import repeat
from typing import NamedTuple, TypeVar

from spacy.displacy import EntityRenderer
from spacy.tokens import Doc

from ..types import ID_KEY, PAIRS_KEY, RELATIONS_KEY

# Without white space of its own, so that the text can be shown with the white space it has.
_MARK = '<mark style="--hue: {hue}">{text}<span>{label}</span></mark>'

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

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
{assets}
</head>
<body>
<h1>{title}</h1>
<p class="note">{note}</p>
{articles}
</body>
</html>
"""

_Row = TypeVar("_Row")
_Other = TypeVar("_Other")

_MARKS = {"mmcot-right": " ✓", "mmcot-wrong": " ✗", "mmcot-missed": " missed", "": ""}


class _Mention(NamedTuple):
    start: int
    end: int
    label: str


class _Arc(NamedTuple):
    """A relation by character offsets, ends exclusive."""

    head: tuple[int, int]
    tail: tuple[int, int]
    label: str
    score: float


def render_relations(doc: Doc, *, min_score: float = 0.0) -> str:
    """The Doc's text with its entities and its `doc._.mmcot_rel`, as an HTML fragment in which all
    text is escaped. It takes its looks from `assets()`, which the page needs once.

    Relations with a score below `min_score` are left out.
    """
    return _figure(doc, [(arc, "") for arc in _arcs(doc, min_score)])


def relations_page(
    docs: Iterable[Doc],
    title: str,
    *,
    gold: Iterable[Doc] | None = None,
    below: Iterable[str] | None = None,
    min_score: float = 0.0,
) -> str:
    """A page of Docs that needs no network: light and dark, for desk and phone.

    gold: for each Doc, the labelled one of the same text. It is shown under the Doc, and each
        relation is marked as right or wrong, in gold as missed, by its label and its mentions'
        offsets; one between mentions that nobody judged as a pair is not marked.
    below: for each Doc, HTML that is shown under it, as `doc_overlay(style=False)` makes it.

    Raises ValueError where gold or below are not as many as the Docs.
    """
    articles, n_relations = [], 0
    for (doc, reference), extra in _beside(_beside(docs, gold), below):
        found = _arcs(doc, min_score)
        n_relations += len(found)
        figure = _figure(doc, [(arc, _verdict(arc, reference)) for arc in found]) + (extra or "")
        if reference is not None:
            hits = {arc[:3] for arc in found}
            wanted = [
                (arc, "mmcot-right" if arc[:3] in hits else "mmcot-missed")
                for arc in _arcs(reference, 0.0)
            ]
            figure = f"<h3>Predicted</h3>\n{figure}<h3>Gold</h3>\n{_figure(reference, wanted)}"
        name = doc.user_data.get(ID_KEY) or (reference and reference.user_data.get(ID_KEY))
        heading = f"<h2>{escape(str(name))}</h2>\n" if name else ""
        articles.append(f"<article>\n{heading}{figure}</article>")
    return _PAGE.format(
        title=escape(title),
        style=_asset("page.css") + _asset("overlay.css"),
        assets=assets(),
        note=f"{_count(len(articles), 'document')}, {_count(n_relations, 'relation')}",
        articles="\n".join(articles),
    )


def assets() -> str:
    """The style and the script of the fragments, as HTML. Without the script, or where it is not
    allowed, the relations show as connectors."""
    style = _asset("theme.css") + _asset("relations.css")
    return f"<style>\n{style}</style>\n<script>\n{_asset('relations.js')}</script>"


def hue(label: str) -> int:
    """The colour of a label, the same in every process: a hue in degrees, [0, 360)."""
    return zlib.crc32(label.encode()) % 360


def _figure(doc: Doc, arcs: list[tuple[_Arc, str]]) -> str:
    mentions = _mentions(doc, [arc for arc, _ in arcs])
    connectors = "".join(_connector(doc, mentions, arc, status) for arc, status in arcs)
    if connectors:
        relations = f'<ul class="mmcot-relations">\n{connectors}</ul>\n'
    else:
        found = "No relations" if RELATIONS_KEY in doc.user_data else "Relations not annotated"
        relations = f'<p class="mmcot-none">{found}</p>\n'
    return f'<figure class="mmcot">{_marked_text(doc, mentions)}\n{relations}</figure>\n'


def _marked_text(doc: Doc, mentions: list[_Mention]) -> str:
    # displaCy escapes the text, but not the labels.
    marks = [
        {
            "start": mention.start,
            "end": mention.end,
            "label": escape(mention.label),
            "params": {"hue": hue(mention.label)},
        }
        for mention in mentions
    ]
    settings = {"lang": "en", "direction": _direction(doc.text)}
    parsed = [{"text": doc.text, "ents": marks, "settings": settings}]
    return EntityRenderer(options={"template": _MARK}).render(parsed).strip()


def _connector(doc: Doc, mentions: list[_Mention], arc: _Arc, status: str) -> str:
    head, tail = (_index(mentions, span) for span in (arc.head, arc.tail))
    texts = [doc.text[start:end] for start, end in (arc.head, arc.tail)]
    score = f"{arc.score:.2f}"
    return _CONNECTOR.format(
        status=status,
        head=head,
        tail=tail,
        hue=hue(arc.label),
        head_hue=hue(mentions[head].label),
        tail_hue=hue(mentions[tail].label),
        head_text=escape(texts[0]),
        tail_text=escape(texts[1]),
        label=escape(arc.label),
        score=score + _MARKS[status],
        tip=escape(f"{texts[0]} → {texts[1]}: {arc.label}, {score}{_MARKS[status]}"),
    )


def _arcs(doc: Doc, min_score: float) -> list[_Arc]:
    """The Doc's relations, straight from its user data, so that the extension attributes need not
    be registered."""
    arcs = [
        _Arc((h0, h1), (t0, t1), label, score)
        for h0, h1, t0, t1, label, score in doc.user_data.get(RELATIONS_KEY, ())
    ]
    # A part of a Doc, cut out with its user data, no longer holds every mention.
    text = doc.text
    inside = [arc for arc in arcs if all(text[s:e] and e <= len(text) for s, e in arc[:2])]
    return [arc for arc in inside if arc.score >= min_score]


def _mentions(doc: Doc, arcs: list[_Arc]) -> list[_Mention]:
    """The entities, and the relations' mentions that none of them touches, in text order."""
    mentions = [_Mention(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]
    for arc in arcs:
        for start, end in (arc.head, arc.tail):
            if all(end <= other.start or other.end <= start for other in mentions):
                mentions.append(_Mention(start, end, ""))
    return sorted(mentions)


def _index(mentions: list[_Mention], span: tuple[int, int]) -> int:
    """The mention that is the span, or else the first one it touches."""
    touched = [i for i, m in enumerate(mentions) if m.start < span[1] and span[0] < m.end]
    return next((i for i in touched if mentions[i][:2] == span), touched[0])


def _verdict(arc: _Arc, reference: Doc | None) -> str:
    if reference is None or RELATIONS_KEY not in reference.user_data:
        return ""
    if arc[:3] in {other[:3] for other in _arcs(reference, 0.0)}:
        return "mmcot-right"
    judged = reference.user_data.get(PAIRS_KEY)
    entities = {(ent.start_char, ent.end_char) for ent in reference.ents}
    known = arc.head in entities and arc.tail in entities
    if judged is not None and known and (*arc.head, *arc.tail) not in map(tuple, judged):
        return ""
    return "mmcot-wrong"


def _beside(
    rows: Iterable[_Row], others: Iterable[_Other] | None
) -> Iterable[tuple[_Row, _Other | None]]:
    return zip(rows, repeat(None)) if others is None else zip(rows, others, strict=True)


def _direction(text: str) -> str:
    """That of the first letter which has one, as browsers take it for dir=auto."""
    for character in text:
        kind = unicodedata.bidirectional(character)
        if kind in ("L", "R", "AL"):
            return "ltr" if kind == "L" else "rtl"
    return "ltr"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _asset(name: str) -> str:
    return (files(__package__) / "static" / name).read_text(encoding="utf-8")

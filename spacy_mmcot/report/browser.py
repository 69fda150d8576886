"""The docs of the report: what is labelled in each, what every pipeline found, what the LLM knew,
and by which of these the reader can choose them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup
from spacy.tokens import Doc

from ..evaluation.predictions import FoundEntity, Predicted, SpanRelation
from ..evaluation.scores import mentions, typed_relations
from ..types import KNOWLEDGE_KEY, Entity
from .arcs import Arc, Mention, Status, hue, render_text

# What counts as one finding: (start, end, label), or a relation as it is scored, its label last.
Key = tuple[Any, ...]

_SENTENCES = {
    "sentence": "What the post means",
    "multimodality": "Picture and text",
    "caption": "Caption",
}


class Item(NamedTuple):
    """A labelled Doc and what was found in it, one record a pipeline, the pipeline in question
    first. picture: HTML, empty without one. seen_by: the pipeline whose attention lies on it, empty
    without any."""

    doc: Doc
    found: Sequence[Predicted]
    picture: str = ""
    seen_by: str = ""


class Tally(NamedTuple):
    """How one pipeline fares on one doc; `judged` says whether there is gold to hold it against."""

    name: str
    wrong: int
    missed: int
    judged: bool


class Block(NamedTuple):
    """One drawing of the text, for all that found the same in it."""

    names: list[str]
    figure: Markup


class Noun(NamedTuple):
    """One line of the LLM's list, and the (label, hue) of the entities that gold and the pipeline
    in question have in its place."""

    mention: str
    kind: str
    explanation: str
    gold: list[tuple[str, int]]
    found: list[tuple[str, int]]


class Article(NamedTuple):
    """All that the page says of a doc. `views` holds, for each way to choose docs, the labels by
    which the doc belongs to it: all of its labels first, then those in which the pipeline in
    question differs from gold, then from each other pipeline. place: its number in the data, from
    0. search: what a search looks through, in lower case."""

    id: str
    place: int
    tallies: list[Tally]
    blocks: list[Block]
    picture: Markup
    seen_by: str
    nouns: list[Noun]
    sentences: list[tuple[str, str]]
    views: list[set[str]]
    errors: int
    search: str


def make_articles(names: Sequence[str], items: Iterable[Item]) -> list[Article]:
    """The articles of the docs, those with the most errors of the first pipeline first.

    names: the pipelines', in the order of each item's `found`.
    """
    articles = [_article(names, place, item) for place, item in enumerate(items)]
    return sorted(articles, key=lambda article: -article.errors)


def view_names(names: Sequence[str]) -> list[str]:
    """What the reader chooses docs by, in the order of `Article.views`."""
    first, *others = names
    return ["All docs", f"{first} ≠ gold", *(f"{first} ≠ {other}" for other in others)]


def _article(names: Sequence[str], place: int, item: Item) -> Article:
    first, *others = item.found
    gold, found = _gold(first), _found(first)
    tallies = [_tally(name, one) for name, one in zip(names, item.found, strict=True)]
    differs = [_labels(_wrong(first) | _missed(first))]
    differs += [_labels(found ^ _found(other)) for other in others]
    nouns, sentences = _knowledge(item.doc, first)
    said = [words for noun in nouns for words in noun[:3]] + [text for _, text in sentences]
    return Article(
        id=first.id,
        place=place,
        tallies=tallies,
        blocks=_blocks(names, item.found),
        picture=Markup(item.picture),
        seen_by=item.seen_by,
        nouns=nouns,
        sentences=sentences,
        views=[_labels(gold.union(*map(_found, item.found))), *differs],
        errors=tallies[0].wrong + tallies[0].missed,
        search="\n".join([first.id, first.text, *said]).lower(),
    )


def _gold(doc: Predicted) -> set[Key]:
    gold = typed_relations(doc.gold_relations or (), doc.gold or ())
    return {*mentions(doc.gold), *gold}


def _found(doc: Predicted) -> set[Key]:
    return {*mentions(doc.entities), *typed_relations(doc.relations or (), doc.entities)}


def _wrong(doc: Predicted) -> set[Key]:
    """What is found and not gold, of what somebody has labelled."""
    return {key for key in _found(doc) - _gold(doc) if _counts(doc, key)}


def _missed(doc: Predicted) -> set[Key]:
    """What is gold and not found, of what the pipeline looks for."""
    return {key for key in _gold(doc) - _found(doc) if _counts(doc, key)}


def _counts(doc: Predicted, key: Key) -> bool:
    if len(key) == 3:
        return doc.gold is not None
    return doc.gold_relations is not None and doc.relations is not None


def _tally(name: str, doc: Predicted) -> Tally:
    judged = doc.gold is not None or doc.gold_relations is not None
    return Tally(name, len(_wrong(doc)), len(_missed(doc)), judged)


def _blocks(names: Sequence[str], found: Sequence[Predicted]) -> list[Block]:
    """Gold, with what the first pipeline missed, then what every pipeline found; what is the same
    is drawn once."""
    first = found[0]
    blocks: list[Block] = []
    drawn: list[tuple[set[Key], bool]] = []
    if first.gold is not None or first.gold_relations is not None:
        missed: dict[Key, Status] = dict.fromkeys(_missed(first), "missed")
        drawn.append((_gold(first), first.gold_relations is not None))
        blocks.append(
            Block(["Gold"], _figure(first.text, first.gold or (), first.gold_relations, missed))
        )
    for name, doc in zip(names, found, strict=True):
        same = (_found(doc), doc.relations is not None)
        if same in drawn:
            blocks[drawn.index(same)].names.append(name)
            continue
        drawn.append(same)
        right = {key for key in _found(doc) & _gold(doc) if _counts(doc, key)}
        status: dict[Key, Status] = dict.fromkeys(right, "right")
        status |= dict.fromkeys(_wrong(doc), "wrong")
        blocks.append(Block([name], _figure(doc.text, doc.entities, doc.relations, status)))
    return blocks


def _figure(
    text: str,
    entities: Sequence[Entity],
    relations: Sequence[SpanRelation] | None,
    status: Mapping[Key, Status],
) -> Markup:
    shown = []
    for e in entities:
        score = e.score if isinstance(e, FoundEntity) else None
        shown.append(
            Mention(e.start, e.end, e.label, score, status.get((e.start, e.end, e.label), ""))
        )
    arcs = None
    if relations is not None:
        arcs = []
        for r in relations:
            (key,) = typed_relations([r], entities)
            arcs.append(Arc(r.head, r.tail, r.label, r.score, status.get(key, "")))
    return Markup(render_text(text, shown, arcs))


def _labels(keys: Iterable[Key]) -> set[str]:
    return {key[-1] for key in keys}


def _knowledge(doc: Doc, found: Predicted) -> tuple[list[Noun], list[tuple[str, str]]]:
    data: dict[Any, Any] = doc.user_data
    known: dict[str, Any] = data.get(KNOWLEDGE_KEY) or {}
    nouns = []
    for row in known.get("noun") or ():
        mention = str(row.get("mention", ""))
        place = re.search(re.escape(mention), found.text, re.IGNORECASE) if mention else None
        span = place.span() if place else (0, 0)
        nouns.append(
            Noun(
                mention,
                str(row.get("kind", "")),
                str(row.get("explanation", "")),
                _there(found.gold or (), span),
                _there(found.entities, span),
            )
        )
    said = [(title, str(known[key])) for key, title in _SENTENCES.items() if known.get(key)]
    return nouns, said


def _there(entities: Iterable[Entity], span: tuple[int, int]) -> list[tuple[str, int]]:
    """The (label, hue) of the entities that touch a span."""
    touching = [e.label for e in entities if e.start < span[1] and span[0] < e.end]
    return [(label, hue(label)) for label in touching]

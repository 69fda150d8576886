"""Docs and what two pipelines found in them, for the tests of the report."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import spacy
from spacy.tokens import Doc

from spacy_mmcot.evaluation.predictions import FoundEntity, Predicted, SpanRelation
from spacy_mmcot.report.build import Item
from spacy_mmcot.report.tables import Pipeline
from spacy_mmcot.types import KNOWLEDGE_KEY, Entity

VOID = {"meta", "line", "path", "br", "img", "input", "link", "rect", "use"}
Found = Sequence[tuple[int, int, str]]


def predicted(
    text: str, gold: Found, found: Found, relation: str = "", name: str = "doc", sure: float = 0.5
) -> Predicted:
    """A record whose first two mentions, if there are two on a side, stand in the relation."""

    def between(mentions: Found, score: float | None) -> list[SpanRelation]:
        if not relation or len(mentions) < 2:
            return []
        head, tail = ((start, end) for start, end, _ in mentions[:2])
        return [SpanRelation(head=head, tail=tail, label=relation, score=score)]

    return Predicted(
        id=name,
        text=text,
        words=len(text.split()),
        gold=[Entity(start=s, end=e, label=label) for s, e, label in gold],
        entities=[FoundEntity(start=s, end=e, label=label, score=0.75) for s, e, label in found],
        gold_relations=between(gold, None),
        relations=between(found, 0.875),
        confidence=sure,
    )


def doc_of(text: str, knowledge: dict[str, Any] | None = None) -> Doc:
    doc = spacy.blank("en").make_doc(text)
    if knowledge is not None:
        doc.user_data[KNOWLEDGE_KEY] = knowledge
    return doc


TEXT = "Anna sings in Oslo tonight"
ANNA, OSLO = (0, 4, "PER"), (14, 18, "LOC")
KNOWLEDGE = {
    "noun": [{"mention": "Oslo", "kind": "city", "explanation": "where she sings"}],
    "sentence": "A concert is announced.",
}


def three() -> tuple[list[Pipeline], list[Item]]:
    """Three docs: in the first both pipelines are right, in the second the student takes Oslo for
    a person, in the third it finds nothing; the baseline is right but for the third."""
    gold = [ANNA, OSLO]
    student = [
        predicted(TEXT, gold, gold, "at", "right", 0.9),
        predicted(TEXT, gold, [ANNA, (14, 18, "PER")], "at", "label", 0.6),
        predicted(TEXT, gold, [], "at", "none", 0.3),
    ]
    baseline = [
        predicted(TEXT, gold, gold, "at", "right", 0.8),
        predicted(TEXT, gold, gold, "at", "label", 0.7),
        predicted(TEXT, gold, [], "at", "none", 0.4),
    ]
    speed = {"words_per_second": 1000, "model_mb": 12.0, "training": {"seconds": 60.0}}
    pipelines = [
        Pipeline("student", student, speed),
        Pipeline("baseline", baseline, speed),
    ]
    docs = [doc_of(TEXT, KNOWLEDGE), doc_of(TEXT), doc_of(TEXT)]
    items = [Item(doc, [one.found[i] for one in pipelines]) for i, doc in enumerate(docs)]
    return pipelines, items


class Page(HTMLParser):
    """What a browser would build: balanced elements, attributes, and the text shown in each."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.articles: list[str] = []
        self.templates: list[dict[str, str]] = []
        self.shown = ""
        self.feed(str(html))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "template":
            self.templates.append({name: value or "" for name, value in attrs})
        if tag == "article":
            self.articles.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open or "script" in self.open:
            return
        self.shown += data
        if "article" in self.open:
            self.articles[-1] += data

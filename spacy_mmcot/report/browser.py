"""The documents of the report: the labels of each, what every pipeline found, the LLM's knowledge,
and the views by which the reader selects them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup
from spacy.tokens import Doc

from ..evaluation.predictions import FoundEntity, Predicted, SpanRelation
from ..evaluation.scores import get_mentions, get_typed_relations
from ..types import KNOWLEDGE_KEY, Entity
from .arcs import Arc, Mention, Status, render_text

# One finding: (start, end, label), or a relation as it is scored, its label last.
Key = tuple[Any, ...]

_SENTENCES = {
    "sentence": "Meaning of the post",
    "multimodality": "Picture and text",
    "caption": "Caption",
}


class Item(NamedTuple):
    """A labelled Doc and what was found in it, one record per pipeline, the pipeline under review
    first; None where the LLM has no conclusion. picture: HTML, empty without one. seen_by: the
    pipeline whose attention is drawn on it, empty without any."""

    doc: Doc
    found: Sequence[Predicted | None]
    picture: str = ""
    seen_by: str = ""


class Tally(NamedTuple):
    """The errors of one pipeline in one Doc. judged: whether the Doc has gold labels."""

    name: str
    wrong: int
    missed: int
    judged: bool


class Noun(NamedTuple):
    """A row of the LLM's list of nouns, and the labels of the entities that gold and the pipeline
    under review have at its place."""

    mention: str
    kind: str
    explanation: str
    gold: list[str]
    found: list[str]


class Article(NamedTuple):
    """All that the page shows of a Doc.

    place: its number in the data, from 0.
    blocks: drawings of the text, each with the names of all pipelines that found the same in it.
    views: for each view of `name_views` the labels by which the Doc belongs to it.
    search: the text that a search looks through, in lower case.
    """

    id: str
    place: int
    tallies: list[Tally]
    blocks: list[tuple[list[str], Markup]]
    picture: Markup
    seen_by: str
    nouns: list[Noun]
    sentences: list[tuple[str, str]]
    views: list[list[str]]
    errors: int
    search: str

    @property
    def views_json(self) -> str:
        return json.dumps(self.views, ensure_ascii=False)


def make_articles(names: Sequence[str], items: Iterable[Item]) -> list[Article]:
    """The articles of the Docs, those with the most errors of the first pipeline first.

    names: the pipelines', in the order of each item's `found`.
    """
    articles = [_make_article(names, place, item) for place, item in enumerate(items)]
    return sorted(articles, key=lambda article: -article.errors)


def name_views(names: Sequence[str]) -> list[str]:
    """All Docs, those in which the first pipeline differs from gold, and from each other one."""
    first, *others = names
    return ["All docs", f"{first} ≠ gold", *(f"{first} ≠ {other}" for other in others)]


def _make_article(names: Sequence[str], place: int, item: Item) -> Article:
    found = {name: doc for name, doc in zip(names, item.found, strict=True) if doc is not None}
    compared = {name: _compare(doc) for name, doc in found.items()}
    doc, first = found[names[0]], compared[names[0]]
    tallies = [
        Tally(
            name,
            len(compared[name].wrong),
            len(compared[name].missed),
            one.gold is not None or one.gold_relations is not None,
        )
        for name, one in found.items()
    ]
    views = [
        first.gold.union(*(findings.found for findings in compared.values())),
        first.wrong | first.missed,
        *(first.found ^ compared.get(name, first).found for name in names[1:]),
    ]
    data: dict[Any, Any] = item.doc.user_data
    known: dict[str, Any] = data.get(KNOWLEDGE_KEY) or {}
    nouns = [_make_noun(row, doc) for row in known.get("noun") or ()]
    sentences = [(title, str(known[key])) for key, title in _SENTENCES.items() if known.get(key)]
    sentences += _describe_conclusion(known.get("conclusion") or {})
    said = [words for noun in nouns for words in noun[:3]] + [text for _, text in sentences]
    return Article(
        id=doc.id,
        place=place,
        tallies=tallies,
        blocks=_make_blocks(found, compared),
        picture=Markup(item.picture),
        seen_by=item.seen_by,
        nouns=nouns,
        sentences=sentences,
        views=[sorted({key[-1] for key in view}) for view in views],
        errors=tallies[0].wrong + tallies[0].missed,
        search="\n".join([doc.id, doc.text, *said]).lower(),
    )


def _make_noun(row: Mapping[str, Any], doc: Predicted) -> Noun:
    mention, kind, explanation = (str(row.get(k, "")) for k in ("mention", "kind", "explanation"))
    place = re.search(re.escape(mention), doc.text, re.IGNORECASE) if mention else None
    start, end = place.span() if place else (0, 0)
    gold, found = (
        [e.label for e in entities if e.start < end and start < e.end]
        for entities in (doc.gold or (), doc.entities)
    )
    return Noun(mention, kind, explanation, gold, found)


def _describe_conclusion(conclusion: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The reasoning before the conclusion, and what the LLM is not sure of."""
    items = [
        *(conclusion.get("entities") or ()),
        *(
            {**r, "mention": f"{r['head']} → {r['tail']}"}
            for r in conclusion.get("relations") or ()
        ),
    ]
    doubtful = [f"{i['mention']}: {i['label']} ({i['sure']})" for i in items if i["sure"] != "high"]
    said = {"Reasoning": conclusion.get("reasoning") or "", "Not sure of": ", ".join(doubtful)}
    return [(title, words) for title, words in said.items() if words]


class _Findings(NamedTuple):
    """gold, found: all of a Doc. wrong: found and not gold, where there are gold labels. missed:
    gold and not found, of what the pipeline predicts."""

    gold: set[Key]
    found: set[Key]
    wrong: set[Key]
    missed: set[Key]


def _compare(doc: Predicted) -> _Findings:
    gold_relations = get_typed_relations(doc.gold_relations or (), doc.gold or ())
    gold: set[Key] = {*get_mentions(doc.gold), *gold_relations}
    relations = get_typed_relations(doc.relations or (), doc.entities)
    found: set[Key] = {*get_mentions(doc.entities), *relations}
    has_entities = doc.gold is not None
    has_relations = doc.gold_relations is not None and doc.relations is not None
    # A mention has three elements, a relation more.
    differ = {key for key in found ^ gold if (has_entities if len(key) == 3 else has_relations)}
    return _Findings(gold, found, differ & found, differ & gold)


def _make_blocks(
    docs: Mapping[str, Predicted], compared: Mapping[str, _Findings]
) -> list[tuple[list[str], Markup]]:
    """Gold, with what the first pipeline missed, then the findings of every pipeline; equal ones
    are drawn once."""
    first, (findings, *_) = next(iter(docs.values())), compared.values()
    blocks: list[tuple[list[str], Markup]] = []
    drawn: list[tuple[set[Key], bool]] = []
    if first.gold is not None or first.gold_relations is not None:
        missed: dict[Key, Status] = dict.fromkeys(findings.missed, "missed")
        drawn.append((findings.gold, first.gold_relations is not None))
        figure = _render(first.text, first.gold or (), first.gold_relations, missed)
        blocks.append((["Gold"], figure))
    for name, doc in docs.items():
        findings = compared[name]
        same = (findings.found, doc.relations is not None)
        if same in drawn:
            blocks[drawn.index(same)][0].append(name)
            continue
        drawn.append(same)
        status: dict[Key, Status] = dict.fromkeys(findings.found & findings.gold, "right")
        status |= dict.fromkeys(findings.wrong, "wrong")
        blocks.append(([name], _render(doc.text, doc.entities, doc.relations, status)))
    return blocks


def _render(
    text: str,
    entities: Sequence[Entity],
    relations: Sequence[SpanRelation] | None,
    status: Mapping[Key, Status],
) -> Markup:
    shown = []
    for e in entities:
        score = e.score if isinstance(e, FoundEntity) else None
        key = (e.start, e.end, e.label)
        shown.append(Mention(*key, score, status.get(key, "")))
    if relations is None:
        return render_text(text, shown, None)
    arcs = []
    for r in relations:
        (relation,) = get_typed_relations([r], entities)
        arcs.append(Arc(r.head, r.tail, r.label, r.score, status.get(relation, "")))
    return render_text(text, shown, arcs)

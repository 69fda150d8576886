"""The documents of the report: the labels of each, what every pipeline found, the LLM's knowledge,
and the views by which the reader selects them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup
from spacy.tokens import Doc

from ..evaluation.predictions import FoundEntity, Predicted, SpanRelation
from ..evaluation.scores import get_mentions, get_typed_relations
from ..types import KNOWLEDGE_KEY, Entity
from .drawings import Arc, Mention, Status, render_text

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


class Article(NamedTuple):
    """All that the page shows of a Doc.

    place: its number in the data, from 0.
    tallies: each pipeline's name and numbers of wrong and of missed findings, where there are gold
        labels.
    blocks: drawings of the text, each with the names of all pipelines that found the same in it.
    nouns: the LLM's list of nouns: `mention`, `kind`, `explanation`.
    views: for each view of `name_views` the labels by which the Doc belongs to it.
    search: the text that a search looks through, in lower case.
    """

    id: str
    place: int
    tallies: list[tuple[str, int, int]]
    blocks: list[tuple[list[str], Markup]]
    picture: Markup
    seen_by: str
    nouns: list[Mapping[str, str]]
    sentences: list[tuple[str, str]]
    views: list[list[str]]
    errors: int
    search: str


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
        (name, len(one.wrong), len(one.missed)) for name, one in compared.items() if one.judged
    ]
    views = [
        first.gold.union(*(findings.found for findings in compared.values())),
        first.wrong | first.missed,
        *(first.found ^ compared.get(name, first).found for name in names[1:]),
    ]
    data: dict[Any, Any] = item.doc.user_data
    known: dict[str, Any] = data.get(KNOWLEDGE_KEY) or {}
    nouns = known.get("noun") or []
    sentences = [(title, str(known[key])) for key, title in _SENTENCES.items() if known.get(key)]
    sentences += _describe_conclusion(known.get("conclusion") or {})
    said = [words for noun in nouns for words in map(str, noun.values())] + [
        text for _, text in sentences
    ]
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
        errors=len(first.wrong) + len(first.missed),
        search="\n".join([doc.id, doc.text, *said]).lower(),
    )


def _describe_conclusion(conclusion: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The reasoning before the conclusion, and what the LLM is not sure of."""
    relations = conclusion.get("relations") or ()
    named = [{**r, "mention": f"{r['head']} → {r['tail']}"} for r in relations]
    items = [*(conclusion.get("entities") or ()), *named]
    doubtful = [f"{i['mention']}: {i['label']} ({i['sure']})" for i in items if i["sure"] != "high"]
    said = {"Reasoning": conclusion.get("reasoning") or "", "Not sure of": ", ".join(doubtful)}
    return [(title, words) for title, words in said.items() if words]


class _Findings(NamedTuple):
    """gold, found: all of a Doc. wrong: found and not gold, where there are gold labels. missed:
    gold and not found, of what the pipeline predicts. judged: whether the Doc has gold labels."""

    gold: set[Key]
    found: set[Key]
    wrong: set[Key]
    missed: set[Key]
    judged: bool


def _compare(doc: Predicted) -> _Findings:
    gold_relations = get_typed_relations(doc.gold_relations or (), doc.gold or ())
    gold: set[Key] = {*get_mentions(doc.gold), *gold_relations}
    relations = get_typed_relations(doc.relations or (), doc.entities)
    found: set[Key] = {*get_mentions(doc.entities), *relations}
    has_entities = doc.gold is not None
    has_relations = doc.gold_relations is not None and doc.relations is not None
    # A mention has three elements, a relation more.
    differ = {key for key in found ^ gold if (has_entities if len(key) == 3 else has_relations)}
    judged = has_entities or doc.gold_relations is not None
    return _Findings(gold, found, differ & found, differ & gold, judged)


def _make_blocks(
    docs: Mapping[str, Predicted], compared: Mapping[str, _Findings]
) -> list[tuple[list[str], Markup]]:
    """Gold, with what the first pipeline missed, then the findings of every pipeline; equal ones
    are drawn once."""
    first, (findings, *_) = next(iter(docs.values())), compared.values()
    blocks: list[tuple[list[str], Markup]] = []
    drawn: list[tuple[set[Key], bool]] = []
    if findings.judged:
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

"""The report of pipelines on a corpus, one HTML page that needs no network: run the pipelines, or
read their predictions, and render the page. Of each document it shows the labels, what every
pipeline found and the LLM's knowledge; the reader selects documents by views.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import spacy
from markupsafe import Markup
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import registry

from ..corpus.docbin import Corpus
from ..evaluation.compare import match_predictions
from ..evaluation.conclusions import Concluded, collect_conclusions, score_conclusions
from ..evaluation.evaluate import needs_gold_entities, run_pipeline
from ..evaluation.predictions import (
    FoundEntity,
    Predicted,
    SpanRelation,
    collect_predictions,
    read_predictions,
)
from ..evaluation.scores import get_mentions, get_typed_relations
from ..pictures.read import make_local_policy
from ..types import KNOWLEDGE_KEY, Entity, Pictures
from .drawings import (
    Arc,
    Mention,
    Status,
    read_asset,
    render_picture,
    render_template,
    render_text,
)
from .plots import make_plots
from .tables import Pipeline, make_confusions, make_label_tables, make_scores, make_verdict

_STYLES = ("page.css", "theme.css", "relations.css", "overlay.css")
_SCRIPTS = ("relations.js", "report.js")
LLM = "LLM"  # the name under which conclusions stand beside pipelines

# One finding: (start, end, label), or a relation as it is scored, its label last.
Key = tuple[Any, ...]

_SENTENCES = {
    "sentence": "Meaning of the post",
    "multimodality": "Picture and text",
    "caption": "Caption",
}


@dataclass(frozen=True)
class ReportSettings:
    """What a report is about.

    data: .spacy file or folder with the Docs, labels and pictures.
    pipelines: functions that load the pipelines to run, by name.
    predictions: predictions files, by the names of the pipelines that wrote them.
    readers: names of the pipelines that get the Docs' knowledge.
    limit: greatest number of Docs, 0 for all.
    """

    data: Path
    pipelines: Mapping[str, Callable[[], Language]] = field(default_factory=dict)
    predictions: Mapping[str, Path] = field(default_factory=dict)
    readers: Sequence[str] = ()
    pictures: Pictures = "real"
    limit: int = 0


class Report(NamedTuple):
    """A page as HTML, and its verdict in sentences. metrics: those of each pipeline that was run
    and of the LLM, by name, as `evaluate` and `evaluate_conclusions` return them; without those
    that could not be scored. concluded: the LLM's conclusions."""

    html: str
    verdict: list[str]
    metrics: dict[str, dict[str, Any]]
    concluded: list[Concluded]


def build_report(settings: ReportSettings) -> Report:
    """The report. The first pipeline is the one under review.

    Raises MMCoTError for files that are missing or invalid or not about these Docs, and without
    matplotlib.
    """
    folder = settings.data if settings.data.is_dir() else settings.data.parent
    policy = make_local_policy(folder)
    read = Corpus(settings.data, limit=settings.limit, knowledge=False)
    bare = list(read(spacy.blank("xx")))
    docs, labelled = [example.reference for example in bare], collect_predictions(bare)
    pipelines: list[Pipeline] = []
    drawn: dict[int, tuple[str, str]] = {}  # number of a Doc -> its overlay, whose attention it is
    for name, load in settings.pipelines.items():
        pipeline, examples = _run(name, load(), settings)
        pipelines.append(pipeline)
        for number, example in enumerate(examples):
            if number not in drawn and example.predicted._.mmcot_alignment is not None:
                drawn[number] = render_picture(example.predicted, policy), name
    for name, file in settings.predictions.items():
        records = {doc.id: doc for doc in read_predictions(file)}
        # A report on the first Docs alone may use predictions on all.
        known = [records[doc.id] for doc in labelled if doc.id in records]
        matched = match_predictions(labelled, known, paths=(settings.data, file))
        pipelines.append(Pipeline(name, matched, {}))
    concluded = collect_conclusions(docs)
    found: list[list[Predicted | None]] = [
        [p.found[i] for p in pipelines] for i in range(len(docs))
    ]
    if any(concluded):
        pipelines.append(_make_llm(concluded, labelled))
        for row, one in zip(found, concluded, strict=True):
            row.append(one and one.record)
    items = [
        Item(doc, found[i], *(drawn.get(i) or [render_picture(doc, policy)]))
        for i, doc in enumerate(docs)
    ]
    # No whole path: a report is handed on.
    place = "/".join(settings.data.absolute().parts[-2:])
    subtitle = f"{place}: {len(docs)} text{'' if len(docs) == 1 else 's'}"
    if settings.pipelines:
        subtitle += f", pictures: {settings.pictures}"
    if settings.readers:
        subtitle += f", the LLM's knowledge read by {', '.join(settings.readers)}"
    title = f"{pipelines[0].name} on {settings.data.stem}"
    return Report(
        render_page(title, subtitle, pipelines, items),
        make_verdict(pipelines),
        {p.name: dict(p.metrics) for p in pipelines if {"ents_f", "rel_f"} & p.metrics.keys()},
        [one for one in concluded if one is not None],
    )


def _make_llm(concluded: Sequence[Concluded | None], labelled: Sequence[Predicted]) -> Pipeline:
    """The LLM in the tables of pipelines. Docs that it has no conclusion on do not count."""
    not_asked = {"gold": None, "gold_relations": None}
    found = [
        doc.model_copy(update=not_asked) if one is None else one.record
        for one, doc in zip(concluded, labelled, strict=True)
    ]
    return Pipeline(LLM, found, score_conclusions(concluded))


def _run(name: str, nlp: Language, settings: ReportSettings) -> tuple[Pipeline, list[Example]]:
    read = Corpus(
        settings.data,
        limit=settings.limit,
        knowledge=name in settings.readers,
        gold_entities=needs_gold_entities(nlp),
        pictures=settings.pictures,
        tokens="pipeline",
    )
    examples = list(read(nlp))
    for pipe in nlp.pipe_names:
        if nlp.get_pipe_meta(pipe).factory == "transformer":
            component: Any = nlp.get_pipe(pipe)
            setters: Any = registry.annotation_setters  # type: ignore[attr-defined]
            component.set_extra_annotations = setters.get("spacy_mmcot.alignment_setter.v1")()
    metrics, found = run_pipeline(nlp, examples, settings.pictures)
    return Pipeline(name, found, metrics), examples


def render_page(
    title: str, subtitle: str, pipelines: Sequence[Pipeline], items: Sequence[Item]
) -> str:
    """The page about pipelines, the first of which is under review; the others are comparisons.

    items: the Docs, each with what every pipeline found, in the pipelines' order.

    Raises MMCoTError where a plot can be drawn and matplotlib is not installed.
    """
    names = [pipeline.name for pipeline in pipelines]
    articles = make_articles(names, items)
    # Only these scripts run, by their digests: text that got past escaping would not be executed.
    scripts = [f"\n{read_asset(name)}" for name in _SCRIPTS]
    digests = " ".join(
        f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {digests}; "
        "base-uri 'none'; form-action 'none'"
    )
    return render_template(
        "page.html.jinja",
        title=title,
        subtitle=subtitle,
        policy=Markup(policy),
        style=Markup("".join(map(read_asset, _STYLES))),
        scripts=[Markup(script) for script in scripts],
        verdict=make_verdict(pipelines),
        scores=make_scores(pipelines),
        plots=make_plots(pipelines),
        labels=make_label_tables(pipelines),
        confusions=make_confusions(pipelines[0]),
        views=name_views(names),
        all_labels=sorted({label for article in articles for label in article.views[0]}),
        focus=names[0],
        articles=articles,
    )


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
    known: dict[str, Any] = item.doc.user_data.get(KNOWLEDGE_KEY) or {}
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

"""The report of pipelines on a corpus, one HTML page that needs no network: run the pipelines, or
read their predictions, and render the page.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import spacy
from markupsafe import Markup
from spacy.language import Language
from spacy.training import Example
from spacy.util import registry

from ..corpus.docbin import Corpus
from ..evaluation.compare import match_predictions
from ..evaluation.conclusions import Concluded, collect_conclusions, score_conclusions
from ..evaluation.evaluate import needs_gold_entities, run_pipeline
from ..evaluation.predictions import Predicted, collect_predictions, read_predictions
from ..pictures.read import make_local_policy
from ..types import Pictures
from .browser import Item, make_articles, name_views
from .drawings import read_asset, render_picture, render_template
from .plots import make_plots
from .tables import Pipeline, make_confusions, make_label_tables, make_scores, make_verdict

_STYLES = ("page.css", "theme.css", "relations.css", "overlay.css")
_SCRIPTS = ("relations.js", "report.js")
LLM = "LLM"  # the name under which conclusions stand beside pipelines


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
    """A page as HTML, and its verdict in sentences."""

    html: str
    verdict: list[str]


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
    return Report(render_page(title, subtitle, pipelines, items), make_verdict(pipelines))


def _make_llm(concluded: Sequence[Concluded | None], labelled: Sequence[Predicted]) -> Pipeline:
    """The LLM in the tables of pipelines. Docs that it has no conclusion on do not count."""
    known = [one for one in concluded if one is not None]
    not_asked = {"gold": None, "gold_relations": None}
    found = [
        doc.model_copy(update=not_asked) if one is None else one.record
        for one, doc in zip(concluded, labelled, strict=True)
    ]
    return Pipeline(LLM, found, score_conclusions(known))


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
    metrics, found = run_pipeline(nlp, examples)
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

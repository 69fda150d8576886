"""The report of pipelines on a corpus: run them, or read their predictions, and render the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.training import Example
from spacy.util import registry

from ..corpus.reader import Corpus
from ..errors import Errors, MMCoTError, first_line
from ..evaluation.compare import match_predictions
from ..evaluation.conclusions import Concluded, collect_conclusions, score_conclusions
from ..evaluation.evaluate import needs_gold_entities, run_pipeline
from ..evaluation.predictions import Predicted, collect_predictions, read_predictions
from ..types import Pictures
from .browser import Item
from .overlay import render_picture
from .page import render_page
from .tables import Pipeline

LLM = "LLM"  # the name under which conclusions stand beside pipelines


@dataclass(frozen=True)
class ReportSettings:
    """What a report is about.

    data: .spacy file or folder with the Docs, labels and pictures.
    pipelines: functions that load the pipelines to run, by name.
    predictions: predictions files, by the names of the pipelines that wrote them.
    readers: names of the pipelines that get the Docs' knowledge.
    metrics: folder with NAME.json as `evaluate` writes it, for speed, size and training.
    limit: greatest number of Docs, 0 for all.
    """

    data: Path
    pipelines: Mapping[str, Callable[[], Language]] = field(default_factory=dict)
    predictions: Mapping[str, Path] = field(default_factory=dict)
    readers: Sequence[str] = ()
    metrics: Path | None = None
    pictures: Pictures = "real"
    limit: int = 0
    title: str = ""


def build_report(settings: ReportSettings) -> str:
    """The page as HTML. The first pipeline is the one under review.

    Raises MMCoTError for files that are missing or invalid or not about these Docs, and without
    matplotlib.
    """
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
                drawn[number] = render_picture(example.predicted), name
    for name, file in settings.predictions.items():
        pipelines.append(Pipeline(name, _read(file, labelled, settings.data), {}))
    if settings.metrics is not None:
        pipelines = [_add_metrics(p, settings.metrics / f"{p.name}.json") for p in pipelines]
    concluded = collect_conclusions(docs)
    found: list[list[Predicted | None]] = [
        [p.found[i] for p in pipelines] for i in range(len(docs))
    ]
    if any(concluded):
        pipelines.append(_make_llm(concluded, labelled))
        for row, one in zip(found, concluded, strict=True):
            row.append(one and one.record)
    items = [
        Item(doc, found[i], *(drawn.get(i) or [render_picture(doc)])) for i, doc in enumerate(docs)
    ]
    subtitle = f"{settings.data}: {len(docs)} doc{'' if len(docs) == 1 else 's'}"
    if settings.pipelines:
        subtitle += f", pictures: {settings.pictures}"
    title = settings.title or f"{pipelines[0].name} on {settings.data.stem}"
    return render_page(title, subtitle, pipelines, items)


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
    knowledge = name in settings.readers
    read = Corpus(
        settings.data,
        limit=settings.limit,
        knowledge=knowledge,
        gold_entities=needs_gold_entities(nlp),
        pictures=settings.pictures,
    )
    examples = list(read(nlp))
    for pipe in nlp.pipe_names:
        if nlp.get_pipe_meta(pipe).factory == "transformer":
            component: Any = nlp.get_pipe(pipe)
            setters: Any = registry.annotation_setters  # type: ignore[attr-defined]
            component.set_extra_annotations = setters.get("spacy_mmcot.alignment_setter.v1")()
    metrics, found = run_pipeline(nlp, examples)
    return Pipeline(name, found, metrics, knowledge), examples


def _read(file: Path, labelled: Sequence[Predicted], data: Path) -> list[Predicted]:
    """The predictions on these Docs. Raises MMCoTError where the file lacks one of them."""
    read = {doc.id: doc for doc in read_predictions(file)}
    # A report on the first Docs alone may use predictions on all.
    known = [read[doc.id] for doc in labelled if doc.id in read]
    return match_predictions(labelled, known, paths=(data, file))


def _add_metrics(pipeline: Pipeline, file: Path) -> Pipeline:
    """With speed, size and training from the metrics file, if there is one."""
    if not file.is_file():
        return pipeline
    try:
        known = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise MMCoTError(Errors.E102.format(path=file, reason=first_line(error))) from None
    keys = ("words_per_second", "model_mb", "training")
    kept = {key: known[key] for key in keys if known.get(key) is not None}
    return pipeline._replace(metrics={**pipeline.metrics, **kept})

"""`report`: one HTML page over pipelines, their experiments and their docs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..types import Pictures

if TYPE_CHECKING:
    from spacy.tokens import Doc
    from spacy.training import Example

    from ..evaluation.predictions import Predicted
    from ..report.tables import Pipeline


def report(
    output: Annotated[Path, typer.Argument(help="HTML file to write")],
    data: Annotated[
        Path, typer.Option(help=".spacy file or folder with the docs, labels and pictures")
    ],
    pipeline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="Trained pipeline to run, a folder or a package; repeatable. The first is the "
            "one in question, the others what it is held against",
            show_default=False,
        ),
    ] = None,
    predictions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="What evaluate --predictions wrote, instead of running it; repeatable",
            show_default=False,
        ),
    ] = None,
    with_knowledge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Let this pipeline see the docs' knowledge (for teachers); repeatable",
            show_default=False,
        ),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Runs of experiments, such as research/results.jsonl")
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option(help="Folder with NAME.json of evaluate: speed and size, as measured there"),
    ] = None,
    pictures: Annotated[
        Pictures, typer.Option(help="What the pipelines see of the docs' pictures")
    ] = "real",
    limit: Annotated[int, typer.Option(help="Greatest number of docs, 0 for all", min=0)] = 0,
    title: Annotated[str, typer.Option(help="Heading of the page")] = "",
) -> None:
    """Write a page to OUTPUT that needs no network: scores and their differences, plots, the
    experiments' runs, and every doc with what is labelled, what each pipeline found and where it
    looked, and what the LLM said of it. The docs with the most errors come first."""
    from research.results import read_all_results

    from ..errors import Errors, UsageError
    from ..files import check_exists, replace_file
    from ..report.browser import Item
    from ..report.page import report_page

    sources = _named("--pipeline", "FOLDER", "training/student/model-best", pipeline or [])
    files = _named("--predictions", "FILE", "student.jsonl", predictions or [], sources)
    readers = with_knowledge or []
    for name in readers:
        if name not in sources:
            allowed = ", ".join(sources) or "none, as no --pipeline is given"
            raise UsageError(Errors.E728.format(received=name, allowed=allowed))
    if not sources and not files:
        raise UsageError(Errors.E727)
    for path in (results, metrics):
        if path is not None:
            check_exists(path)
    labelled, docs = _labelled(data, limit)
    found: list[Pipeline] = []
    drawn: dict[int, tuple[str, str]] = {}
    for name, source in sources.items():
        ran, seen = _run(name, source, data, limit, name in readers, pictures)
        found.append(ran)
        drawn = {**seen, **drawn}
    for name, file in files.items():
        found.append(_read(name, Path(file), labelled, data))
    if metrics is not None:
        found = [_measured(one, metrics / f"{one.name}.json") for one in found]
    items = [
        Item(doc, [one.found[i] for one in found], *(drawn.get(i) or [_plain_picture(doc)]))
        for i, doc in enumerate(docs)
    ]
    page = report_page(
        title or f"{found[0].name} on {data.stem}",
        _subtitle(data, len(items), pictures if sources else None),
        found,
        items,
        None if results is None else read_all_results(results),
    )
    with replace_file(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"✔ {output}: {len(items)} docs, {len(found)} pipelines")


def _named(
    option: str, what: str, example: str, given: list[str], taken: Collection[str] = ()
) -> dict[str, str]:
    """NAME=VALUE options by name. Raises UsageError for another form and a name given twice."""
    from ..errors import Errors, UsageError

    named: dict[str, str] = {}
    for received in given:
        name, equals, value = received.partition("=")
        if not name or not equals or not value or name in named or name in taken:
            raise UsageError(
                Errors.E726.format(option=option, received=received, what=what, example=example)
            )
        named[name] = value
    return named


def _labelled(data: Path, limit: int) -> tuple[list[Predicted], list[Doc]]:
    """The docs, and what is labelled in them as a pipeline that finds nothing would have it."""
    import spacy

    from ..corpus.reader import Corpus
    from ..evaluation.predictions import predictions_of

    examples = list(Corpus(data, limit=limit, knowledge=False)(spacy.blank("xx")))
    return predictions_of(examples), [example.reference for example in examples]


def _run(
    name: str, source: str, data: Path, limit: int, knowledge: bool, pictures: Pictures
) -> tuple[Pipeline, dict[int, tuple[str, str]]]:
    """What a pipeline finds, and, by the docs' places, their pictures with where it looked, and
    its name."""
    from ..corpus.reader import Corpus
    from ..model.prompts import set_alignment
    from ..production.pipelines import load_pipeline, measure_size_mb
    from ..report.tables import Pipeline
    from .evaluate import measure, needs_gold_entities

    nlp = load_pipeline(source)
    read = Corpus(
        data,
        limit=limit,
        knowledge=knowledge,
        gold_entities=needs_gold_entities(nlp),
        pictures=pictures,
    )
    examples = list(read(nlp))
    for pipe in nlp.pipe_names:
        if nlp.get_pipe_meta(pipe).factory == "transformer":
            component: Any = nlp.get_pipe(pipe)
            component.set_extra_annotations = set_alignment
    metrics, found = measure(nlp, examples)
    metrics["training"] = nlp.meta.get("mmcot_training")
    metrics["model_mb"] = measure_size_mb(nlp)
    return Pipeline(name, found, metrics, knowledge), _looked(name, examples)


def _looked(name: str, examples: list[Example]) -> dict[int, tuple[str, str]]:
    from ..report.overlay import doc_overlay

    drawn = {}
    for place, example in enumerate(examples):
        seen = example.predicted._.mmcot_alignment
        if seen is not None:
            drawn[place] = doc_overlay(example.predicted, seen, style=False), name
    return drawn


def _read(name: str, file: Path, labelled: list[Predicted], data: Path) -> Pipeline:
    """Raises MMCoTError where the file is not about these docs."""
    from ..evaluation.compare import in_order_of
    from ..evaluation.predictions import read_predictions
    from ..report.tables import Pipeline

    read = {doc.id: doc for doc in read_predictions(file)}
    # A report on the first docs alone may take predictions on all.
    wanted = [read[doc.id] for doc in labelled if doc.id in read]
    matched = in_order_of(labelled, wanted, paths=(data, file))
    found = [doc.model_copy(update={"gold": read[doc.id].gold}) for doc in matched]
    return Pipeline(name, found, {})


def _measured(pipeline: Pipeline, file: Path) -> Pipeline:
    """With what `evaluate` measured of it, where the folder has that."""
    import json

    from ..errors import Errors, MMCoTError, first_line

    if not file.is_file():
        return pipeline
    try:
        known = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise MMCoTError(Errors.E102.format(path=file, reason=first_line(error))) from None
    keys = ("words_per_second", "model_mb", "training")
    kept = {key: known[key] for key in keys if known.get(key) is not None}
    return pipeline._replace(metrics={**pipeline.metrics, **kept})


def _plain_picture(doc: Doc) -> str:
    from ..docs import get_image
    from ..report.overlay import doc_picture

    return "" if get_image(doc) is None else doc_picture(doc)


def _subtitle(data: Path, n_docs: int, pictures: Pictures | None) -> str:
    ways = {
        "none": "read without their pictures",
        "real": "read with their pictures, where they have one",
        "shuffled": "read with other docs' pictures",
        "black": "read with black pictures",
    }
    read = "" if pictures is None else f", {ways[pictures]}"
    return f"{data}: {n_docs} doc{'' if n_docs == 1 else 's'}{read}"

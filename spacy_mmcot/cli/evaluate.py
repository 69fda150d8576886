"""`evaluate`: the metrics of one pipeline on one corpus, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..types import Pictures

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc
    from spacy.training import Example

    from ..evaluation.predictions import Predicted


def evaluate(
    pipeline: Annotated[str, typer.Argument(help="Trained pipeline: a folder or a package")],
    data: Annotated[
        Path, typer.Argument(help=".spacy file or folder with gold entities or relations")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the metrics as JSON")
    ] = None,
    knowledge: Annotated[
        bool, typer.Option(help="Let the pipeline see the docs' knowledge (for teachers)")
    ] = False,
    pictures: Annotated[
        Pictures,
        typer.Option(help="What the pipeline sees of the docs' pictures; shuffled: another doc's"),
    ] = "none",
    ambiguous: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also score the names that carry more than one label over DATA and these .spacy "
            "files or folders; repeatable",
            show_default=False,
        ),
    ] = None,
    seen: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also score apart the names that are labelled in these .spacy files or folders, "
            "as the train split, and those that are not; repeatable",
            show_default=False,
        ),
    ] = None,
    confusion: Annotated[
        bool, typer.Option("--confusion", help="Show which labels are taken for which")
    ] = False,
    reliability: Annotated[
        bool, typer.Option("--reliability", help="Show what share is right at which score")
    ] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Write what the pipeline finds beside what is labelled, a JSON line a doc, for "
            "compare, cascade and report"
        ),
    ] = None,
) -> None:
    """Score PIPELINE on DATA: entities by spaCy's strict span scores and seqeval's, by boundaries
    alone and by overlap, with their calibration; relations on gold mentions and end to end; each
    per label. A pipeline that finds relations but no entities is given the gold ones. Docs are
    read without their pictures unless --pictures says otherwise: real ones, or, to see what they
    are worth, shuffled or black."""
    from rich.console import Console

    from research.ambiguity import ambiguous_scores, ambiguous_surfaces

    from ..corpus.extensions import get_image
    from ..corpus.reader import Corpus
    from ..errors import Errors, MMCoTError
    from ..evaluation.predictions import write_predictions
    from ..evaluation.scores import seen_scores
    from ..files import write_json
    from ..production.pipelines import load_pipeline, measure_size_mb
    from .evaluate_tables import lines, tables

    nlp = load_pipeline(pipeline)
    read = Corpus(
        data, knowledge=knowledge, gold_entities=needs_gold_entities(nlp), pictures=pictures
    )
    examples = list(read(nlp))
    further = _labelled_docs("--ambiguous", ambiguous or [])
    known = _labelled_docs("--seen", seen or [])
    n_pictures = sum(get_image(eg.predicted) is not None for eg in examples)
    metrics, found = measure(nlp, examples)
    if "ents_f" not in metrics and "rel_e2e_f" not in metrics:
        raise MMCoTError(Errors.E705.format(path=data, pipeline=nlp.pipe_names))
    for option, paths in (("--ambiguous", ambiguous), ("--seen", seen)):
        if paths and "ents_f" not in metrics:
            raise MMCoTError(Errors.E708.format(option=option, path=data, pipeline=nlp.pipe_names))
    if ambiguous:
        surfaces = ambiguous_surfaces([*further, *(eg.reference for eg in examples)])
        metrics.update(ambiguous_scores(examples, surfaces))
    if seen:
        names = {(ent.text.casefold(), ent.label_) for doc in known for ent in doc.ents}
        metrics.update(seen_scores(found, names))
    metrics["pictures"] = pictures
    metrics["docs_with_picture"] = n_pictures
    metrics["model_mb"] = measure_size_mb(nlp)
    metrics["training"] = nlp.meta.get("mmcot_training")
    console = Console()
    for table in tables(metrics, confusion=confusion, reliability=reliability):
        console.print(table)
    for line in lines(metrics):
        console.print(line)
    if predictions is not None:
        write_predictions(predictions, found)
    if output is not None:
        write_json(output, metrics)


def needs_gold_entities(nlp: Language) -> bool:
    """Whether mmcot_rel stands in the pipeline and no component before it finds entities."""
    for name in nlp.pipe_names:
        meta = nlp.get_pipe_meta(name)
        if meta.factory == "mmcot_rel":
            return True
        if "doc.ents" in meta.assigns:
            return False
    return False


def finds_entities(nlp: Language) -> bool:
    """Whether a component of the pipeline sets entities."""
    return any("doc.ents" in nlp.get_pipe_meta(name).assigns for name in nlp.pipe_names)


def measure(nlp: Language, examples: list[Example]) -> tuple[dict[str, Any], list[Predicted]]:
    """Run the pipeline over the examples' predicted Docs and score what it finds and the
    references are labelled with: `ents_*`, `seqeval_*` and `docs_*` for entities, `rel_*` and
    `rel_e2e_*` for relations. The keys of what could not be scored are absent. Returns what was
    found too."""
    import time

    from ..evaluation.predictions import predictions_of
    from ..evaluation.scorers import score_entities, seqeval_scores
    from ..types import RELATIONS_KEY

    started = time.perf_counter()
    for example, doc in zip(examples, nlp.pipe([eg.predicted for eg in examples]), strict=True):
        example.predicted = doc
    seconds = time.perf_counter() - started
    words = sum(len(eg.predicted) for eg in examples)
    looks = finds_entities(nlp)
    found = predictions_of(examples, finds_entities=looks)
    metrics: dict[str, Any] = {}
    if looks and any(eg.reference.has_annotation("ENT_IOB") for eg in examples):
        metrics.update(score_entities(examples))
        metrics.update(seqeval_scores(examples))
        metrics.update(_further_entity_scores(found))
    if any(RELATIONS_KEY in eg.reference.user_data for eg in examples):
        for name in nlp.pipe_names:
            if nlp.get_pipe_meta(name).factory == "mmcot_rel":
                pipe: Any = nlp.get_pipe(name)
                metrics.update(pipe.score(examples))
    metrics["docs"] = len(examples)
    metrics["words_per_second"] = round(words / seconds)
    return metrics, found


def _further_entity_scores(found: list[Predicted]) -> dict[str, Any]:
    from ..evaluation.calibration import (
        confidences,
        expected_calibration_error,
        reliability,
        scored_mentions,
    )
    from ..evaluation.scores import boundary_scores, entity_confusion, partial_scores

    mentions, docs = scored_mentions(found), confidences(found)
    return {
        **boundary_scores(found),
        **partial_scores(found),
        "ents_confusion": entity_confusion(found),
        "ents_ece": expected_calibration_error(*mentions),
        "ents_reliability": reliability(*mentions),
        "docs_ece": expected_calibration_error(*docs),
        "docs_reliability": reliability(*docs),
    }


def _labelled_docs(option: str, paths: Iterable[Path]) -> list[Doc]:
    """The labelled Docs of these files and folders. Raises MMCoTError for a path without one."""
    from spacy.vocab import Vocab

    from ..corpus.docbin import read_all
    from ..errors import Errors, MMCoTError

    vocab = Vocab()
    labelled = []
    for path in paths:
        found = [doc for doc in read_all(path, vocab) if doc.has_annotation("ENT_IOB")]
        if not found:
            raise MMCoTError(Errors.E709.format(option=option, path=path))
        labelled += found
    return labelled

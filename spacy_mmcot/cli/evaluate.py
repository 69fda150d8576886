"""`evaluate`: the metrics of one pipeline on one corpus, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..types import Pictures

if TYPE_CHECKING:
    from rich.table import Table
    from spacy.language import Language
    from spacy.tokens import Doc
    from spacy.training import Example


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
    confusion: Annotated[
        bool, typer.Option("--confusion", help="Show which relations are taken for which")
    ] = False,
) -> None:
    """Score PIPELINE on DATA: entities by spaCy's strict span scores and seqeval's, with their
    calibration; relations on gold mentions and end to end; each per label. A pipeline that finds
    relations but no entities is given the gold ones. Docs are read without their pictures unless
    --pictures says otherwise: real ones, or, to see what they are worth, shuffled or black."""
    import json

    from rich.console import Console

    from ..corpus.extensions import get_image
    from ..corpus.readers import Corpus
    from ..errors import Errors, MMCoTError
    from ..files import replacing
    from .ambiguity import ambiguous_scores, ambiguous_surfaces
    from .pipelines import load_pipeline

    nlp = load_pipeline(pipeline)
    read = Corpus(
        data, knowledge=knowledge, gold_entities=needs_gold_entities(nlp), pictures=pictures
    )
    examples = list(read(nlp))
    further = _labelled_docs(ambiguous or [])
    n_pictures = sum(get_image(eg.predicted) is not None for eg in examples)
    metrics = measure(nlp, examples)
    if "ents_f" not in metrics and "rel_e2e_f" not in metrics:
        raise MMCoTError(Errors.E705.format(path=data, pipeline=nlp.pipe_names))
    if ambiguous:
        if "ents_f" not in metrics:
            raise MMCoTError(Errors.E708.format(path=data, pipeline=nlp.pipe_names))
        surfaces = ambiguous_surfaces([*further, *(eg.reference for eg in examples)])
        metrics.update(ambiguous_scores(examples, surfaces))
    metrics["pictures"] = pictures
    metrics["docs_with_picture"] = n_pictures
    metrics["model_mb"] = round(_folder_bytes(nlp.path) / 1e6, 1) if nlp.path else None
    metrics["training"] = nlp.meta.get("mmcot_training")
    console = Console()
    for table in _tables(metrics, confusion=confusion):
        console.print(table)
    if ambiguous:
        console.print(_ambiguous_line(metrics))
    console.print(_summary(metrics))
    if output is not None:
        with replacing(output) as temporary:
            temporary.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def needs_gold_entities(nlp: Language) -> bool:
    """Whether mmcot_rel stands in the pipeline and no component before it finds entities."""
    for name in nlp.pipe_names:
        meta = nlp.get_pipe_meta(name)
        if meta.factory == "mmcot_rel":
            return True
        if "doc.ents" in meta.assigns:
            return False
    return False


def measure(nlp: Language, examples: list[Example]) -> dict[str, Any]:
    """Run the pipeline over the examples' predicted Docs and score what it finds and the
    references are labelled with: `ents_*`, `seqeval_*` and `ents_ece` for entities, `rel_*` and
    `rel_e2e_*` for relations. The keys of what could not be scored are absent."""
    import time

    from ..components.calibration import expected_calibration_error, scored_mentions
    from ..components.scorers import score_entities, seqeval_scores
    from ..types import RELATIONS_KEY

    started = time.perf_counter()
    for example, doc in zip(examples, nlp.pipe([eg.predicted for eg in examples]), strict=True):
        example.predicted = doc
    seconds = time.perf_counter() - started
    words = sum(len(eg.predicted) for eg in examples)
    metrics: dict[str, Any] = {}
    finds_entities = any("doc.ents" in nlp.get_pipe_meta(name).assigns for name in nlp.pipe_names)
    if finds_entities and any(eg.reference.has_annotation("ENT_IOB") for eg in examples):
        metrics.update(score_entities(examples))
        metrics.update(seqeval_scores(examples))
        metrics["ents_ece"] = expected_calibration_error(*scored_mentions(examples))
    if any(RELATIONS_KEY in eg.reference.user_data for eg in examples):
        for name in nlp.pipe_names:
            if nlp.get_pipe_meta(name).factory == "mmcot_rel":
                pipe: Any = nlp.get_pipe(name)
                metrics.update(pipe.score(examples))
    metrics["docs"] = len(examples)
    metrics["words_per_second"] = round(words / seconds)
    return metrics


def _labelled_docs(paths: Iterable[Path]) -> list[Doc]:
    """The labelled Docs of these files and folders. Raises MMCoTError for a path without one."""
    from spacy.vocab import Vocab

    from ..corpus.docbin import docbin_paths, read_docs
    from ..errors import Errors, MMCoTError

    vocab = Vocab()
    labelled = []
    for path in paths:
        found = [
            doc
            for file in docbin_paths(path)
            for doc in read_docs(file, vocab)
            if doc.has_annotation("ENT_IOB")
        ]
        if not found:
            raise MMCoTError(Errors.E709.format(path=path))
        labelled += found
    return labelled


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _tables(metrics: dict[str, Any], *, confusion: bool) -> Iterable[Table]:
    if "ents_f" in metrics:
        seqeval = {key: metrics[f"seqeval_{key}"] for key in "prf"}
        yield _scores("Entities (strict)", metrics, "ents", {"seqeval": seqeval})
    pairs: Mapping[str, Mapping[str, int]] = metrics.get("rel_confusion") or {}
    if "rel_f" in metrics:
        support = {label: sum(row.values()) for label, row in pairs.items()}
        macro = {"macro": {"f": metrics["rel_macro_f"]}}
        yield _scores("Relations on gold mentions", metrics, "rel", macro, support)
    if "rel_e2e_f" in metrics:
        yield _scores("Relations end to end", metrics, "rel_e2e")
    if confusion and pairs:
        yield _confusion(pairs)


def _scores(
    title: str,
    metrics: Mapping[str, Any],
    prefix: str,
    more: Mapping[str, Mapping[str, float]] | None = None,
    support: Mapping[str, int] | None = None,
) -> Table:
    """P, R and F in percent: all, each label, and the rows of `more`; where `support` is given,
    each label's number of gold items too."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "P", "R", "F", *(["gold"] if support is not None else []), title=title)
    rows: list[tuple[str, Mapping[str, float]]]
    rows = [("all", {key: metrics[f"{prefix}_{key}"] for key in "prf"})]
    rows += sorted((metrics[f"{prefix}_per_type"] or {}).items())
    rows += (more or {}).items()
    for name, row in rows:
        cells = [f"{100 * (row[key] or 0.0):.2f}" if key in row else "" for key in "prf"]
        gold = str((support or {}).get(name, ""))
        table.add_row(escape(name), *cells, *([gold] if support is not None else []))
    return table


def _confusion(pairs: Mapping[str, Mapping[str, int]]) -> Table:
    """A row for each gold label, a column for each predicted one, "None" last. Columns are headed
    by the rows' numbers: two dozen labels do not fit across a terminal."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from ..types import NO_RELATION

    predicted = {label for row in pairs.values() for label in row}
    labels = sorted(predicted.union(pairs), key=lambda label: (label == NO_RELATION, label))
    heads = {label: label if label == NO_RELATION else str(i) for i, label in enumerate(labels, 1)}
    columns = [label for label in labels if label in predicted]
    table = Table("gold", "", title="Confusion", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for label in columns:
        table.add_column(heads[label], justify="right", no_wrap=True)
    for label in labels:
        row = pairs.get(label, {})
        number = "" if label == NO_RELATION else heads[label]
        table.add_row(escape(label), number, *(str(row.get(column, "·")) for column in columns))
    return table


def _ambiguous_line(metrics: Mapping[str, Any]) -> str:
    n = metrics["ambiguous_n"]
    if not n:
        return "ambiguous names: none in this data"
    p, r, f = (f"{100 * metrics[f'ambiguous_{key}']:.2f}" for key in "prf")
    return f"ambiguous names: F {f} (P {p}, R {r}) over {n} mentions"


def _summary(metrics: Mapping[str, Any]) -> str:
    training = metrics["training"] or {}
    parts = [f"{metrics['docs']} docs", f"{metrics['words_per_second']} words/s"]
    if "ents_ece" in metrics:
        parts.append(f"calibration error {100 * metrics['ents_ece']:.2f}")
    if metrics["pictures"] != "none":
        parts.append(f"{metrics['pictures']} pictures on {metrics['docs_with_picture']}")
    parts.append(f"model {metrics['model_mb']} MB")
    parts.append(
        f"trained in {training.get('seconds', '?')} s ({training.get('steps', '?')} steps)"
    )
    return ", ".join(parts)

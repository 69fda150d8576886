"""`evaluate`: the metrics of a pipeline, or of an LLM's conclusions, as tables and as JSON.
`calibrate`: the temperature of a pipeline's confidence scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import Errors, MMCoTError, UsageError
from ..types import Pictures, Task, Tokens

if TYPE_CHECKING:
    from rich.table import Table

KnowledgeOption = Annotated[
    bool, typer.Option(help="Give the docs' knowledge to the pipeline (for teachers)")
]
GpuOption = Annotated[int, typer.Option(min=-1, help="GPU to run on, -1 for the processor")]
TokensOption = Annotated[
    Tokens,
    typer.Option(
        help="Tokens of the pipeline's own tokenizer, as when it is used, or those of the data"
    ),
]


def evaluate(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[PIPELINE] DATA",
            help="Trained pipeline, a folder or a package, then a .spacy file or folder with gold "
            "entities or relations. With --answers there is no pipeline.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the metrics as JSON")
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            help="Score the conclusions of an LLM in this answers store (.sqlite) or recorded "
            "answers (.jsonl), joined to the docs by id"
        ),
    ] = None,
    task: Annotated[Task, typer.Option(help="Which answers of a store")] = "ner",
    disagreements: Annotated[
        Path | None,
        typer.Option(
            help="With --answers: write where conclusion and gold differ, a JSON line each, what "
            "the LLM is sure of first. Often the label is wrong."
        ),
    ] = None,
    knowledge: KnowledgeOption = False,
    pictures: Annotated[
        Pictures, typer.Option(help="Whether the docs' pictures are given to the pipeline")
    ] = "none",
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Write predictions and gold labels, a JSON line per doc, for compare, cascade "
            "and report"
        ),
    ] = None,
    gpu_id: GpuOption = -1,
    tokens: TokensOption = "pipeline",
) -> None:
    """Score PIPELINE on DATA: entities by spaCy's strict span scores and seqeval's, with
    calibration; relations on gold mentions and end to end; each per
    label. A pipeline that finds relations but no entities is given the gold ones. Pictures are not
    used unless --pictures is real.

    With --answers the LLM is scored instead, on the docs that it has a conclusion on: what it is
    sure of (high) and what it is not (medium, low) also apart. Docs that were shown to it as
    examples should not be in DATA."""
    from rich.console import Console

    from ..corpus.docbin import read_all_docs
    from ..files import write_json
    from ..production.job import load_pipeline, use_gpu

    *pipelines, data = paths
    if len(pipelines) != (answers is None):
        raise UsageError(Errors.E810.format(count=len(paths)))
    use_gpu(gpu_id)
    if answers is None:
        from ..evaluation.evaluate import evaluate as evaluate_docs

        if disagreements is not None:
            raise UsageError(Errors.E811.format(option="--disagreements", needed="--answers"))
        nlp = load_pipeline(pipelines[0])
        metrics = evaluate_docs(
            nlp,
            read_all_docs(Path(data), nlp.vocab),
            knowledge=knowledge,
            pictures=pictures,
            tokens=tokens,
            predictions=predictions,
            source=data,
        )
    else:
        from spacy.vocab import Vocab

        from ..elicitation.store import load_answers
        from ..evaluation.conclusions import attach_conclusions, evaluate_conclusions

        for option, given in {"--knowledge": knowledge, "--pictures": pictures != "none"}.items():
            if given:
                raise UsageError(Errors.E811.format(option=option, needed="a pipeline"))
        metrics = evaluate_conclusions(
            attach_conclusions(read_all_docs(Path(data), Vocab()), load_answers(answers, task)),
            predictions=predictions,
            disagreements=disagreements,
            source=data,
        )
    console = Console()
    for table in _make_tables(metrics):
        console.print(table)
    console.print(_format_summary(metrics))
    if output is not None:
        write_json(output, metrics)


def _make_tables(metrics: dict[str, Any]) -> Iterable[Table]:
    """The scores of entities and relations, as far as there are any."""
    if "ents_f" in metrics:
        more = {"seqeval": {key: metrics[f"seqeval_{key}"] for key in "prf"}}
        yield _make_scores("Entities (strict)", metrics, "ents", more)
    if "rel_f" in metrics:
        macro = {"macro": {"f": metrics["rel_macro_f"]}}
        yield _make_scores("Relations on gold mentions", metrics, "rel", macro)
    if "rel_e2e_f" in metrics:
        yield _make_scores("Relations end to end", metrics, "rel_e2e", {})
    for title, prefix in (("Entities", "ents"), ("Relations on gold mentions", "rel")):
        if f"{prefix}_sure_f" in metrics:
            yield _make_sureness(f"{title}, by the LLM's sureness", metrics, prefix)


def _make_scores(
    title: str,
    metrics: Mapping[str, Any],
    prefix: str,
    more: Mapping[str, Mapping[str, float]],
) -> Table:
    """P, R and F in percent: all, each label, and the rows of `more`."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "P", "R", "F", title=title)
    rows: list[tuple[str, Mapping[str, float]]]
    rows = [("all", {key: metrics[f"{prefix}_{key}"] for key in "prf"})]
    rows += sorted((metrics[f"{prefix}_per_type"] or {}).items())
    rows += more.items()
    for name, row in rows:
        cells = [f"{100 * (row[key] or 0.0):.2f}" if key in row else "" for key in "prf"]
        table.add_row(escape(name), *cells)
    return table


def _make_sureness(title: str, metrics: Mapping[str, Any], prefix: str) -> Table:
    """Number, P and R in percent of what the LLM is sure of and of what it is not."""
    from rich.markup import escape
    from rich.table import Table

    groups = (f"{prefix}_sure", f"{prefix}_unsure")
    rows = {"all": [{key: metrics[f"{name}_{key}"] for key in "npr"} for name in groups]}
    by_label = [metrics[f"{name}_per_type"] for name in groups]
    for label in sorted(set().union(*by_label)):
        rows[label] = [scores.get(label, {"n": 0}) for scores in by_label]
    table = Table("", "sure", "P", "R", "not sure", "P", "R", title=title)
    for label, scores in rows.items():
        cells = [[f"{100 * s[key]:.2f}" if s["n"] else "" for key in "pr"] for s in scores]
        table.add_row(escape(label), str(scores[0]["n"]), *cells[0], str(scores[1]["n"]), *cells[1])
    return table


def _format_summary(metrics: Mapping[str, Any]) -> str:
    parts = [f"{metrics['docs']} docs"]
    if metrics.get("ents_unaligned"):
        parts.append(f"{metrics['ents_unaligned']} gold entities inside of tokens, not to be found")
    if (share := metrics.get("rel_false_positives")) is not None:
        parts.append(f"{share:.1f} false relations per 100 unrelated pairs")
    if "docs_with_conclusion" in metrics:
        return ", ".join([*parts, f"{metrics['docs_with_conclusion']} with a conclusion"])
    parts.append(f"{metrics['words_per_second']} words/s")
    if "ents_ece" in metrics:
        parts.append(f"calibration error {100 * metrics['ents_ece']:.2f}")
    if metrics["pictures"] != "none":
        parts.append(f"{metrics['pictures']} pictures on {metrics['docs_with_picture']}")
    trained = {"seconds": "?", "steps": "?"} | (metrics["training"] or {})
    parts.append(f"model {metrics['model_mb']} MB")
    parts.append(f"trained in {trained['seconds']} s ({trained['steps']} steps)")
    return ", ".join(parts)


def calibrate(
    pipeline: Annotated[Path, typer.Argument(help="Folder of a trained pipeline, changed")],
    data: Annotated[
        Path, typer.Argument(help=".spacy file or folder with gold entities, not the test set")
    ],
    knowledge: KnowledgeOption = False,
    tokens: TokensOption = "pipeline",
    gpu_id: GpuOption = -1,
) -> None:
    """Fit the temperature of PIPELINE's span scores on DATA, as training does on the dev texts."""
    from ..corpus.docbin import Corpus
    from ..evaluation.calibration import calibrate_pipeline, find_ner
    from ..evaluation.evaluate import count_unaligned
    from ..production.job import load_pipeline, use_gpu

    use_gpu(gpu_id)
    nlp = load_pipeline(pipeline)
    found = find_ner(nlp)
    if not pipeline.is_dir() or found is None:
        raise MMCoTError(Errors.E701.format(source=pipeline))
    component: Any = nlp.get_pipe(found)
    before = component.cfg["temperature"]
    examples = list(Corpus(data, knowledge=knowledge, tokens=tokens)(nlp))
    after = calibrate_pipeline(nlp, found, examples)
    component.to_disk(pipeline / found, exclude=["vocab"])
    if n_unaligned := count_unaligned(examples):
        print(f"{n_unaligned} gold entities are inside of tokens and do not count.")
    print(f"temperature of {pipeline}: {before:.3f} -> {after:.3f}")

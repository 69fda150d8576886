"""`report`: one HTML page about pipelines and the docs they were run on. `review`: the texts most
worth a person's look, to be corrected."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import Errors, UsageError
from ..types import Pictures
from .evaluate import GpuOption

ReviewFormat = Literal["html", "prodigy", "label-studio", "doccano"]
_SUFFIXES = {"html": ".html", "label-studio": ".json"}


def report(
    output: Annotated[Path, typer.Argument(help="HTML file to write")],
    data: Annotated[
        Path, typer.Option(help=".spacy file or folder with the docs, labels and pictures")
    ],
    pipeline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="Trained pipeline to run, a folder or a package; repeatable. The first is under "
            "review, the others are comparisons",
            show_default=False,
        ),
    ] = None,
    predictions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="File written by evaluate --predictions, instead of a pipeline; repeatable",
            show_default=False,
        ),
    ] = None,
    with_knowledge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Give the docs' knowledge to this pipeline (for teachers); repeatable",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[
        Pictures, typer.Option(help="The docs' pictures given to the pipelines")
    ] = "real",
    limit: Annotated[int, typer.Option(help="Greatest number of docs, 0 for all", min=0)] = 0,
    metrics: Annotated[
        Path | None,
        typer.Option(
            help="Write the scores there too, as evaluate does: NAME.json of each pipeline, "
            "llm.json, and disagreements.jsonl, where the LLM and the labels differ"
        ),
    ] = None,
    gpu_id: GpuOption = -1,
) -> None:
    """Write a page to OUTPUT that needs no network: scores, plots, and every
    doc with its labels, each pipeline's findings, its attention on the picture, and the LLM's
    knowledge. Where docs hold conclusions, the LLM stands beside the pipelines. The docs with the
    most errors come first."""
    from ..evaluation.conclusions import write_disagreements
    from ..files import replace_file, write_json
    from ..production.job import load_pipeline, use_gpu
    from ..report.build import LLM, ReportSettings, build_report

    sources = _parse_names("--pipeline", "FOLDER", pipeline or [], ())
    files = _parse_names("--predictions", "FILE", predictions or [], sources)
    for name in with_knowledge or []:
        if name not in sources:
            allowed = ", ".join(sources) or "none, as no --pipeline is given"
            raise UsageError(Errors.E728.format(received=name, allowed=allowed))
    if not sources and not files:
        raise UsageError(Errors.E727)
    use_gpu(gpu_id)
    made = build_report(
        ReportSettings(
            data,
            {name: partial(load_pipeline, source) for name, source in sources.items()},
            {name: Path(file) for name, file in files.items()},
            with_knowledge or [],
            pictures,
            limit,
        )
    )
    with replace_file(output) as temporary:
        temporary.write_text(made.html, encoding="utf-8")
    if metrics is not None:
        for name, scores in made.metrics.items():
            write_json(metrics / f"{'llm' if name == LLM else name}.json", scores)
        if LLM in made.metrics:
            write_disagreements(metrics / "disagreements.jsonl", made.concluded)
    print("\n".join([*made.verdict, f"✔ {output}: {', '.join([*sources, *files])}"]))


def _parse_names(
    option: str, what: str, given: list[str], taken: Collection[str]
) -> dict[str, str]:
    """NAME=VALUE options by name. Raises UsageError for another form and a name given twice."""
    from ..report.build import LLM

    named: dict[str, str] = {}
    for received in given:
        name, equals, value = received.partition("=")
        # Their scores go to the files NAME.json, those of the LLM to llm.json.
        is_file = Path(name).name == name and name.lower() not in ("", LLM.lower())
        if not is_file or not equals or not value or name in named or name in taken:
            raise UsageError(Errors.E726.format(option=option, received=received, what=what))
        named[name] = value
    return named


def review(
    pipeline: Annotated[str, typer.Argument(help="Trained pipeline: a folder or a package.")],
    data: Annotated[
        list[Path],
        typer.Argument(help=".spacy files or folders of them, with the LLM's answers."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="NAME.html for the page, NAME.json for Label Studio, else NAME.jsonl.",
        ),
    ],
    format: Annotated[
        ReviewFormat,
        typer.Option(help="A page to correct them on, or tasks with the labels filled in."),
    ] = "html",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Greatest number.")] = 50,
    scheme: Annotated[
        Path | None, typer.Option(help="scheme.yml. Default: the labels of the pipeline.")
    ] = None,
    skip: Annotated[
        Path | None, typer.Option(help="Posts file with texts that are not shown again.")
    ] = None,
    order: Annotated[
        Literal["doubt", "random"],
        typer.Option(help="The most doubtful first, or at random, as for a test set."),
    ] = "doubt",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random order.")] = 0,
    gpu_id: GpuOption = -1,
) -> None:
    """Write the texts of DATA that are most worth correcting: where PIPELINE, the LLM's conclusions
    and gold labels disagree, where they are unsure, and where names are new; spread over the
    labels. Give what comes back to `convert --reviewed`."""
    from ..corpus.docbin import Corpus, list_files
    from ..corpus.posts import find_split, iter_posts
    from ..evaluation.evaluate import needs_gold_entities
    from ..evaluation.review import choose_reviews
    from ..files import replace_file
    from ..production.job import load_pipeline, use_gpu
    from ..report.review import describe_label_studio, format_reviews, make_scheme
    from ..scheme import read_scheme

    suffix = _SUFFIXES.get(format, ".jsonl")
    if output.suffix != suffix:
        raise UsageError(Errors.E729.format(format=format, suffix=suffix, path=output))
    use_gpu(gpu_id)
    nlp = load_pipeline(pipeline)
    known = make_scheme(nlp) if scheme is None else read_scheme(scheme)
    examples, splits = [], []
    for file in [file for path in data for file in list_files(path)]:
        read = Corpus(file, knowledge=False, gold_entities=needs_gold_entities(nlp))
        found = list(read(nlp))
        examples += found
        splits += [find_split(file.stem) or "train"] * len(found)
    left_out = set() if skip is None else {post.id for post in iter_posts(skip)}
    chosen = choose_reviews(nlp, examples, splits, limit, skip=left_out, order=order, seed=seed)
    with replace_file(output) as temporary:
        text = format_reviews(chosen, format, known, output.parent)
        temporary.write_text(text, encoding="utf-8")
    print(f"{len(chosen)} of {len(examples)} texts are in {output}.")
    if format == "label-studio":
        print(f"Labelling interface for the project's settings:\n{describe_label_studio(known)}")

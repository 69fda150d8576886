"""`python -m benchmarks NAME`: what things cost on this machine.

Without arguments they measure the pipelines and the corpus that the demo (`make demo`) leaves.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.errors import BenchmarkErrors
from spacy_mmcot.cli.main import plain_errors

if TYPE_CHECKING:
    from spacy.tokens import Doc
    from spacy.vocab import Vocab

app = typer.Typer(help="Measure what things cost on this machine.", no_args_is_help=True)

STUDENT = "training/student/model-best"
TEST = Path("corpus/gold/test.spacy")

Pipeline = Annotated[str, typer.Argument(help="Trained pipeline: a folder or a package")]
Texts = Annotated[Path, typer.Argument(help=".spacy file or folder whose texts are read")]
Limit = Annotated[int, typer.Option(min=0, help="Greatest number of docs, 0 for all")]
Rounds = Annotated[int, typer.Option(min=1, help="Passes; the median counts")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the figures here")]


def train(
    taught: Annotated[Path, typer.Argument(help="A .spacy file that `teach` wrote")] = Path(
        "corpus/taught.spacy"
    ),
    config: Annotated[Path, typer.Option(help="Training config of the student")] = Path(
        "configs/student.cfg"
    ),
    limit: Limit = 0,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Component to leave out; repeatable")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Seconds of a student's epoch over those of the same epoch on gold labels alone."""
    from spacy_mmcot.corpus.docbin import list_files
    from spacy_mmcot.errors import Errors, MMCoTError

    from .train import measure_epochs

    list_files(taught)
    if not config.is_file():
        raise MMCoTError(Errors.E100.format(path=config))
    _report(measure_epochs(config, taught, limit, exclude or ()), json)


def pipe(
    pipeline: Pipeline = STUDENT,
    data: Texts = TEST,
    limit: Limit = 0,
    rounds: Rounds = 5,
    exported: Annotated[
        str | None, typer.Option(help="The same pipeline as `export` wrote it, to compare with")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Words/s, latency and memory of a pipeline, beside its bare encoder, spaCy's stock components,
    GLiNER and its exported form; and what each of its components costs."""
    from spacy_mmcot.production.job import load_pipeline

    from .memory import measure_peak_mb
    from .pipe import has_gliner, measure_pipe

    nlp = load_pipeline(pipeline)
    texts = [doc.text for doc in _read_filled_docs(data, nlp.vocab, limit)]
    if not has_gliner():
        print("GLiNER is left out: it is not installed (pip install gliner).", file=sys.stderr)
    other = load_pipeline(exported) if exported is not None else None
    figures = measure_pipe(nlp, texts, rounds, exported=other)
    figures["peak_mb"] = measure_peak_mb(pipeline, texts)
    if exported is not None:
        figures["peak_mb_exported"] = measure_peak_mb(exported, texts)
    _report(figures, json)


def pictures(
    pipeline: Annotated[
        str | None,
        typer.Argument(
            help="Trained pipeline that reads pictures. By default an untrained one of "
            "configs/student.cfg, which takes the same time",
        ),
    ] = None,
    data: Texts = TEST,
    limit: Limit = 0,
    rounds: Rounds = 5,
    json: JsonFile = None,
) -> None:
    """Words/s with and without the docs' pictures, and what a picture costs."""
    from spacy_mmcot import PicturePolicy
    from spacy_mmcot.errors import MMCoTError
    from spacy_mmcot.pictures.read import get_image, read_picture
    from spacy_mmcot.production.job import load_pipeline

    from .pictures import initialize_student, measure_pictures

    nlp = initialize_student() if pipeline is None else load_pipeline(pipeline)
    docs = _read_filled_docs(data, nlp.vocab, limit)
    named = [(doc.text, image) for doc in docs if (image := get_image(doc)) is not None]
    if not named:
        raise MMCoTError(BenchmarkErrors.E713.format(path=data))
    policy = PicturePolicy()
    posts = [(text, read_picture(image, policy)) for text, image in named]
    _report(measure_pictures(nlp, posts, rounds), json)


def ladder(
    pipelines: Annotated[list[str], typer.Argument(help="Trained pipelines, the slowest first")],
    data: Annotated[Path, typer.Option(help=".spacy file or folder whose texts are read")] = TEST,
    limit: Limit = 0,
    rounds: Rounds = 5,
    json: JsonFile = None,
) -> None:
    """Words/s of several pipelines that take turns, and how many times the first one's it is."""
    from spacy_mmcot.errors import MMCoTError
    from spacy_mmcot.production.job import load_pipeline

    from .ladder import measure_side_by_side

    if repeated := {name for name in pipelines if pipelines.count(name) > 1}:
        raise MMCoTError(BenchmarkErrors.E738.format(pipeline=min(repeated)))
    loaded = {name: load_pipeline(name) for name in pipelines}
    docs = _read_filled_docs(data, loaded[pipelines[0]].vocab, limit)
    _report(measure_side_by_side(loaded, [doc.text for doc in docs], rounds), json)


def elicit(
    requests: Annotated[int, typer.Option(min=0, help="For the throughput, 0 to skip it")] = 4000,
    workers: Annotated[int, typer.Option(min=1, help="Questions in flight")] = 200,
    latency: Annotated[float, typer.Option(min=0.001, help="Seconds the server takes")] = 1.0,
    memory: Annotated[
        int, typer.Option(min=0, help="Posts of the smaller memory run, 0 to skip both")
    ] = 2000,
    faults: Annotated[int, typer.Option(min=0, help="Runs that are killed and resumed")] = 20,
    peers: Annotated[
        int, typer.Option(min=0, help="Requests for each of the other clients, 0 to skip")
    ] = 200,
    json: JsonFile = None,
) -> None:
    """What eliciting costs beside the LLM, and what it survives, on a server on loopback."""
    from . import elicit as measure

    figures: dict[str, Any] = {}
    if requests:
        figures |= measure.throughput(requests, workers, latency)
    if memory:
        figures |= measure.memory(memory)
    if faults:
        figures |= measure.faults(faults)
    if peers:
        figures |= measure.side_by_side(peers)
    _report(figures, json)


def soak(
    pipeline: Pipeline = STUDENT,
    docs: Annotated[int, typer.Option(min=1, help="Texts to stream")] = 20_000,
    every: Annotated[int, typer.Option(min=1, help="Docs from one sample to the next")] = 2000,
    zone: Annotated[int, typer.Option(min=1, help="Docs per memory zone")] = 500,
    zones: Annotated[bool, typer.Option(help="Process them in memory zones")] = True,
    json: JsonFile = None,
) -> None:
    """Memory and speed over a long run whose texts bring new words all the time."""
    from spacy_mmcot.production.job import load_pipeline

    from .soak import Sample, draw_sparkline, measure_soak

    def show(sample: Sample) -> None:
        line = f"{sample.docs} docs: {sample.rss_mb:.1f} MB, {sample.docs_per_second:.1f} docs/s"
        print(line, file=sys.stderr)

    nlp = load_pipeline(pipeline)
    figures = measure_soak(nlp, docs, every=every, zone=zone, zones=zones, show=show)
    samples = figures["samples"][1:]
    print(f"memory  {draw_sparkline([sample['rss_mb'] for sample in samples])}")
    print(f"docs/s  {draw_sparkline([sample['docs_per_second'] for sample in samples])}")
    _report(figures, json, quiet=("samples",))


def annotate(
    pipeline: Pipeline = STUDENT,
    size: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Docs; repeatable, 1000, 10000 and 100000 by default"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes of each run")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Docs per batch")] = 256,
    json: JsonFile = None,
) -> None:
    """Docs/s and memory of `annotate` as the number of short docs grows, a process for each."""
    from .annotate import measure_growth

    _report(measure_growth(pipeline, size or [1000, 10_000, 100_000], workers, batch_size), json)


def cold_start(
    pipeline: Pipeline = STUDENT,
    rounds: Annotated[int, typer.Option(min=1, help="Processes; the median counts")] = 3,
    json: JsonFile = None,
) -> None:
    """Start, memory and disk of a pipeline and of its standalone wheel."""
    from .cold_start import measure_cold_start

    _report(measure_cold_start(pipeline, rounds), json)


def cascade(
    pipeline: Pipeline = STUDENT,
    data: Annotated[
        Path, typer.Argument(help=".spacy file or folder with gold entities and conclusions")
    ] = TEST,
    docs: Annotated[
        int, typer.Option(min=0, help="Docs for the server that fails, 0 to skip it")
    ] = 2000,
    json: JsonFile = None,
) -> None:
    """F1 by the share of docs that `mmcot_cascade` sends to an LLM, which answers with the docs'
    conclusions; and docs and budget on a server that fails for a fifth of the requests."""
    from spacy_mmcot.errors import Errors, MMCoTError
    from spacy_mmcot.model.knowledge import get_concluded_entities
    from spacy_mmcot.production.job import load_pipeline

    from .cascade import measure_faults, measure_shares

    nlp = load_pipeline(pipeline)
    labelled = [
        doc
        for doc in _read_filled_docs(data, nlp.vocab, 0)
        if doc.has_annotation("ENT_IOB") and get_concluded_entities(doc) is not None
    ]
    if not labelled:
        raise MMCoTError(Errors.E809.format(path=data))
    figures = measure_shares(nlp, labelled)
    if docs:
        figures |= measure_faults(nlp, labelled, docs)
    _report(figures, json)


def _read_filled_docs(data: Path, vocab: Vocab, limit: int) -> list[Doc]:
    """Raises MMCoTError where there is none."""
    from spacy_mmcot.corpus.docbin import read_all_docs
    from spacy_mmcot.errors import Errors, MMCoTError

    docs = [doc for doc in read_all_docs(data, vocab) if len(doc)][: limit or None]
    if not docs:
        raise MMCoTError(Errors.E202.format(path=data))
    return docs


def _report(figures: dict[str, Any], path: Path | None, quiet: Sequence[str] = ()) -> None:
    """Print the figures and write them to a JSON file. quiet: what goes to the file alone."""
    from spacy_mmcot.files import write_json

    for name, value in figures.items():
        if name not in quiet:
            print(f"{name}: {value}")
    if path is not None:
        write_json(path, figures)


for _function in (train, pipe, pictures, ladder, annotate, elicit, cascade, soak, cold_start):
    app.command(_function.__name__.replace("_", "-"))(plain_errors(_function))

if __name__ == "__main__":
    app(prog_name="python -m benchmarks")

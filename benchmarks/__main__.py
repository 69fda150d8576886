"""`benchmark`: measurements that stay in the project, so that anyone can take them again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_mmcot.cli.main import plain_errors

if TYPE_CHECKING:
    from spacy.tokens import Doc
    from spacy.vocab import Vocab

app = typer.Typer(help="Measure what things cost on this machine.", no_args_is_help=True)

JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the figures here")]


def train(
    taught: Annotated[Path, typer.Argument(help="A .spacy file that `teach` wrote")],
    student: Annotated[Path, typer.Option(help="Training config")] = Path("configs/student.cfg"),
    baseline: Annotated[Path, typer.Option(help="Training config")] = Path("configs/baseline.cfg"),
    limit: Annotated[int, typer.Option(min=0, help="Most docs, 0 for all")] = 0,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Component to leave out; repeatable")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Seconds of a student's epoch over those of a plain fine-tuning epoch, same batches."""
    from spacy_mmcot.corpus.docbin import docbin_paths
    from spacy_mmcot.errors import Errors, MMCoTError

    from .train import epoch_ratio

    docbin_paths(taught)
    for config in (student, baseline):
        if not config.is_file():
            raise MMCoTError(Errors.E100.format(path=config))
    _report(epoch_ratio(student, baseline, taught, limit, exclude or ()), json)


def pipe(
    pipeline: Annotated[str, typer.Argument(help="Trained pipeline: a folder or a package")],
    data: Annotated[Path, typer.Argument(help=".spacy file or folder: its texts are read")],
    limit: Annotated[int, typer.Option(min=0, help="Most texts, 0 for all")] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="Passes; the median counts")] = 5,
    exported: Annotated[
        str | None, typer.Option(help="The same pipeline as `export` wrote it, to compare with")
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="What the docs' pictures cost, instead")
    ] = False,
    json: JsonFile = None,
) -> None:
    """Words/s, latency and memory of a pipeline, beside its bare encoder, spaCy's stock components,
    GLiNER and its exported form; and what each of its components costs. Or what pictures do."""
    from spacy_mmcot.corpus.extensions import get_image
    from spacy_mmcot.errors import Errors, MMCoTError
    from spacy_mmcot.pictures.read import PicturePolicy, read_picture
    from spacy_mmcot.production.pipelines import load_pipeline

    from .memory import peak_mb
    from .pictures import picture_costs
    from .pipe import has_gliner, pipe_figures

    nlp = load_pipeline(pipeline)
    docs = _filled_docs(data, nlp.vocab, limit)
    if not pictures:
        if not has_gliner():
            print("GLiNER is left out: it is not installed (pip install gliner).", file=sys.stderr)
        texts = [doc.text for doc in docs]
        other = load_pipeline(exported) if exported is not None else None
        figures = pipe_figures(nlp, texts, rounds, exported=other)
        figures["peak_mb"] = peak_mb(pipeline, texts)
        if exported is not None:
            figures["peak_mb_exported"] = peak_mb(exported, texts)
        _report(figures, json)
        return
    named = [(doc.text, image) for doc in docs if (image := get_image(doc)) is not None]
    if not named:
        raise MMCoTError(Errors.E713.format(path=data))
    policy = PicturePolicy()
    posts = [(text, read_picture(image, policy)) for text, image in named]
    _report(picture_costs(nlp, posts, rounds), json)


def ladder(
    pipelines: Annotated[list[str], typer.Argument(help="Trained pipelines, the slowest first")],
    data: Annotated[Path, typer.Option(help=".spacy file or folder: its texts are read")],
    limit: Annotated[int, typer.Option(min=0, help="Most texts, 0 for all")] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="Passes; the median counts")] = 5,
    json: JsonFile = None,
) -> None:
    """Words/s of several pipelines that take turns, and how many times the first one's it is."""
    from spacy_mmcot.errors import Errors, MMCoTError
    from spacy_mmcot.production.pipelines import load_pipeline

    from .ladder import side_by_side

    if repeated := {name for name in pipelines if pipelines.count(name) > 1}:
        raise MMCoTError(Errors.E738.format(pipeline=min(repeated)))
    loaded = {name: load_pipeline(name) for name in pipelines}
    vocab = loaded[pipelines[0]].vocab
    texts = [doc.text for doc in _filled_docs(data, vocab, limit)]
    _report(side_by_side(loaded, texts, rounds), json)


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
    from .elicit import side_by_side

    figures: dict[str, Any] = {}
    if requests:
        figures |= measure.throughput(requests, workers, latency)
    if memory:
        figures |= measure.memory(memory)
    if faults:
        figures |= measure.faults(faults)
    if peers:
        figures |= side_by_side(peers)
    _report(figures, json)


def soak(
    pipeline: Annotated[str, typer.Argument(help="Trained pipeline: a folder or a package")],
    docs: Annotated[int, typer.Option(min=1, help="Texts to stream")] = 20_000,
    every: Annotated[int, typer.Option(min=1, help="Docs from one look to the next")] = 2000,
    zone: Annotated[int, typer.Option(min=1, help="Docs a memory zone")] = 500,
    zones: Annotated[bool, typer.Option(help="Process them in memory zones")] = True,
    json: JsonFile = None,
) -> None:
    """Memory and speed over a long run whose texts bring new words all the time."""
    from spacy_mmcot.production.pipelines import load_pipeline

    from .soak import Sample, sparkline
    from .soak import soak as measure

    def seen(sample: Sample) -> None:
        line = f"{sample.docs} docs: {sample.rss_mb:.1f} MB, {sample.docs_per_second:.1f} docs/s"
        print(line, file=sys.stderr)

    figures = measure(load_pipeline(pipeline), docs, every=every, zone=zone, zones=zones, seen=seen)
    samples = figures["samples"][1:]
    print(f"memory  {sparkline([sample['rss_mb'] for sample in samples])}")
    print(f"docs/s  {sparkline([sample['docs_per_second'] for sample in samples])}")
    _report(figures, json, quiet=("samples",))


def annotate(
    pipeline: Annotated[str, typer.Argument(help="Trained pipeline: a folder or a package")],
    size: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Docs; repeatable, 1000, 10000 and 100000 by default"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes of each run")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Docs that run together")] = 256,
    json: JsonFile = None,
) -> None:
    """Docs/s and memory of `annotate` as the number of short docs grows, a process for each."""
    from .annotate import growth

    _report(growth(pipeline, size or [1000, 10_000, 100_000], workers, batch_size), json)


def cold_start(
    pipeline: Annotated[str, typer.Argument(help="Trained pipeline: a folder or a package")],
    rounds: Annotated[int, typer.Option(min=1, help="Processes; the median counts")] = 3,
    json: JsonFile = None,
) -> None:
    """Seconds from the start of a process to its first document."""
    from .cold_start import cold_start as measure

    _report(measure(pipeline, rounds), json)


def _filled_docs(data: Path, vocab: Vocab, limit: int) -> list[Doc]:
    """Raises MMCoTError where there is none."""
    from spacy_mmcot.corpus.docbin import read_all
    from spacy_mmcot.errors import Errors, MMCoTError

    docs = [doc for doc in read_all(data, vocab) if len(doc)][: limit or None]
    if not docs:
        raise MMCoTError(Errors.E202.format(path=data))
    return docs


def _report(figures: dict[str, Any], path: Path | None, quiet: Sequence[str] = ()) -> None:
    """quiet: what goes to the file alone."""
    import srsly

    for name, value in figures.items():
        if name not in quiet:
            print(f"{name}: {value}")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        srsly.write_json(path, figures)


for _function in (train, pipe, ladder, annotate, elicit, soak, cold_start):
    app.command(_function.__name__.replace("_", "-"))(plain_errors(_function))

if __name__ == "__main__":
    app(prog_name="python -m benchmarks")

"""`benchmark`: measurements that stay in the project, so that anyone can take them again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

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
    from ..benchmarks.train import epoch_ratio
    from ..corpus.docbin import docbin_paths
    from ..errors import Errors, MMCoTError

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
    pictures: Annotated[
        bool, typer.Option("--pictures", help="What the docs' pictures cost, instead")
    ] = False,
    json: JsonFile = None,
) -> None:
    """Words/s of a pipeline, and what each of its components costs, or what pictures do."""
    from ..benchmarks.pictures import picture_costs
    from ..benchmarks.pipe import component_shares
    from ..corpus.docbin import docbin_paths, read_docs
    from ..corpus.extensions import get_image
    from ..errors import Errors, MMCoTError
    from ..pictures.policy import PicturePolicy
    from ..pictures.read import read_picture
    from .pipelines import load_pipeline

    nlp = load_pipeline(pipeline)
    read = (doc for path in docbin_paths(data) for doc in read_docs(path, nlp.vocab))
    docs = [doc for doc in read if len(doc)][: limit or None]
    if not pictures:
        _report(component_shares(nlp, [doc.text for doc in docs], rounds), json)
        return
    named = [(doc.text, image) for doc in docs if (image := get_image(doc)) is not None]
    if not named:
        raise MMCoTError(Errors.E713.format(path=data))
    policy = PicturePolicy()
    posts = [(text, read_picture(image, policy)) for text, image in named]
    _report(picture_costs(nlp, posts, rounds), json)


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
    from ..benchmarks import elicit as measure
    from ..benchmarks.elicit_peers import side_by_side

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


def _report(figures: dict[str, Any], path: Path | None) -> None:
    import srsly

    for name, value in figures.items():
        print(f"{name}: {value}")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        srsly.write_json(path, figures)

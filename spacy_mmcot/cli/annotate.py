"""`annotate`: run a pipeline over tables of any size. `export`: make it faster by ONNX Runtime."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import Errors, MMCoTError, UsageError
from ..messages import escape_control
from ..production.engines import EngineName
from ..production.tables import TableFormat
from .init import check_name

if TYPE_CHECKING:
    from ..production.annotate import AnnotateResult
    from ..production.engines import OnProgress

REJECTED, INTERRUPTED = 3, 130

EngineOption = Annotated[
    EngineName, typer.Option(help="This machine, or a Ray cluster that shares its files")
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Processes; by default one, with Ray one for each CPU")
]


def annotate(
    pipeline: Annotated[str, typer.Argument(help="Trained pipeline: a folder or a package")],
    inputs: Annotated[
        list[Path], typer.Argument(help=".jsonl, .csv, .parquet, .spacy files, or folders")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File; without a suffix, a folder of parts")
    ],
    format: Annotated[
        TableFormat | None, typer.Option(help="Of the output; its suffix decides by default")
    ] = None,
    text_column: Annotated[str, typer.Option(help="The column with the texts")] = "text",
    id_column: Annotated[str, typer.Option(help="The column with ids, if there is one")] = "id",
    image_column: Annotated[
        str, typer.Option(help="The column with pictures, if any: paths or bytes")
    ] = "image",
    prefix: Annotated[
        str, typer.Option(help="Put before the names of the added columns, such as `entities`")
    ] = "",
    engine: EngineOption = "local",
    workers: WorkersOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Docs that run together")] = 256,
    chunk: Annotated[
        int, typer.Option(min=1, help="Rows that a worker writes, and a kill loses, at once")
    ] = 2000,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again instead of continuing")
    ] = False,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Share of rejected rows that is exit code 3")
    ] = 0.05,
) -> None:
    """Find entities and relations in the rows of INPUTS and write the rows with what was found.

    A run that was stopped or killed continues when the same command is given again.
    Rows that cannot be annotated go to OUTPUT.rejected.jsonl with the reason. Exit codes: 0 done,
    1 stopped by an error, 2 wrong usage, 3 finished with too many rejected rows, 130 Ctrl-C.
    """
    from ..corpus.docbin import list_unread
    from ..production.annotate import AnnotateSettings
    from ..production.annotate import annotate as run
    from ..production.tables import ColumnNames, list_files

    names = ColumnNames(text_column, id_column, image_column, prefix)
    settings = AnnotateSettings(names, format, batch_size, chunk)
    try:
        with show_progress() as on_progress:
            result = run(
                pipeline,
                inputs,
                output,
                settings,
                engine=engine,
                workers=workers,
                overwrite=overwrite,
                on_progress=on_progress,
            )
    except KeyboardInterrupt:
        print("Stopped. What was done is kept. Run the command again to continue.")
        raise typer.Exit(INTERRUPTED) from None
    _print_summary(result, output)
    others = Counter(file.suffix for file in list_unread(inputs, list_files(inputs)))
    if others:
        shown = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common())
        print(f"Other files in the folders, not read: {escape_control(shown)}")
    if result.rejected > threshold * max(1, result.rows):
        raise typer.Exit(REJECTED)


@contextmanager
def show_progress() -> Iterator[OnProgress]:
    """A progress bar on a terminal, elsewhere nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    terminal = getattr(sys.stdout, "terminal", sys.stdout)
    console = Console(file=terminal)
    with Progress(*columns, console=console, disable=not terminal.isatty()) as bar:
        task = bar.add_task("", total=None)
        yield lambda total, done: bar.update(task, total=total, completed=done)


def _print_summary(result: AnnotateResult, output: Path) -> None:
    done = result.rows - result.resumed
    parts = [f"{result.rows} rows, {result.rejected} rejected"]
    if result.resumed:
        parts.append(f"{result.resumed} were done already")
    if done:
        parts.append(f"{done / result.seconds:.0f} rows/s, {result.seconds:.1f} s")
    shown = escape_control(str(output))
    print(f"{', '.join(parts)} -> {shown}")
    if result.rejected:
        print(f"Rejected rows, with reasons: {shown}.rejected.jsonl")


def export(
    pipeline: Annotated[str, typer.Argument(help="Trained pipeline: a folder or a package")],
    output: Annotated[Path, typer.Argument(help="Folder for the exported pipeline")],
    precision: Annotated[
        Literal["fp32", "int8"],
        typer.Option(help="Of the encoder's linear layers: int8 is fast, fp32 exact"),
    ] = "int8",
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Without torch and transformers; reads no pictures")
    ] = False,
    wheel: Annotated[
        bool, typer.Option("--wheel", help="With --standalone: also a wheel, in OUTPUT/dist")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Of the wheel, without the language; default: the pipeline's")
    ] = None,
) -> None:
    """Write a pipeline whose encoder runs on ONNX Runtime, for fast prediction on a CPU.

    It has the same components, loads with spacy.load, and cannot be trained.
    """
    from ..files import catch_write_errors, make_folder
    from ..production.export import build_wheel, export_standalone, reads_pictures
    from ..production.export import export as export_pipeline
    from ..production.job import load_pipeline

    for option, given, needed in (
        ("--wheel", wheel and not standalone, "--standalone"),
        ("--name", name is not None and not wheel, "--wheel"),
    ):
        if given:
            raise UsageError(Errors.E811.format(option=option, needed=needed))
    if name is not None:
        check_name(name)
    if output.resolve() == Path(pipeline).resolve():
        raise MMCoTError(Errors.E781.format(path=output))
    loaded = load_pipeline(pipeline)
    nlp = (export_standalone if standalone else export_pipeline)(loaded, precision)
    with catch_write_errors(output):
        make_folder(output)
        nlp.to_disk(output)
    print(f"Exported as {precision}: {output}")
    if standalone and reads_pictures(loaded):
        print("The pipeline reads pictures; the standalone one reads texts alone.")
    if wheel:
        print(f"Wheel: {build_wheel(output, name)}")

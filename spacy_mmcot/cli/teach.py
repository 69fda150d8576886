"""`teach`: write a teacher's soft labels, and prompt targets, onto a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import Errors, UsageError
from ..production.engines import choose_engine
from .annotate import EngineOption, WorkersOption
from .evaluate import GpuOption

if TYPE_CHECKING:
    from ..types import Sureness

TeachSource = Literal["teacher", "conclusions"]


def teach(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[TEACHER] INPUTS...",
            help="Trained teacher pipeline, or with --map any pipeline that finds entities or "
            "gliner:NAME_OR_FOLDER; then .spacy files or folders of them, with knowledge. With "
            "--from conclusions there is no teacher.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .spacy file to write")],
    source: Annotated[
        TeachSource, typer.Option("--from", help="A trained pipeline, or the LLM's conclusions")
    ] = "teacher",
    scheme: Annotated[
        Path | None, typer.Option(help="With --from conclusions: scheme.yml, whose labels count")
    ] = None,
    confidence: Annotated[
        str,
        typer.Option(
            help="With --from conclusions: how likely a conclusion of high, medium and low "
            "sureness is right. Measured instead where 50 labelled docs have conclusions."
        ),
    ] = "0.95,0.7,0.5",
    prompt_length: Annotated[
        int, typer.Option(min=0, help="Also store targets for this many prompt vectors; 0 for none")
    ] = 0,
    knowledge_encoder: Annotated[
        str | None, typer.Option(help="Encoder of the prompt targets; default: the teacher's own")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Docs that run together")] = 64,
    also: Annotated[
        list[Path] | None,
        typer.Option("--with", help="A further teacher, for the mean of all; repeatable"),
    ] = None,
    label_table: Annotated[
        Path | None,
        typer.Option(
            "--map",
            help="YAML file with a line `their label: our label` for each label of the teacher "
            "that counts; for teachers other than mmcot_ner and mmcot_rel",
        ),
    ] = None,
    pictures: Annotated[
        bool, typer.Option(help="Let a teacher that reads pictures see those of the docs")
    ] = True,
    gpu_id: GpuOption = -1,
    engine: EngineOption = "local",
    workers: WorkersOption = None,
    chunk: Annotated[
        int, typer.Option(min=1, help="Docs that a worker writes, and a kill loses, at once")
    ] = 500,
) -> None:
    """Predict label probabilities with a TEACHER for INPUTS, above all for unlabelled posts. With
    --from conclusions they come from the LLM's conclusions themselves, and no labels are needed.

    A run that was stopped goes on where it was when the same command is given again.
    """
    from ..distillation.entity_teachers import read_label_table
    from ..production.teaching import TeachRequest, teach_files, teach_from_conclusions

    if output.suffix != ".spacy":
        fields = {"option": "--output", "received": str(output)}
        raise UsageError(Errors.E715.format(**fields, expected="a name that ends in .spacy"))
    is_taught = source == "teacher"
    for option, given, needed in (
        ("--scheme", scheme is not None and is_taught, "--from conclusions"),
        ("--with", also and not is_taught, "a teacher"),
        ("--map", label_table is not None and not is_taught, "a teacher"),
    ):
        if given:
            raise UsageError(Errors.E811.format(option=option, needed=needed))
    if not is_taught:
        taught = teach_from_conclusions(paths, output, scheme, parse_confidence(confidence))
        print(
            f"{taught.docs} docs, {taught.with_conclusion} with a conclusion, {taught.labelled} "
            f"labelled. P(right): {taught.confidence.describe()} -> {output}"
        )
        if taught.unknown:
            print(f"{scheme} lacks these labels, left out: {', '.join(taught.unknown)}.")
        return
    teacher, *inputs = paths
    if not inputs:
        raise UsageError(Errors.E507)
    teachers = [str(name) for name in (teacher, *(also or ()))]
    labels = None if label_table is None else read_label_table(label_table)
    request = TeachRequest(
        teachers,
        inputs,
        output,
        labels,
        pictures,
        prompt_length,
        knowledge_encoder,
        batch_size,
        chunk,
        gpu_id,
    )
    result = teach_files(request, choose_engine(engine, workers))
    print(
        f"{result.docs} docs taught ({result.unlabelled} of them unlabelled), "
        f"{result.prompt_targets} prompt targets, {output.stat().st_size / 1e6:.1f} MB, "
        f"{result.seconds:.1f} s -> {output}"
    )
    if result.dropped:
        counts = ", ".join(f"{label} {count}" for label, count in result.dropped.most_common())
        reason = f"their label is not in {label_table}, or they overlap others"
        print(f"{result.dropped.total()} entities were left out, as {reason}: {counts}")


def parse_confidence(text: str) -> dict[Sureness, float]:
    """Three probabilities with commas between them, of high, medium and low sureness. Raises
    UsageError for anything else."""
    from ..types import SURENESS

    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != len(SURENESS) or not all(0 < number <= 1 for number in numbers):
        raise UsageError(Errors.E508.format(received=text))
    return dict(zip(SURENESS, numbers, strict=True))

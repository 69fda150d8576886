"""`compare`: whether one pipeline is better than another on the same docs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from ..evaluation.compare import Comparison

_TITLES = {"ents": "entities, strict", "rel_e2e": "relations, end to end"}


def compare(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="BASELINE STUDENT",
            help="Files written by evaluate --predictions",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        list[Path] | None,
        typer.Option(help="The baseline of a further seed; repeatable", show_default=False),
    ] = None,
    student: Annotated[
        list[Path] | None,
        typer.Option(help="The student of a further seed; repeatable", show_default=False),
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Number of resamples")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling")] = 0,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the figures here")] = None,
) -> None:
    """Compare the micro F1 of two pipelines on the same labelled docs by a paired bootstrap over
    docs: the difference, its 95% interval and p-values. With several seeds F1 is the mean over
    them."""
    from rich.console import Console

    from ..errors import Errors, UsageError
    from ..evaluation.compare import compare_files
    from ..files import write_json

    pair = files or []
    baselines, students = [*pair[:1], *(baseline or [])], [*pair[1:], *(student or [])]
    if len(pair) > 2 or not baselines or len(baselines) != len(students):
        raise UsageError(Errors.E803.format(baselines=len(baselines), students=len(students)))
    compared = compare_files(baselines, students, resamples=resamples, seed=seed)
    Console().print(_make_table(compared))
    Console().print(
        f"{resamples} resamples of the docs, seed {seed}. p: the share of resamples in which the "
        "student is not better; two-sided: twice the smaller of the shares in which it is not "
        "better and not worse."
    )
    if json is not None:
        figures = {
            "baseline": [str(file) for file in baselines],
            "student": [str(file) for file in students],
            "resamples": resamples,
            "seed": seed,
            **{task: comparison._asdict() for task, comparison in compared.items()},
        }
        write_json(json, figures)


def _make_table(compared: Mapping[str, Comparison]) -> Table:
    """A column per task."""
    from rich.table import Table

    def join(scores: list[float]) -> str:
        return " ".join(f"{100 * score:.2f}" for score in scores)

    figures = compared.values()
    table = Table("F1", *(_TITLES[task] for task in compared), title="Paired bootstrap")
    table.add_row("baseline", *(f"{100 * c.baseline_f:.2f}" for c in figures))
    table.add_row("student", *(f"{100 * c.student_f:.2f}" for c in figures))
    table.add_row("difference", *(f"{100 * c.difference:+.2f}" for c in figures))
    table.add_row("95% interval", *(f"{100 * c.low:+.2f} to {100 * c.high:+.2f}" for c in figures))
    table.add_row("p", *(f"{c.p_one_sided:.4f}" for c in figures))
    table.add_row("p, two-sided", *(f"{c.p_two_sided:.4f}" for c in figures))
    table.add_row("docs", *(str(c.docs) for c in figures))
    if any(len(c.baseline_by_seed) > 1 for c in figures):
        table.add_row("baseline by seed", *(join(c.baseline_by_seed) for c in figures))
        table.add_row("student by seed", *(join(c.student_by_seed) for c in figures))
    return table

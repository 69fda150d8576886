"""`compare`: whether one pipeline is better than another on the same docs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from ..evaluation.compare import Comparison
    from ..evaluation.predictions import Predicted

_TITLES = {"ents": "entities, strict", "rel_e2e": "relations, end to end"}


def compare(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="BASELINE STUDENT",
            help="Files that evaluate --predictions wrote",
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

    from ..errors import Errors, MMCoTError, UsageError
    from ..evaluation.predictions import read_predictions
    from ..files import write_json

    pair = files or []
    baselines, students = [*pair[:1], *(baseline or [])], [*pair[1:], *(student or [])]
    if len(pair) > 2 or not baselines or len(baselines) != len(students):
        raise UsageError(Errors.E803.format(baselines=len(baselines), students=len(students)))
    paths = [*baselines, *students]
    found = _matched(paths, [read_predictions(path) for path in paths])
    compared = _compared(found, len(baselines), resamples, seed)
    if not compared:
        raise MMCoTError(Errors.E802.format(path=paths[0]))
    Console().print(_table(compared))
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


def _matched(paths: list[Path], read: list[list[Predicted]]) -> list[list[Predicted]]:
    from ..evaluation.compare import in_order_of

    first, *others = read
    return [first] + [
        in_order_of(first, docs, paths=(paths[0], path))
        for path, docs in zip(paths[1:], others, strict=True)
    ]


def _compared(
    found: list[list[Predicted]], n_baselines: int, resamples: int, seed: int
) -> dict[str, Comparison]:
    """By task, over the docs that are labelled for it; entities only where every pipeline finds
    its own, relations only where every one looks for them."""
    from ..evaluation.compare import paired_bootstrap
    from ..evaluation.scores import entity_counts, relation_counts

    rows = list(zip(*found, strict=True))
    entities = [row for row in rows if all(doc.gold is not None for doc in row)]
    relations = [row for row in rows if all(doc.gold_relations is not None for doc in row)]
    if any(doc.relations is None for row in relations for doc in row):
        relations = []
    compared = {}
    for task, labelled, count in (
        ("ents", entities, entity_counts),
        ("rel_e2e", relations, relation_counts),
    ):
        if labelled:
            counts = [count(docs) for docs in zip(*labelled, strict=True)]
            compared[task] = paired_bootstrap(
                counts[:n_baselines], counts[n_baselines:], resamples=resamples, seed=seed
            )
    return compared


def _table(compared: dict[str, Comparison]) -> Table:
    """A column for each task: this fits any terminal."""
    from rich.table import Table

    def by_seed(scores: list[float]) -> str:
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
        table.add_row("baseline by seed", *(by_seed(c.baseline_by_seed) for c in figures))
        table.add_row("student by seed", *(by_seed(c.student_by_seed) for c in figures))
    return table

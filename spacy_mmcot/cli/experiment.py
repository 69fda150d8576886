"""`experiment`: a plan of trainings over seeds, each result a line of results.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..experiments.plan import Plan


def experiment(
    plan: Annotated[Path, typer.Argument(help="YAML file, see configs/experiments")],
    corpus: Annotated[Path, typer.Argument(help="Folder that `convert` wrote")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for models")] = Path(
        "results/models"
    ),
    results: Annotated[Path, typer.Option(help="One line a finished run")] = Path(
        "results/results.jsonl"
    ),
    only: Annotated[
        list[str] | None, typer.Option(help="Runs of the plan, all by default; repeatable")
    ] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Repeatable")] = None,
    keep_models: Annotated[
        bool, typer.Option(help="Have each run's pipeline in the end, even of runs that are done")
    ] = False,
) -> None:
    """Run PLAN on CORPUS: what results.jsonl has is not run again, so a stopped plan goes on."""
    from ..analysis.results import read_results
    from ..experiments.plan import read_plan
    from ..experiments.run import Runner

    todo: Plan = read_plan(plan)
    runner = Runner(todo, corpus, output, results, keep_models=keep_models)
    for name, seed in todo.order(only or None, seeds or None):
        runner.run(name, seed)
    show(read_results(results, todo.name))


def show(results: list[dict[str, Any]]) -> None:
    from rich.console import Console

    from ..analysis.results import SCORES, by_data
    from ..experiments.table import summary

    for data, lines in by_data(results).items():
        for score in SCORES:
            table = summary(lines, score, data)
            if table is not None:
                Console().print(table)

"""`experiment`: a plan of trainings over seeds, each result a line of results.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_mmcot.cli.main import plain_errors

from .convert import convert
from .perturb import perturb_files

if TYPE_CHECKING:
    from .plan import Plan


app = typer.Typer(help="Plans of trainings over seeds, and their results.", no_args_is_help=True)


def run(
    plan: Annotated[Path, typer.Argument(help="YAML file, see research/plans")],
    corpus: Annotated[Path, typer.Argument(help="Folder that `convert` wrote")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for models")] = Path(
        "research/models"
    ),
    results: Annotated[Path, typer.Option(help="One line a finished run")] = Path(
        "research/results.jsonl"
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
    from .plan import read_plan
    from .results import read_results
    from .run import Runner

    todo: Plan = read_plan(plan)
    runner = Runner(todo, corpus, output, results, keep_models=keep_models)
    for name, seed in todo.order(only or None, seeds or None):
        runner.run(name, seed)
    show(read_results(results, todo.name))


def show(results: list[dict[str, Any]]) -> None:
    from rich.console import Console

    from .results import SCORES, by_data, summary

    for data, lines in by_data(results).items():
        for score in SCORES:
            table = summary(lines, score, data)
            if table is not None:
                Console().print(table)


def page(
    output: Annotated[Path, typer.Argument(help="HTML file to write")],
    results: Annotated[Path, typer.Option(help="One line a finished run")] = Path(
        "research/results.jsonl"
    ),
) -> None:
    """Write all experiments' runs as a page that needs no network."""
    from spacy_mmcot.files import replace_file

    from .page import render_page
    from .results import read_all_results

    html = render_page(read_all_results(results))
    with replace_file(output) as temporary:
        temporary.write_text(html, encoding="utf-8")
    print(f"✔ {output}")


app.command("run")(plain_errors(run))
app.command("convert")(plain_errors(convert))
app.command("page")(plain_errors(page))
app.command("perturb")(plain_errors(perturb_files))

if __name__ == "__main__":
    app(prog_name="python -m research")

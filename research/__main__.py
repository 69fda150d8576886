"""`python -m research COMMAND`: the studies' plans, corpora and figures."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from research.errors import StudyErrors
from spacy_mmcot.cli.main import plain_errors

from .convert import convert
from .perturb import perturb_files
from .picture_set import ADDRESS

if TYPE_CHECKING:
    from .plan import Plan

app = typer.Typer(help="Studies: trainings over seeds, and their results.", no_args_is_help=True)

ResultsFile = Annotated[Path, typer.Option(help="File with one line per finished run")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the figures here")]
FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results.jsonl"


def run(
    plan: Annotated[Path, typer.Argument(help="YAML file, see research/plans")],
    corpus: Annotated[Path, typer.Argument(help="Folder of .spacy files")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for models")] = (
        FOLDER / "models"
    ),
    results: ResultsFile = RESULTS,
    only: Annotated[
        list[str] | None, typer.Option(help="Runs of the plan, all by default; repeatable")
    ] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Repeatable")] = None,
    keep_models: Annotated[
        bool, typer.Option(help="Have each run's pipeline in the end, even of finished runs")
    ] = False,
) -> None:
    """Run PLAN on CORPUS. Runs that RESULTS has are not repeated, so a stopped plan goes on."""
    from .plan import read_plan
    from .results import read_results
    from .run import Runner

    todo: Plan = read_plan(plan)
    runner = Runner(todo, corpus, output, results, keep_models=keep_models)
    for name, seed in todo.order(only or None, seeds or None):
        runner.run(name, seed)
    print_results(read_results(results, todo.name))


def print_results(results: list[dict[str, Any]]) -> None:
    from rich.console import Console

    from .results import SCORES, by_data, summary

    for data, lines in by_data(results).items():
        for score in SCORES:
            table = summary(lines, score, data)
            if table is not None:
                Console().print(table)


def figures() -> None:
    """Write the tables of docs/PROJECT.md and research/RESULTS.md from metrics and results."""
    from .figures import write_figures

    write_figures()


def ladder(
    speeds: Annotated[
        Path | None, typer.Argument(help="What `python -m benchmarks ladder --json` wrote")
    ] = None,
    plan: Annotated[str, typer.Option(help="Name of the plan")] = "ladder",
    results: ResultsFile = RESULTS,
) -> None:
    """Print the students of a plan as a Markdown table: F1, words/s and MB."""
    from spacy_mmcot.errors import MMCoTError

    from .figures import format_markdown
    from .ladder import make_ladder
    from .results import read_results

    lines = read_results(results, plan)
    if not lines:
        raise MMCoTError(StudyErrors.E719.format(path=results, plan=plan))
    given = None if speeds is None else json_module.loads(speeds.read_text(encoding="utf-8"))
    header, *rows = make_ladder(lines, given)
    print("\n".join(format_markdown([header, ["---"] * len(header), *rows])))


def picture_set(
    folder: Annotated[Path, typer.Argument(help="Gets posts.jsonl and pictures/*.png")],
    address: Annotated[
        str, typer.Option(help="Where to download Debian's package openclipart-png (131 MB)")
    ] = ADDRESS,
    archive: Annotated[
        Path | None, typer.Option(help="The package, where it is already at hand")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all that is chosen")] = 1,
) -> None:
    """Write a corpus of ambiguous names in which the picture alone tells what is meant."""
    from .picture_set import fetch_archive, write_picture_set

    path = write_picture_set(folder, archive or fetch_archive(address, folder), seed=seed)
    print(f"{len(path.read_text('utf-8').splitlines())} posts -> {path}")


def sign_set(
    folder: Annotated[Path, typer.Argument(help="Gets posts.jsonl and pictures/*.png")],
    seed: Annotated[int, typer.Option(help="Of all that is chosen")] = 1,
) -> None:
    """Write a corpus of ambiguous names in which the words on drawn signs tell what is meant."""
    from .sign_set import write_sign_set

    path = write_sign_set(folder, seed=seed)
    print(f"{len(path.read_text('utf-8').splitlines())} posts -> {path}")


def page(
    output: Annotated[Path, typer.Argument(help="HTML file to write")],
    results: ResultsFile = RESULTS,
) -> None:
    """Write the runs of all plans as a page that needs no network."""
    from spacy_mmcot.files import replace_file

    from .page import render_page
    from .results import read_all_results

    html = render_page(read_all_results(results))
    with replace_file(output) as temporary:
        temporary.write_text(html, encoding="utf-8")
    print(f"✔ {output}")


def goals(results: ResultsFile = RESULTS, json: JsonFile = None) -> None:
    """How far the studies reach their goals: means over seeds, F1 in percent."""
    from spacy_mmcot.files import write_json

    from .goals import measure_goals
    from .results import read_all_results

    reached = measure_goals(read_all_results(results))
    for name, (score, seeds, goal) in reached.items():
        digits = 4 if name.endswith("_auc") else 2
        each = ", ".join(
            f"seed {seed}: {value:.{digits}f}" for seed, value in sorted(seeds.items())
        )
        shown = "not run" if score is None else f"{score:.{digits}f} ({each})"
        print(f"{name}: {shown}" + ("" if goal is None else f", goal {goal:g}"))
    if json is not None:
        write_json(json, {name: value.score for name, value in reached.items()})


def review(
    labelled: Annotated[Path, typer.Argument(help=".spacy file with labels and conclusions")],
    dev: Annotated[Path, typer.Argument(help=".spacy file to score on")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for models")],
    counts: Annotated[str, typer.Option(help="Numbers of reviewed texts")] = "50,100,200,400",
    config: Annotated[Path, typer.Option(help="Of the student")] = Path("configs/student_cnn.cfg"),
    steps: Annotated[int, typer.Option(min=1, help="Of each training")] = 600,
    seed: Annotated[int, typer.Option(help="Of the trainings")] = 1,
    json: JsonFile = None,
) -> None:
    """What reviewed texts bring to a student without labels, by number and order."""
    from spacy_mmcot.files import write_json

    from .review import simulate_reviews

    settings = {
        "nlp.pipeline": [p for p in spacy_pipeline(config) if p != "mmcot_rel"],
        "training.optimizer.learn_rate.total_steps": steps,
        "training.eval_frequency": steps,
        "system.seed": seed,
    }
    numbers = [int(count) for count in counts.split(",")]
    rows = []
    for row in simulate_reviews(labelled, dev, output, numbers, config, settings):
        print(f"{row['order']:>6} {row['reviewed']:4} reviewed: F1 {100 * row['ents_f']:.2f}")
        rows.append({**row, "seed": seed, "steps": steps})
        if json is not None:
            write_json(json, rows)


def spacy_pipeline(config: Path) -> list[str]:
    from spacy.util import load_config

    return list(load_config(config)["nlp"]["pipeline"])


for _function in (run, convert, page, figures, goals, ladder, picture_set, sign_set, review):
    app.command(_function.__name__.replace("_", "-"))(plain_errors(_function))
app.command("perturb")(plain_errors(perturb_files))

if __name__ == "__main__":
    app(prog_name="python -m research")

"""`compare` and `cascade`: what predictions files say about pipelines on the same docs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import Errors, UsageError
from ..messages import print_table

_TITLES = {"ents": "entities, strict", "rel_e2e": "relations, end to end"}


def compare(
    baseline: Annotated[Path, typer.Argument(help="File written by evaluate --predictions")],
    student: Annotated[Path, typer.Argument(help="Another one, on the same docs")],
    resamples: Annotated[int, typer.Option(min=1, help="Number of resamples")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling")] = 0,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the figures here")] = None,
) -> None:
    """Compare the micro F1 of two pipelines on the same labelled docs by a paired bootstrap over
    docs: the difference, its 95% interval and p-value."""
    from ..evaluation.compare import compare_files
    from ..files import write_json

    compared = compare_files(baseline, student, resamples=resamples, seed=seed)
    results = compared.values()
    rows = [
        ("baseline", *(f"{100 * c.baseline_f:.2f}" for c in results)),
        ("student", *(f"{100 * c.student_f:.2f}" for c in results)),
        ("difference", *(f"{100 * c.difference:+.2f}" for c in results)),
        ("95% interval", *(f"{100 * c.low:+.2f} to {100 * c.high:+.2f}" for c in results)),
        ("p, two-sided", *(f"{c.p:.4f}" for c in results)),
        ("docs", *(c.docs for c in results)),
    ]
    print_table(["F1", *(_TITLES[task] for task in compared)], rows)
    print(f"Paired bootstrap, {resamples} resamples of the docs, seed {seed}")
    if json is not None:
        figures = {
            "baseline": str(baseline),
            "student": str(student),
            "resamples": resamples,
            "seed": seed,
            **{task: comparison._asdict() for task, comparison in compared.items()},
        }
        write_json(json, figures)


def cascade(
    predictions: Annotated[
        Path, typer.Argument(help="File written by evaluate --predictions, best on the dev split")
    ],
    llm_f: Annotated[
        float | None, typer.Option(min=0, max=1, help="The LLM's measured F1 on such docs")
    ] = None,
    llm_predictions: Annotated[
        Path | None, typer.Option(help="The LLM's predictions on the same docs, in the same format")
    ] = None,
    cost_per_doc: Annotated[
        float | None, typer.Option(min=0.0, help="Cost of the LLM per doc, in USD")
    ] = None,
    target_f: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Send the fewest docs for this F1. Default: the LLM's own"),
    ] = None,
    budget_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Send as many docs as this share allows")
    ] = None,
    by: Annotated[
        Literal["confidence", "weakest"],
        typer.Option(help="Confidence of the whole doc, or of its least certain sentence"),
    ] = "confidence",
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Show this threshold")
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="Also write curve and figures here")
    ] = None,
) -> None:
    """Show the quality of a pipeline on the docs it is confident about, and find the threshold of
    `doc._.mmcot_confidence` (or `doc._.mmcot_weakest`) below which docs should be sent to an LLM.
    F1 is the strict one of entities. The F1 of pipeline and LLM together is known only with
    --llm-predictions."""
    from ..evaluation.cascade import CascadeSettings, plan_cascade
    from ..files import write_json

    _check_options({"--llm-f": llm_f, "--llm-predictions": llm_predictions})
    _check_options(
        {"--target-f": target_f, "--budget-share": budget_share, "--threshold": threshold}
    )
    settings = CascadeSettings(target_f, budget_share, threshold, llm_f, cost_per_doc, by)
    figures = plan_cascade(predictions, settings, llm_predictions)
    _print_steps(figures)
    print(_format_summary(figures))
    if json is not None:
        write_json(json, figures)
    if figures["chosen"] is not None:
        print(_format_choice(figures["chosen"], figures["by"]))
    elif figures["llm_f"] is not None:
        print("chosen: none, on no share of the docs is the pipeline as good as the LLM")


def _check_options(options: Mapping[str, Any]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise UsageError(Errors.E804.format(options=" and ".join(given)))


def _print_steps(figures: Mapping[str, Any]) -> None:
    """The table of the thresholds."""
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "threshold": lambda step: "all" if step["threshold"] is None else str(step["threshold"]),
        "sent": lambda step: _percent(step["sent"], 1, "%"),
        "F1 of kept": lambda step: _percent(step["f"]),
        "kept wrong": lambda step: _percent(step["error_rate"], 1, "%"),
    }
    if figures["llm_measured"]:
        columns["F1 with LLM"] = lambda step: _percent(step["cascade_f"])
    if figures["cost_per_doc"] is not None:
        columns["USD/1,000"] = lambda step: f"{step['cost_per_1000']:.2f}"
    print("Cascade: docs below the threshold go to the LLM")
    print_table(list(columns), [[show(x) for show in columns.values()] for x in figures["steps"]])


def _format_summary(figures: Mapping[str, Any]) -> str:
    parts = [
        f"{figures['docs']} docs",
        f"area under the risk-coverage curve {100 * figures['aurc']:.2f}",
        f"without order {100 * figures['error_rate']:.2f}",
    ]
    if figures["llm_f"] is not None:
        origin = "measured" if figures["llm_measured"] else "as given"
        parts.append(f"F1 of the LLM {_percent(figures['llm_f'])} ({origin})")
    return ", ".join(parts)


def _format_choice(chosen: Mapping[str, Any], by: str) -> str:
    if chosen["threshold"] is None:
        line = "chosen: send all docs"
    elif not chosen["sent"]:
        line = "chosen: send none of these docs"
    else:
        line = f"chosen: send docs with doc._.mmcot_{by} < {chosen['threshold']}"
    line += f": {100 * chosen['sent']:.1f}% of docs, F1 of the kept {_percent(chosen['f'])}"
    if chosen["cascade_f"] is not None:
        line += f", with the LLM {_percent(chosen['cascade_f'])}"
    if chosen["cost_per_1000"] is not None:
        line += f", {chosen['cost_per_1000']:.2f} USD per 1,000 docs"
    return line


def _percent(score: float | None, digits: int = 2, unit: str = "") -> str:
    return "" if score is None else f"{100 * score:.{digits}f}{unit}"

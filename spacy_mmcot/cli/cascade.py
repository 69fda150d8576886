"""`cascade`: what a threshold of the confidence costs and gives where an LLM answers below it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from ..evaluation.predictions import Predicted
    from ..evaluation.scores import Counts
    from ..evaluation.selective import Confidences, Point

_STEPS = 10


def cascade(
    predictions: Annotated[
        Path, typer.Argument(help="File that evaluate --predictions wrote, best of the dev split")
    ],
    llm_f: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="The LLM's F1 on such docs, as you measured it"),
    ] = None,
    llm_predictions: Annotated[
        Path | None, typer.Option(help="What the LLM finds in the same docs, in the same format")
    ] = None,
    cost_per_doc: Annotated[
        float | None, typer.Option(min=0.0, help="What the LLM takes for a doc, in USD")
    ] = None,
    target_f: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Choose the threshold that sends the fewest docs and gives this F1; the LLM's "
            "own by default, where it is known",
        ),
    ] = None,
    budget_share: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Send as many docs as this share allows"),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Look at this threshold")
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="Also write curve and figures here")
    ] = None,
) -> None:
    """Show what a pipeline is worth on the docs that it is sure about, and find the threshold of
    `doc._.mmcot_confidence` below which a doc should go to an LLM. F1 is the strict one of
    entities. The F1 of both together is known only with --llm-predictions."""
    from rich.console import Console

    from ..evaluation.scores import entity_counts, f_scores
    from ..evaluation.selective import best, risk_coverage
    from ..files import write_json

    _check_options(
        {"--llm-f": llm_f, "--llm-predictions": llm_predictions},
        {"--target-f": target_f, "--budget-share": budget_share, "--threshold": threshold},
    )
    docs, llm_docs, confidence = _read(predictions, llm_predictions)
    counts = entity_counts(docs)
    llm_counts = None if llm_docs is None else entity_counts(llm_docs)
    if llm_counts is not None:
        llm_f = float(f_scores(llm_counts.sum(axis=0)))
    asked = target_f
    if target_f is None and budget_share is None and threshold is None:
        target_f = llm_f
    points = risk_coverage(confidence, counts, llm_counts)
    chosen = _chosen(points, confidence, target_f, budget_share, threshold)
    figures = _figures(confidence, counts, points, chosen, llm_f, cost_per_doc)
    figures["llm_measured"] = llm_counts is not None
    console = Console()
    console.print(_table(_steps(points), cost_per_doc, measured=llm_counts is not None))
    console.print(_summary(figures))
    if json is not None:
        write_json(json, figures)
    if chosen is not None:
        console.print(_choice(figures["chosen"]))
    elif asked is not None:
        raise _unreached(asked, best(points))
    elif target_f is not None:
        console.print("chosen: none, on no share of the docs is the pipeline as good as the LLM")


def _check_options(*rivals: dict[str, Any]) -> None:
    from ..errors import Errors, UsageError

    for options in rivals:
        given = [name for name, value in options.items() if value is not None]
        if len(given) > 1:
            raise UsageError(Errors.E804.format(options=" and ".join(given)))


def _read(
    predictions: Path, llm_predictions: Path | None
) -> tuple[list[Predicted], list[Predicted] | None, Confidences]:
    """The labelled docs, the LLM's in the same order, and the confidences, (docs,)."""
    import numpy

    from ..errors import Errors, MMCoTError
    from ..evaluation.compare import in_order_of
    from ..evaluation.predictions import read_predictions

    every = read_predictions(predictions)
    docs = [doc for doc in every if doc.gold is not None]
    if not docs:
        raise MMCoTError(Errors.E805.format(path=predictions))
    unsure = next((doc for doc in docs if doc.confidence is None), None)
    if unsure is not None:
        raise MMCoTError(Errors.E806.format(path=predictions, id=unsure.id))
    llm_docs = None
    if llm_predictions is not None:
        paths = (predictions, llm_predictions)
        matched = in_order_of(every, read_predictions(llm_predictions), paths=paths)
        # The LLM's file may leave the gold labels out.
        llm_docs = [
            answer.model_copy(update={"gold": doc.gold})
            for doc, answer in zip(every, matched, strict=True)
            if doc.gold is not None
        ]
    return docs, llm_docs, numpy.array([doc.confidence for doc in docs], dtype="float64")


def _chosen(
    points: list[Point],
    confidence: Confidences,
    target_f: float | None,
    budget_share: float | None,
    threshold: float | None,
) -> Point | None:
    from ..evaluation.selective import at_threshold, reaching, within_budget

    if threshold is not None:
        return at_threshold(points, confidence, threshold)
    if budget_share is not None:
        return within_budget(points, budget_share)
    return None if target_f is None else reaching(points, target_f)


def _steps(points: list[Point]) -> list[Point]:
    """The points nearest below 0%, 10%, ... 100% sent, each once."""
    from ..evaluation.selective import within_budget

    return list(dict.fromkeys(within_budget(points, i / _STEPS) for i in range(_STEPS + 1)))


def _figures(
    confidence: Confidences,
    counts: Counts,
    points: list[Point],
    chosen: Point | None,
    llm_f: float | None,
    cost_per_doc: float | None,
) -> dict[str, Any]:
    from dataclasses import asdict

    from ..evaluation.selective import aurc, best_aurc

    def priced(point: Point) -> dict[str, Any]:
        cost = None if cost_per_doc is None else 1000 * cost_per_doc
        return {
            **asdict(point),
            "cost_per_1000": None if cost is None else point.sent * cost,
            "saved_per_1000": None if cost is None else point.coverage * cost,
        }

    return {
        "docs": len(confidence),
        "f": points[0].f,
        "error_rate": points[0].error_rate,
        "aurc": aurc(confidence, counts),
        "aurc_best": best_aurc(counts),
        "llm_f": llm_f,
        "cost_per_doc": cost_per_doc,
        "chosen": None if chosen is None else priced(chosen),
        "steps": [priced(point) for point in _steps(points)],
        "curve": [asdict(point) for point in points],
    }


def _table(steps: list[Point], cost_per_doc: float | None, *, measured: bool) -> Table:
    from rich.table import Table

    columns = ["threshold", "sent", "F1 of kept", "kept wrong"]
    columns += ["F1 with LLM"] if measured else []
    columns += [] if cost_per_doc is None else ["USD/1,000", "saved"]
    table = Table(*columns, title="Cascade: docs below the threshold go to the LLM")
    for point in steps:
        cells = ["all" if point.threshold is None else str(point.threshold)]
        wrong = "" if point.error_rate is None else f"{100 * point.error_rate:.1f}%"
        cells += [f"{100 * point.sent:.1f}%", _percent(point.f), wrong]
        cells += [_percent(point.cascade_f)] if measured else []
        if cost_per_doc is not None:
            cells += [
                f"{1000 * cost_per_doc * share:.2f}" for share in (point.sent, point.coverage)
            ]
        table.add_row(*cells)
    return table


def _summary(figures: dict[str, Any]) -> str:
    parts = [
        f"{figures['docs']} docs",
        f"area under the risk-coverage curve {100 * figures['aurc']:.2f}",
        f"best possible {100 * figures['aurc_best']:.2f}",
        f"without order {100 * figures['error_rate']:.2f}",
    ]
    if figures["llm_f"] is not None:
        origin = "measured" if figures["llm_measured"] else "as given"
        parts.append(f"F1 of the LLM {_percent(figures['llm_f'])} ({origin})")
    return ", ".join(parts)


def _choice(chosen: dict[str, Any]) -> str:
    if chosen["threshold"] is None:
        line = "chosen: send all docs"
    elif not chosen["sent"]:
        line = "chosen: send none of these docs"
    else:
        line = f"chosen: send docs with doc._.mmcot_confidence < {chosen['threshold']}"
    line += f": {100 * chosen['sent']:.1f}% of docs, F1 of the kept {_percent(chosen['f'])}"
    if chosen["cascade_f"] is not None:
        line += f", with the LLM {_percent(chosen['cascade_f'])}"
    if chosen["cost_per_1000"] is not None:
        line += (
            f", {chosen['cost_per_1000']:.2f} USD per 1,000 docs, "
            f"{chosen['saved_per_1000']:.2f} saved"
        )
    return line


def _unreached(target_f: float, point: Point) -> Exception:
    from ..errors import Errors, MMCoTError

    place = "all docs sent" if point.threshold is None else f"the threshold {point.threshold}"
    return MMCoTError(
        Errors.E807.format(target=target_f, best=point.quality or 0.0, threshold=place)
    )


def _percent(score: float | None) -> str:
    return "" if score is None else f"{100 * score:.2f}"

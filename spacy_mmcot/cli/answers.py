"""`answers`: what a store holds, brought out and in, and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="A store's answers, out, in, and what they cost.", no_args_is_help=True)

StoreArgument = Annotated[Path, typer.Argument(help="Answers store (.sqlite).")]


def export_answers(
    store: StoreArgument,
    output: Annotated[Path, typer.Argument(help="Where the answers go (.jsonl).")],
) -> None:
    """Write all answers of a store, the rejected ones too, a JSON object a line."""
    from ..elicitation.store import AnswerStore
    from ..elicitation.store import export_answers as write

    with AnswerStore(store, read_only=True) as opened:
        print(f"{write(opened, output)} answers written to {output}.")


def import_answers(
    store: StoreArgument,
    exported: Annotated[Path, typer.Argument(help="Answers that `export` wrote (.jsonl).")],
) -> None:
    """Add an export's answers to a store; those it has already stay."""
    from ..elicitation.store import AnswerStore
    from ..elicitation.store import import_answers as read

    with AnswerStore(store) as opened:
        print(f"{read(opened, exported)} answers added to {store}.")


def spend(store: StoreArgument) -> None:
    """What was spent, by run, model and dimension."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from ..elicitation.claims import Spend, spends
    from ..elicitation.store import AnswerStore

    with AnswerStore(store, read_only=True) as opened:
        rows = spends(opened)
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for name in Spend._fields:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(
            *(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row)
        )
    Console().print(table)
    print(f"{sum(row.cost + row.unconfirmed for row in rows):.4f} in all.")

"""`answers`: a store's answers, exported and imported, and what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .elicit import print_table

app = typer.Typer(
    help="Export or import a store's answers, or show their cost.", no_args_is_help=True
)

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
    from ..elicitation.claims import Spend, read_spend
    from ..elicitation.store import AnswerStore

    with AnswerStore(store, read_only=True) as opened:
        rows = read_spend(opened)
    print_table([name.replace("_", " ") for name in Spend._fields], rows, names=4)
    print(f"{sum(row.cost + row.unconfirmed for row in rows):.4f} in all.")

"""`answers`: a store's answers, exported and imported, and what they cost; `augment`: more training
posts from an LLM's augmentations."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..messages import escape_control, print_table
from ..types import AUGMENTATIONS, Augmentation, Task

if TYPE_CHECKING:
    from ..corpus.augment import Tally

_SHOWN = 5

app = typer.Typer(
    help="Export or import a store's answers, or show their cost.", no_args_is_help=True
)
StoreArgument = Annotated[Path, typer.Argument(help="Answers store (.sqlite).")]
# typer takes enums for options that repeat, not Literals.
AugmentationChoice = StrEnum("AugmentationChoice", AUGMENTATIONS)  # type: ignore[misc]


def export_answers(
    store: StoreArgument,
    output: Annotated[Path, typer.Argument(help="Where the answers go (.jsonl).")],
) -> None:
    """Write all answers of a store, the rejected ones too, a JSON object a line."""
    from ..elicitation import store as answers

    with answers.AnswerStore(store, read_only=True) as opened:
        print(f"{answers.export_answers(opened, output)} answers written to {output}.")


def import_answers(
    store: StoreArgument,
    exported: Annotated[Path, typer.Argument(help="Answers that `export` wrote (.jsonl).")],
) -> None:
    """Add an export's answers to a store; those it has already stay, unless they were rejected and
    the export's are good."""
    from ..elicitation import store as answers

    with answers.AnswerStore(store) as opened:
        print(f"{answers.import_answers(opened, exported)} answers added to {store}.")


def spend(store: StoreArgument) -> None:
    """What was spent, by run, model and dimension."""
    from ..elicitation.money import Spend, read_spend
    from ..elicitation.store import AnswerStore

    with AnswerStore(store, read_only=True) as opened:
        rows = read_spend(opened)
    headings = [name.replace("_", " ") for name in Spend._fields[:-2]]
    headings += ["USD", "USD, unconfirmed"]
    # The ledger of a model without a price has tokens and no money.
    table = [
        row if row.cost or row.unconfirmed else (*row[:-2], "unpriced", "unpriced") for row in rows
    ]
    print_table(headings, table, names=4)
    print(f"{sum(row.cost + row.unconfirmed for row in rows):.4f} USD in all.")


def augment(
    posts: Annotated[Path, typer.Argument(help="Posts file (.jsonl).")],
    answers: Annotated[Path, typer.Argument(help="Store (.sqlite) or recorded answers (.jsonl).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The new posts (.jsonl).")],
    answers_out: Annotated[Path, typer.Option(help="What is still known about them (.jsonl).")],
    dimension: Annotated[
        list[AugmentationChoice] | None,
        typer.Option(help="Which augmentations; repeatable. Default: style and entity."),
    ] = None,
    task: Annotated[Task, typer.Option(help="Which answers of a store.")] = "ner",
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave invalid rows out and list them.")
    ] = False,
) -> None:
    """Make new training posts from the labelled ones and an LLM's augmentations of them.

    Labels follow their mentions into the new text; where that is not certain, no post is made.
    """
    from ..corpus.augment import augment as make
    from ..corpus.augment import list_sources
    from ..corpus.formats import read_rows
    from ..corpus.posts import Findings, ReadSettings, make_image_relative, write_posts
    from ..elicitation.store import count_variants, load_answers
    from ..files import write_records

    findings = Findings(skip_invalid)
    dimensions = [x for x in AUGMENTATIONS if x in (dimension or ("style", "entity"))]
    old = [row.post for row in read_rows(posts, findings, {}, ReadSettings("posts"))]
    first, *others = (load_answers(answers, task, i) for i in range(count_variants(answers, task)))
    labelled = list_sources(old)
    made, tallies = make(labelled, first, dimensions, others)
    write_posts(output, (make_image_relative(new.post, output.parent) for new in made))
    write_records(answers_out, (new.answers for new in made if new.answers))
    for line in findings.describe():
        print(line)
    print(f"{len(labelled)} of {len(old)} posts are training posts with all labels.")
    _print_summary(tallies)
    print(f"{len(made)} new posts are in {output}, what is known about them in {answers_out}.")


def _print_summary(tallies: Mapping[Augmentation, Tally]) -> None:
    counts = [
        (name, t.made, t.unanswered, t.impossible, sum(map(len, t.rejected.values())))
        for name, t in tallies.items()
    ]
    print_table(["dimension", "made", "no answer", "impossible", "rejected"], counts)
    for name, tally in tallies.items():
        for reason, ids in tally.rejected.items():
            more = "" if len(ids) <= _SHOWN else ", ..."
            shown = escape_control(", ".join(ids[:_SHOWN]))
            print(f"{name}, rejected: {reason}: {len(ids)} ({shown}{more})")

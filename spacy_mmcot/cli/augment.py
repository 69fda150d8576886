"""`augment`: more training posts from an LLM's rewritings."""

from __future__ import annotations

from enum import Enum
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..types import AUGMENTATIONS, Augmentation, Task
from .elicit import print_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..corpus.augment import Tally
    from ..types import Answers

_SHOWN = 5

# typer takes enums for options that repeat, not Literals.
AugmentationChoice = Enum(  # type: ignore[misc]
    "AugmentationChoice", {name: name for name in AUGMENTATIONS}, type=str
)


def augment(
    posts: Annotated[Path, typer.Argument(help="Posts file (.jsonl).")],
    answers: Annotated[
        Path, typer.Argument(help="Answers store (.sqlite) or recorded answers (.jsonl).")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the new posts go (.jsonl).")
    ],
    answers_out: Annotated[
        Path, typer.Option(help="Where what is still known about the new posts goes (.jsonl).")
    ],
    dimension: Annotated[
        list[AugmentationChoice] | None,
        typer.Option(help="Which rewritings; repeat it for several. style and entity by default."),
    ] = None,
    task: Annotated[Task, typer.Option(help="Which answers of a store.")] = "ner",
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave invalid rows out and list them.")
    ] = False,
) -> None:
    """Make new training posts from the labelled ones and an LLM's rewritings of them.

    Labels follow their mentions into the new text; where that is not certain, no post is made.
    """
    from ..corpus.augment import augment as make
    from ..corpus.formats import make_image_relative, read_rows
    from ..corpus.posts import Findings, ReadSettings, write_posts, write_records

    findings = Findings(skip_invalid)
    names = {choice.value for choice in dimension} if dimension else {"style", "entity"}
    dimensions = [name for name in AUGMENTATIONS if name in names]
    old = [row.post for row in read_rows(posts, findings, set(), ReadSettings("posts"))]
    first, *others = _variants(answers, task)
    made, tallies = make(old, first, dimensions, others)
    write_posts(output, (make_image_relative(new.post, output.parent) for new in made))
    write_records(answers_out, (new.answers for new in made if new.answers))
    for line in findings.describe():
        print(line)
    _print_summary(tallies)
    print(f"{len(made)} new posts are in {output}, what is known about them in {answers_out}.")


def _variants(path: Path, task: Task) -> Iterator[Mapping[str, Answers]]:
    """The answers with each post's first rewritings, then with its second ones, and so on."""
    from ..elicitation.store import load_answers

    for variant in count():
        found = load_answers(path, task, variant)
        rewritten = any(getattr(a, name) for a in found.values() for name in AUGMENTATIONS)
        if variant and not rewritten:
            return
        yield found


def _print_summary(tallies: Mapping[Augmentation, Tally]) -> None:
    counts = [
        (name, t.made, t.unanswered, t.impossible, sum(map(len, t.rejected.values())))
        for name, t in tallies.items()
    ]
    print_table(["dimension", "made", "no answer", "impossible", "rejected"], counts)
    for name, tally in tallies.items():
        for reason, ids in tally.rejected.items():
            more = "" if len(ids) <= _SHOWN else ", ..."
            print(f"{name}, rejected: {reason}: {len(ids)} ({', '.join(ids[:_SHOWN])}{more})")

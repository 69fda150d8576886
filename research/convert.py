"""`convert`: the public corpora, with the files beside them, as posts and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spacy_mmcot.cli.convert import FormatName, attach_answers, print_summary
from spacy_mmcot.types import Split, Task


def convert(
    inputs: Annotated[list[Path], typer.Argument(help="Corpus files.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Posts file to write (.jsonl).")],
    answers_out: Annotated[
        Path | None, typer.Option(help="Recorded answers to write (.jsonl).")
    ] = None,
    format: Annotated[FormatName, typer.Option(help="Format of the input.")] = "auto",
    split: Annotated[
        Split | None, typer.Option(help="Split of all posts, instead of their own.")
    ] = None,
    only: Annotated[
        Split | None,
        typer.Option(help="Leave out posts of other splits; --split applies after it."),
    ] = None,
    domain: Annotated[
        list[str] | None, typer.Option(help="Leave out posts of other domains; repeatable.")
    ] = None,
    rename_label: Annotated[
        list[str] | None,
        typer.Option(help="OLD=NEW: another name for an entity label; repeatable."),
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(
            help='JSON {"posts": \\[row numbers from 0]}: the other rows become unlabelled. JSON '
            '{"labelled": \\[...], "unlabelled": \\[...]}: the other rows are left out.'
        ),
    ] = None,
    fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of the train split that stays labelled, such as 0.05; the rest becomes "
            "unlabelled. A larger share contains a smaller one. Rows that --labelled names come "
            "first.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw for --fraction.")] = 1,
    knowledge: Annotated[
        Path | None,
        typer.Option(help="Recorded knowledge of the Twitter corpora or MNRE, by row number."),
    ] = None,
    conclusions: Annotated[
        Path | None, typer.Option(help="Recorded conclusions of the rows, by row number.")
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(help="Rows that the LLM was shown: their --conclusions are left out."),
    ] = None,
    all_concluded: Annotated[
        bool,
        typer.Option(
            "--all-concluded",
            help="Also take, as unlabelled, rows that --conclusions alone names.",
        ),
    ] = False,
    augmentations: Annotated[
        Path | None, typer.Option(help="Recorded augmentations of the posts, by row number.")
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(help="Answers store (.sqlite) or recorded answers (.jsonl) to add."),
    ] = None,
    task: Annotated[Task, typer.Option(help="Which answers of a store.")] = "ner",
    repair_bio: Annotated[
        bool,
        typer.Option("--repair-bio", help="Read an I- tag that continues no entity as B-."),
    ] = False,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave invalid rows out and list them.")
    ] = False,
) -> None:
    """Convert a public corpus to a posts file, with the files that name its rows by number.

    `spacy-mmcot convert` makes Docs of the result.
    """
    from spacy_mmcot.corpus.formats import read_corpus
    from spacy_mmcot.corpus.posts import Findings, ReadSettings, make_image_relative, write_posts
    from spacy_mmcot.files import write_records

    from .join_rows import join_rows
    from .selection import (
        label_fraction,
        parse_renaming,
        rename_labels,
        select_domains,
        select_split,
    )
    from .side_files import (
        attach_augmentations,
        attach_conclusions,
        attach_knowledge,
        read_concluded_numbers,
        read_row_numbers,
        split_rows,
    )

    names = parse_renaming(rename_label or [])
    findings = Findings(skip_invalid)
    chosen = None if format == "auto" else format
    settings = ReadSettings(chosen, None if only else split, repair_bio)
    rows = read_corpus(inputs, findings, settings)
    if only:
        rows = select_split(rows, only, split or only)
    if domain:
        rows = select_domains(rows, domain)
    if names:
        rows = rename_labels(rows, names)
    if fraction is not None:
        first = read_row_numbers(labelled, rows, findings) if labelled else []
        rows = label_fraction(rows, fraction, seed, first)
    elif labelled:
        further = read_concluded_numbers(conclusions, findings) if all_concluded else ()
        rows = split_rows(labelled, rows, findings, further)
    if knowledge:
        rows = attach_knowledge(knowledge, rows, findings)
    if conclusions:
        rows = attach_conclusions(conclusions, rows, findings, examples)
    if augmentations:
        rows = attach_augmentations(augmentations, rows, findings)
    rows = join_rows(rows, findings)
    if answers:
        rows = attach_answers(rows, [answers], task, findings)
    write_posts(output, (make_image_relative(row.post, output.parent) for row in rows))
    if answers_out:
        write_records(answers_out, (row.answers for row in rows if row.answers))
    print_summary(rows, findings)
    print(f"Posts are in {output}.")

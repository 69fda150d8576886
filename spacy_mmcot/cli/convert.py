"""`convert`: corpus files in, posts or spaCy Docs out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import Errors, MMCoTError
from ..types import SPLITS, Answers, Split, Task

if TYPE_CHECKING:
    from spacy.tokens import Doc

    from ..corpus.convert import Tokenizer
    from ..corpus.findings import Findings
    from ..corpus.rows import Row


def convert(
    inputs: Annotated[list[Path], typer.Argument(help="Corpus files, or folders of .spacy files.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="NAME.jsonl for posts, NAME.spacy for one file of Docs, else a folder with a "
            ".spacy file for each split.",
        ),
    ],
    format: Annotated[
        Literal["auto", "posts", "conll", "prodigy", "spacy"],
        typer.Option(help="Format of the inputs."),
    ] = "auto",
    split: Annotated[
        Split | None, typer.Option(help="Split of all posts, instead of their own.")
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(
            help='JSON {"posts": \\[row numbers from 0]}: the other rows of the input become '
            "unlabelled."
        ),
    ] = None,
    knowledge: Annotated[
        Path | None,
        typer.Option(help="Recorded knowledge of the Twitter corpora, by row of the input."),
    ] = None,
    answers: Annotated[
        list[Path] | None,
        typer.Option(
            help="Answers store (.sqlite) or recorded answers (.jsonl); repeat it for several, of "
            "which later ones win."
        ),
    ] = None,
    answers_out: Annotated[
        Path | None, typer.Option(help="Write all answers about the posts to this .jsonl file.")
    ] = None,
    task: Annotated[Task, typer.Option(help="Which answers of a store.")] = "ner",
    tokenizer: Annotated[
        Literal["spacy", "whitespace"],
        typer.Option(help="spaCy's tokens, or those between spaces for pre-tokenised text."),
    ] = "spacy",
    lang: Annotated[str, typer.Option(help="Language code of the tokenizer.")] = "en",
    repair_bio: Annotated[
        bool,
        typer.Option("--repair-bio", help="Read an I- tag that continues no entity as B-."),
    ] = False,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave broken rows out and list them.")
    ] = False,
) -> None:
    """Convert a corpus to posts or to spaCy's training format.

    Reads posts and Prodigy's JSON Lines, CoNLL with IMGID lines, and .spacy files.
    """
    from ..corpus import sidecars, sources
    from ..corpus.findings import Findings
    from ..elicitation.listing import parse_listing

    if len(inputs) > 1 and (labelled or knowledge):
        raise MMCoTError(Errors.E710.format(count=len(inputs)))
    findings = Findings(skip_invalid)
    ids: set[str] = set()
    rows: list[Row] = []
    for path in inputs:
        rows += sources.read_rows(
            path,
            findings,
            ids,
            format=None if format == "auto" else format,
            split=split,
            repair_bio=repair_bio,
        )
    if not rows:
        for line in findings.lines():
            print(line, file=sys.stderr)
        raise MMCoTError(Errors.E711.format(paths=", ".join(map(str, inputs))))
    if labelled:
        rows = sidecars.mark_unlabelled(labelled, rows, findings)
    if knowledge:
        rows = sidecars.attach_knowledge(knowledge, rows, parse_listing, findings)
    rows = _with_answers(rows, answers or [], task, findings)

    if output.suffix == ".jsonl":
        _write_posts(output, rows)
    else:
        _write_docs(output, rows, lang, tokenizer, findings)
    if answers_out:
        from ..corpus.jsonl import write_records

        count = write_records(answers_out, (row.answers for row in rows if row.answers))
        print(f"Answers about {count} posts are in {answers_out}.")
    _print_summary(rows, findings)
    print(f"Posts are in {output}.")


def _with_answers(rows: list[Row], paths: list[Path], task: Task, findings: Findings) -> list[Row]:
    from ..corpus.sidecars import merge_answers
    from ..elicitation.store import load_answers

    for path in paths:
        found = load_answers(path, task)
        rows = [
            row._replace(answers=merge_answers(row.answers, found.get(row.post.id))) for row in rows
        ]
        if found and not found.keys() & {row.post.id for row in rows}:
            findings.lose("answers files that speak of none of the posts", str(path))
    return rows


def _write_posts(output: Path, rows: list[Row]) -> None:
    from ..corpus.formats import write_posts
    from ..corpus.sources import relative_image

    write_posts(output, (relative_image(row.post, output.parent) for row in rows))


def _write_docs(
    output: Path, rows: list[Row], lang: str, tokenizer: Tokenizer, findings: Findings
) -> None:
    import spacy

    from ..corpus.convert import to_doc
    from ..corpus.docbin import SUFFIX, write_docs

    try:
        nlp = spacy.blank(lang)
    except ImportError as error:
        raise MMCoTError(Errors.E712.format(lang=lang, reason=error)) from None
    docs: dict[str, list[Doc]] = {}
    for row in rows:
        doc = to_doc(nlp, row.post, row.answers, tokenizer=tokenizer, findings=findings)
        name = output.stem if output.suffix == SUFFIX else row.post.split
        docs.setdefault(name, []).append(doc)
    folder = output.parent if output.suffix == SUFFIX else output
    for name, group in docs.items():
        write_docs(folder / f"{name}{SUFFIX}", group)


def _print_summary(rows: list[Row], findings: Findings) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    columns: dict[str, Callable[[Row], int]] = {
        "posts": lambda row: 1,
        "entities": lambda row: 0 if _hidden(row) else len(row.post.entities or []),
        "relations": lambda row: 0 if _hidden(row) else len(row.post.relations or []),
        "no labels": _hidden,
        "knowledge": lambda row: _has_knowledge(row.answers),
        "caption": lambda row: bool(row.post.caption),
        "picture": lambda row: bool(row.post.image),
    }
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("split", no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    groups = {name: [row for row in rows if row.post.split == name] for name in SPLITS}
    for name, group in [*groups.items(), ("all", rows)]:
        if name == "all":
            table.add_section()
        if group:
            table.add_row(name, *(str(sum(map(count, group))) for count in columns.values()))
    Console().print(table)
    for line in findings.lines():
        print(line)


def _hidden(row: Row) -> bool:
    return row.post.entities is None or row.post.split == "unlabelled"


def _has_knowledge(answers: Answers | None) -> bool:
    from ..types import KNOWLEDGE

    return answers is not None and any(getattr(answers, name) is not None for name in KNOWLEDGE)

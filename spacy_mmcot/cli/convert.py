"""`convert`: corpus files in, posts or spaCy Docs out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import Errors, MMCoTError
from ..types import SPLITS, Answers, Split, Task, merge_answers

if TYPE_CHECKING:
    from spacy.tokens import Doc

    from ..corpus.convert import Tokenizer
    from ..corpus.rows import Findings, Row

FormatName = Literal["auto", "posts", "conll", "mnre", "prodigy", "spacy"]


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
    format: Annotated[FormatName, typer.Option(help="Format of the inputs.")] = "auto",
    split: Annotated[
        Split | None, typer.Option(help="Split of all posts, instead of their own.")
    ] = None,
    only: Annotated[
        Split | None,
        typer.Option(help="Leave out posts of other splits than this; --split applies after it."),
    ] = None,
    fraction: Annotated[
        float | None,
        typer.Option(
            help="How much of the train split stays labelled, such as 0.05; the rest becomes "
            "unlabelled. Smaller parts lie in larger ones.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw that --fraction makes.")] = 1,
    domain: Annotated[
        list[str] | None,
        typer.Option(help="Leave out posts of other domains than this; repeatable."),
    ] = None,
    rename_label: Annotated[
        list[str] | None,
        typer.Option(help="OLD=NEW: another name for an entity label; repeatable."),
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
    keep_mentions: Annotated[
        bool,
        typer.Option(
            "--keep-mentions",
            help="Docs of unlabelled posts keep their entities, for corpora whose mentions are "
            "given and whose relations are sought.",
        ),
    ] = False,
    repair_bio: Annotated[
        bool,
        typer.Option("--repair-bio", help="Read an I- tag that continues no entity as B-."),
    ] = False,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave broken rows out and list them.")
    ] = False,
) -> None:
    """Convert a corpus to posts or to spaCy's training format.

    Reads posts and Prodigy's JSON Lines, CoNLL with IMGID lines, MNRE rows, and .spacy files.
    """
    from ..corpus import convert as selection
    from ..corpus import formats as sources
    from ..corpus.mnre import join_rows
    from ..corpus.rows import Findings

    names = selection.parse_renaming(rename_label or [])
    findings = Findings(skip_invalid)
    ids: set[str] = set()
    rows: list[Row] = []
    for path in inputs:
        rows += sources.read_rows(
            path,
            findings,
            ids,
            format=None if format == "auto" else format,
            split=split if only is None else None,
            repair_bio=repair_bio,
        )
    if only is not None:
        rows = [row for row in rows if row.post.split == only]
        update = {"split": split or only}
        rows = [row._replace(post=row.post.model_copy(update=update)) for row in rows]
    if not rows:
        for line in findings.lines():
            print(line, file=sys.stderr)
        raise MMCoTError(Errors.E711.format(paths=", ".join(map(str, inputs))))
    if fraction is not None:
        rows = selection.labelled_fraction(rows, fraction, seed)
    if domain:
        rows = selection.of_domains(rows, domain)
    if names:
        rows = selection.rename_labels(rows, names)
    parts = [row for row in rows if row.group is not None]
    others = len(rows) - len(parts)
    rows = join_rows(rows, findings)
    rows = attach_answers(rows, answers or [], task, findings)

    if output.suffix == ".jsonl":
        _write_posts(output, rows)
    else:
        _write_docs(output, rows, lang, tokenizer, keep_mentions, findings)
    if answers_out:
        from ..corpus.rows import write_records

        count = write_records(answers_out, (row.answers for row in rows if row.answers))
        print(f"Answers about {count} posts are in {answers_out}.")
    print_summary(rows, findings, keep_mentions=keep_mentions)
    if parts:
        print(f"{len(parts)} rows that judge a pair are joined into {len(rows) - others} posts.")
    print(f"Posts are in {output}.")


def attach_answers(
    rows: Sequence[Row], paths: Sequence[Path], task: Task, findings: Findings
) -> list[Row]:
    """The rows with the answers of files about them; the later file wins where both answer the
    same question."""
    from ..elicitation.store import load_answers

    rows = list(rows)
    for path in paths:
        found = load_answers(path, task)
        rows = [
            row._replace(answers=merge_answers(row.answers, found.get(row.post.id))) for row in rows
        ]
        if found and not found.keys() & {row.post.id for row in rows}:
            findings.lose("answers files that speak of none of the posts", str(path))
    return rows


def _write_posts(output: Path, rows: list[Row]) -> None:
    from ..corpus.formats import relative_image
    from ..corpus.posts import write_posts

    write_posts(output, (relative_image(row.post, output.parent) for row in rows))


def _write_docs(
    output: Path,
    rows: list[Row],
    lang: str,
    tokenizer: Tokenizer,
    keep_mentions: bool,
    findings: Findings,
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
        doc = to_doc(
            nlp,
            row.post,
            row.answers,
            tokenizer=tokenizer,
            keep_mentions=keep_mentions,
            findings=findings,
        )
        name = output.stem if output.suffix == SUFFIX else row.post.split
        docs.setdefault(name, []).append(doc)
    folder = output.parent if output.suffix == SUFFIX else output
    for name, group in docs.items():
        write_docs(folder / f"{name}{SUFFIX}", group)


def print_summary(rows: Sequence[Row], findings: Findings, *, keep_mentions: bool = False) -> None:
    """Print a table of what the posts hold, by split, and the findings."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    def bare(row: Row) -> bool:
        return _hidden(row) and not keep_mentions

    columns: dict[str, Callable[[Row], int]] = {
        "posts": lambda row: 1,
        "entities": lambda row: 0 if bare(row) else len(row.post.entities or []),
        "pairs": lambda row: 0 if bare(row) else len(row.post.pairs or []),
        "relations": lambda row: 0 if _hidden(row) else len(row.post.relations or []),
        "no labels": _hidden,
        "knowledge": lambda row: _has_knowledge(row.answers),
        "caption": lambda row: bool(row.post.caption),
        "picture": lambda row: bool(row.post.image),
    }
    for heading in ("pairs", "caption", "picture"):
        if not any(map(columns[heading], rows)):
            del columns[heading]
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

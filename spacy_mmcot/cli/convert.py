"""`convert`: corpus files in, posts or spaCy Docs out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import Errors, MMCoTError, UsageError
from ..messages import escape_control, print_table
from ..types import ID_KEY, KNOWLEDGE, SPLITS, Format, Split, Task

if TYPE_CHECKING:
    from spacy.tokens import Doc

    from ..corpus.posts import Findings, Row

# typer takes enums for options that repeat, not Literals.
SplitChoice = StrEnum("SplitChoice", SPLITS)  # type: ignore[misc]
FormatName = Literal["auto", Format]

TextColumn = Annotated[str | None, typer.Option(help="Column of the texts; otherwise `text`.")]
IdColumn = Annotated[
    str | None, typer.Option(help="Column of the ids; otherwise `id`, or made from the text.")
]
Delimiter = Annotated[str | None, typer.Option(help="Of CSV files; otherwise detected.")]
Encoding = Annotated[str | None, typer.Option(help="Of text files; otherwise UTF-8 or UTF-16.")]
PicturesFolder = Annotated[
    Path | None,
    typer.Option(help="Folder of the pictures that texts name by IMGID, file name or id."),
]
ShareOption = Annotated[
    float, typer.Option(min=0, max=0.9, help="Share of the train posts to move here, by label.")
]


def convert(
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Files, or folders of .spacy files or of a Hugging Face dataset."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="NAME.jsonl for posts, NAME.spacy for Docs, else a folder with a file per split.",
        ),
    ],
    format: Annotated[FormatName, typer.Option(help="Format of the inputs.")] = "auto",
    text_column: TextColumn = None,
    id_column: IdColumn = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    pictures: PicturesFolder = None,
    split: Annotated[
        Split | None, typer.Option(help="Split of all posts, instead of their own.")
    ] = None,
    dev: ShareOption = 0.0,
    test: ShareOption = 0.0,
    answers: Annotated[
        list[Path] | None,
        typer.Option(
            help="Answers store (.sqlite) or recorded answers (.jsonl). Repeatable; where several "
            "answer one question, the last one counts."
        ),
    ] = None,
    answers_out: Annotated[
        Path | None, typer.Option(help="Write all answers about the posts to this .jsonl file.")
    ] = None,
    task: Annotated[Task, typer.Option(help="Which answers of a store.")] = "ner",
    tokenizer: Annotated[
        Literal["spacy", "whitespace"], typer.Option(help="whitespace: for pre-tokenised text.")
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
        bool, typer.Option("--repair-bio", help="Read an I- tag that continues no entity as B-.")
    ] = False,
    reviewed: Annotated[
        Path | None,
        typer.Option(help="Corrected posts: their labels replace those of posts of the same id."),
    ] = None,
    require: Annotated[
        list[SplitChoice] | None, typer.Option(help="Stop if a split has no post; repeatable.")
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave invalid rows out and list them.")
    ] = False,
) -> None:
    """Convert a corpus to posts or to spaCy's training format.

    Reads posts, plain text, tables (CSV, TSV, JSON Lines, Parquet, Hugging Face datasets), CoNLL,
    the exports of Prodigy, doccano and Label Studio, spaCy's training data, and MNRE rows.
    """
    from ..corpus.formats import check_labels, read_corpus, replace_labels, split_rows
    from ..corpus.posts import Findings, ReadSettings, make_image_relative, write_posts
    from ..files import write_records

    if output.suffix not in ("", ".jsonl", ".spacy") and not output.is_dir():
        raise UsageError(Errors.E719.format(path=output))
    if split is not None and (dev or test):
        raise UsageError(Errors.E804.format(options="--split and --dev or --test"))
    if dev + test >= 1:
        fields = {"option": "--dev and --test", "received": f"{dev}, {test}"}
        raise UsageError(Errors.E715.format(**fields, expected="shares whose sum is below 1"))
    findings = Findings(skip_invalid)
    reading = ReadSettings(
        None if format == "auto" else format,
        *(split, repair_bio, text_column, id_column, delimiter, encoding, pictures),
        extracted=output.parent / "pictures",
    )
    rows = read_corpus(inputs, findings, reading)
    if not rows:
        for line in findings.describe():
            print(escape_control(line), file=sys.stderr)
        raise MMCoTError(Errors.E711.format(paths=", ".join(map(str, inputs))))
    if dev or test:
        rows = split_rows(rows, {"dev": dev, "test": test})
    if reviewed is not None:
        # After the split, which would not be the same with other labels.
        rows = replace_labels(rows, read_corpus([reviewed], findings), findings)
    check_labels([row.post for row in rows], findings)
    for choice in require or []:
        if all(row.post.split != choice for row in rows):
            paths = ", ".join(map(str, inputs))
            raise MMCoTError(Errors.E713.format(path=paths, split=choice))
    rows = attach_answers(rows, answers or [], task, findings)

    if output.suffix == ".jsonl":
        for row in rows:
            if row.answers and not answers_out:
                findings.change("posts whose answers --answers-out would keep", row.post.id)
        write_posts(output, (make_image_relative(row.post, output.parent) for row in rows))
    else:
        settings = {"tokenizer": tokenizer, "keep_mentions": keep_mentions, "findings": findings}
        rows = _write_docs(output, rows, lang, **settings)
    if answers_out:
        count = write_records(answers_out, (row.answers for row in rows if row.answers))
        print(f"Answers about {count} posts are in {answers_out}.")
    print_summary(rows, findings, keep_mentions=keep_mentions)
    if pictures is not None:
        found = sum(row.post.image is not None for row in rows)
        print(f"{found} of {len(rows)} posts have a picture.")
    print(f"Posts are in {output}.")


def attach_answers(
    rows: Sequence[Row], paths: Sequence[Path], task: Task, findings: Findings
) -> list[Row]:
    """The rows with the answers about them in the files, conclusions located in the texts; the last
    file's count where several answer one question."""
    from ..elicitation.conclusion import find_gaps, locate_conclusion
    from ..elicitation.store import load_answers
    from ..types import merge_answers

    rows = list(rows)
    for path in paths:
        found = load_answers(path, task)
        if found.keys().isdisjoint(row.post.id for row in rows):
            why = f"{path}: of the task {task}, on {len(found)} other posts"
            findings.lose("answers files about none of the posts", why)
        for i, row in enumerate(rows):
            if row.post.id in found:
                known, dropped = locate_conclusion(found[row.post.id], row.post)
                for reason in dropped:
                    place = f"{row.post.id}: {reason}"
                    findings.change("items of conclusions that do not fit their text", place)
                for start, end in find_gaps(known, len(row.post.text)):
                    place = f"{row.post.id}: characters {start} to {end}"
                    findings.lose("parts of texts without a conclusion", place)
                rows[i] = row._replace(answers=merge_answers(row.answers, known))
    return rows


def _write_docs(output: Path, rows: Sequence[Row], lang: str, **settings: Any) -> list[Row]:
    """Write all Docs to NAME.spacy, or those of each split to a file in the folder `output`.
    A file there of a split without posts is removed where it holds posts that are in others now.
    Returns the rows without those that no Doc can hold. settings: those of `make_doc`."""
    import spacy

    from ..corpus.docbin import SUFFIX, read_docs, write_docs
    from ..corpus.docs import make_doc

    try:
        nlp = spacy.blank(lang)
    except ImportError as error:
        raise MMCoTError(Errors.E712.format(lang=lang, reason=error)) from None
    docs: dict[Path, list[Doc]] = {}
    kept = []
    for row in rows:
        path = output if output.suffix == SUFFIX else output / f"{row.post.split}{SUFFIX}"
        with settings["findings"].checking(path, row.place):
            doc = make_doc(nlp, row.post, row.answers, **settings)
            docs.setdefault(path, []).append(doc)
            kept.append(row)
    for path, group in docs.items():
        write_docs(path, group)
    names = {row.post.id for row in kept}
    for path in (output / f"{split}{SUFFIX}" for split in SPLITS):
        if path.is_file() and path not in docs:
            is_old = any(doc.user_data.get(ID_KEY) in names for doc in read_docs(path, nlp.vocab))
            if is_old:
                path.unlink()
            what = "its posts are in other splits now, so it is removed" if is_old else "it stays"
            print(f"{path} is of an earlier run: {what}.")
    return kept


def print_summary(rows: Sequence[Row], findings: Findings, *, keep_mentions: bool = False) -> None:
    """Print how many posts, entities... each split has, how often it has each label, and the
    findings."""
    from ..corpus.formats import count_labels

    counts: dict[str, Counter[str]] = {name: Counter() for name in (*SPLITS, "all")}
    for row in rows:
        post = row.post
        labelled = post.entities is not None and post.split != "unlabelled"
        tally = {
            "posts": 1,
            "entities": len(post.entities or ()) * (keep_mentions or labelled),
            "pairs": len(post.pairs or ()) * (keep_mentions or labelled),
            "relations": len(post.relations or ()) * labelled,
            "no labels": int(not labelled),
            "knowledge": int(any(getattr(row.answers, name, None) for name in KNOWLEDGE)),
            "caption": int(bool(post.caption)),
            "picture": int(bool(post.image)),
        }
        for name in (post.split, "all"):
            counts[name].update(tally)
    optional = {"pairs", "caption", "picture"}
    columns = [name for name, count in counts["all"].items() if count or name not in optional]
    filled = [(name, *(each[x] for x in columns)) for name, each in counts.items() if each]
    print_table(["split", *columns], filled)
    labels = count_labels(row.post for row in rows)
    names = [split for split in SPLITS if labels[split]]
    if names:
        every = sorted({label for split in names for label in labels[split]})
        print_table(["label", *names], [(x, *(labels[s][x] for s in names)) for x in every])
    for line in findings.describe():
        print(line)

"""`perturb`: changed copies of labelled Docs, to see what a pipeline still finds in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import Errors, MMCoTError, UsageError
from ..types import CHANGES
from .choices import ChangeChoice

if TYPE_CHECKING:
    from spacy.tokens import Doc
    from spacy.vocab import Vocab

    from ..corpus.perturb import Names


def perturb(
    data: Annotated[Path, typer.Argument(help=".spacy file or folder, labelled with entities")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for a .spacy file of each change")
    ],
    change: Annotated[
        list[ChangeChoice] | None,
        typer.Option(help="Which changes, all by default; repeatable", show_default=False),
    ] = None,
    names: Annotated[
        list[Path] | None,
        typer.Option(
            help="Labelled .spacy files or folders whose names swap puts in; repeatable",
            show_default=False,
        ),
    ] = None,
    unseen_in: Annotated[
        list[Path] | None,
        typer.Option(
            help="Training data (.spacy): names that stand anywhere in it are not used; repeatable",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option(help="How many words get a typo, and places between words an emoji")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of all that is drawn")] = 1,
) -> None:
    """Write changed copies of DATA, entities kept true: small letters (case), typos, without
    hashtags and handles (strip), with emoji, with other names of the same label (swap). Knowledge
    about the posts as they were is left out."""
    from spacy.vocab import Vocab

    from ..corpus.docbin import SUFFIX, read_all, write_docs
    from ..corpus.perturb import perturb as changed

    if not 0 <= rate <= 1:
        raise UsageError(Errors.E718.format(received=rate))
    wanted = {choice.value for choice in change} if change else set(CHANGES)
    if "swap" in wanted and not names:
        raise UsageError(Errors.E717)
    vocab = Vocab()
    docs = list(read_all(data, vocab))
    if not any(doc.has_annotation("ENT_IOB") for doc in docs):
        raise MMCoTError(Errors.E217.format(path=data))
    pool = _names(docs, names or [], unseen_in or [], vocab) if "swap" in wanted else {}
    for name in CHANGES:
        if name in wanted:
            copies = [changed(doc, name, seed, rate=rate, names=pool) for doc in docs]
            path = output / f"{name}{SUFFIX}"
            write_docs(path, copies)
            differ = sum(old.text != new.text for old, new in zip(docs, copies, strict=True))
            n_mentions = sum(len(doc.ents) for doc in copies)
            print(f"{name}: {differ} of {len(docs)} docs differ, {n_mentions} mentions -> {path}")
    if pool:
        counts = ", ".join(f"{label} {len(found)}" for label, found in sorted(pool.items()))
        print(f"Unseen names: {counts}.")


def _names(docs: list[Doc], names: list[Path], unseen_in: list[Path], vocab: Vocab) -> Names:
    """Raises MMCoTError where a label of the docs has no unseen name."""
    from ..corpus.docbin import read_all
    from ..corpus.perturb import unseen_names

    sources = [doc for path in names for doc in read_all(path, vocab)]
    pool = unseen_names(sources, (doc for path in unseen_in for doc in read_all(path, vocab)))
    missing = sorted({ent.label_ for doc in docs for ent in doc.ents} - pool.keys())
    if missing:
        count = sum(len(doc.ents) for doc in sources)
        raise MMCoTError(Errors.E218.format(labels=", ".join(missing), count=count))
    return pool

"""`.spacy` files (DocBin): reading, writing, and turning their Docs back into posts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from ..errors import Errors, MMCoTError
from ..files import check_exists, read_bytes, replace_file

SUFFIX = ".spacy"


def docbin_paths(path: Path) -> list[Path]:
    """The `.spacy` files at a path: the file itself, or all in the folder, in order of name.

    Raises MMCoTError where there is none.
    """
    check_exists(path)
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob(f"*{SUFFIX}"))
    if not found:
        raise MMCoTError(Errors.E203.format(path=path))
    return found


def read_docs(path: Path, vocab: Vocab) -> Iterator[Doc]:
    """The Docs of one file.

    Raises MMCoTError for a file that is missing, no DocBin, or without documents.
    """
    docbin = load_docbin(path)
    if not len(docbin):
        raise MMCoTError(Errors.E202.format(path=path))
    yield from docbin.get_docs(vocab)


def read_all(path: Path, vocab: Vocab) -> Iterator[Doc]:
    """The Docs of all files at a path. Raises MMCoTError as `docbin_paths` and `read_docs` do."""
    return (doc for file in docbin_paths(path) for doc in read_docs(file, vocab))


def load_docbin(path: Path) -> DocBin:
    """One file. Raises MMCoTError where it is missing, or no DocBin."""
    data = read_bytes(path)
    if not data:
        raise MMCoTError(Errors.E201.format(path=path, reason="the file is empty"))
    try:
        return DocBin().from_bytes(data)
    # What a foreign file makes zlib, msgpack and numpy raise is not a fixed set.
    except Exception as error:
        raise MMCoTError(Errors.E201.format(path=path, reason=error)) from None


def write_docs(path: Path, docs: Iterable[Doc]) -> None:
    """Write one file, user data included, whole or not at all; equal Docs give equal bytes."""
    docbin = DocBin(docs=docs, store_user_data=True)
    with replace_file(path) as temporary:
        temporary.write_bytes(docbin.to_bytes())

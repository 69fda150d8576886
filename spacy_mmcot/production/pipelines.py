"""Trained pipelines: loading one, its digest, and what keeps a long-running process small.
Nothing happens at import.
"""

from __future__ import annotations

import ctypes
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Errors, MMCoTError, first_line
from .job import digest_file

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.vocab import Vocab


def load_pipeline(source: str | Path, vocab: Vocab | None = None) -> Language:
    """The trained pipeline in a folder or of an installed package.

    vocab: that of another pipeline, whose Docs this one can then read; None for its own.

    Raises MMCoTError where there is no pipeline, or it cannot be read.
    """
    import spacy
    from safetensors import SafetensorError

    try:
        return spacy.load(source, vocab=True if vocab is None else vocab)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise MMCoTError(Errors.E700.format(source=source, reason=first_line(error))) from error


def use_gpu(number: int) -> None:
    """Have pipelines that are loaded from now on run on this GPU; -1 changes nothing. Raises
    MMCoTError where there is none, or spaCy lacks what it needs for it."""
    import spacy

    if number < 0:
        return
    try:
        spacy.require_gpu(number)
    except Exception as error:  # of torch, cupy or CUDA
        raise MMCoTError(Errors.E702.format(number=number, reason=first_line(error))) from None


def digest_pipeline(source: str) -> str:
    """The SHA-256 of the names and contents of all files of a pipeline's folder or package, apart
    from what Python compiles. Raises MMCoTError where there is neither."""
    from spacy.util import get_package_path, is_package

    if Path(source).is_dir():
        folder = Path(source)
    elif is_package(source):
        folder = get_package_path(source)
    else:
        reason = "neither a folder nor an installed package"
        raise MMCoTError(Errors.E700.format(source=source, reason=reason))
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(bytes.fromhex(digest_file(path)))
    return digest.hexdigest()


def trim_heap() -> None:
    """Return the free pages of the heap to the system, where the C library can (glibc). Takes some
    milliseconds: call it now and then, not for each Doc.

    glibc by itself returns only what is free at the end of its heap. An encoder's arrays have a new
    size in every batch, so a process would grow for as long as it runs.
    """
    with suppress(AttributeError, OSError, TypeError):  # macOS, musl, Windows
        ctypes.CDLL(None).malloc_trim(0)

"""Loading pipelines for commands, with errors a user can act on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Errors, MMCoTError, first_line

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.vocab import Vocab


def load_pipeline(source: str | Path, vocab: Vocab | None = None) -> Language:
    """The trained pipeline in a folder, or of an installed package, on a vocab of its own or on
    that of another one, whose Docs it can then read.

    Raises MMCoTError where there is none, or it cannot be read.
    """
    import spacy
    from safetensors import SafetensorError

    try:
        return spacy.load(source, vocab=True if vocab is None else vocab)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise MMCoTError(Errors.E700.format(source=source, reason=first_line(error))) from error


def size_mb(nlp: Language) -> float | None:
    """Of the pipeline's files, in units of 1,000,000 bytes; None where it was not loaded."""
    if nlp.path is None:
        return None
    files = (path for path in nlp.path.rglob("*") if path.is_file())
    return round(sum(path.stat().st_size for path in files) / 1e6, 1)

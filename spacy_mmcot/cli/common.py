"""Repeatable options with fixed values: typer takes enums there, not Literals.

Where a long job runs, for the commands that let one choose.

Loading pipelines for commands, with errors a user can act on.
"""

from __future__ import annotations

from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import Errors, MMCoTError, first_line
from ..types import AUGMENTATIONS, CHANGES, DIMENSIONS

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.vocab import Vocab

    from ..production.engines import Engine

DimensionChoice = Enum("DimensionChoice", {name: name for name in DIMENSIONS}, type=str)  # type: ignore[misc]
AugmentationChoice = Enum(  # type: ignore[misc]
    "AugmentationChoice", {name: name for name in AUGMENTATIONS}, type=str
)
ChangeChoice = Enum(  # type: ignore[misc]
    "ChangeChoice", {name: name for name in CHANGES}, type=str
)


EngineName = Literal["local", "ray"]


def chosen_engine(name: EngineName, workers: int | None) -> Engine:
    """workers: processes; None for one, or on a Ray cluster one for each of its CPUs."""
    from ..production.engines import in_process, in_processes

    if name == "ray":
        from ..production.engines import on_ray

        return partial(on_ray, workers=workers)
    if workers in (None, 1):
        return in_process
    return partial(in_processes, workers=workers)


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

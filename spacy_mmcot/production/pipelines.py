"""Which pipeline a job runs."""

from __future__ import annotations

from pathlib import Path

import spacy.util

from ..errors import Errors, MMCoTError
from .digests import folder_digest


def pipeline_digest(source: str) -> str:
    """Of the files of a pipeline's folder or package. Raises MMCoTError where there is neither."""
    if Path(source).is_dir():
        return folder_digest(Path(source))
    if spacy.util.is_package(source):
        return folder_digest(spacy.util.get_package_path(source))
    reason = "neither a folder nor an installed package"
    raise MMCoTError(Errors.E700.format(source=source, reason=reason))

"""What files hold, in 64 characters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from .opening import opened


def file_digest(path: Path) -> str:
    """SHA-256. Raises MMCoTError for a missing or unreadable file."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digest(paths: Iterable[Path]) -> str:
    """Of the files' contents and their order; their names do not count."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(bytes.fromhex(file_digest(path)))
    return whole.hexdigest()


def folder_digest(folder: Path) -> str:
    """Of the names and contents of all files in a folder, those that Python compiles left out."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            whole.update(path.relative_to(folder).as_posix().encode() + b"\0")
            whole.update(bytes.fromhex(file_digest(path)))
    return whole.hexdigest()

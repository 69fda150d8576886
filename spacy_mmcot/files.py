"""Reading text files line by line, and writing files whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import Errors, MMCoTError, located

_UTF8_BOM = b"\xef\xbb\xbf"


def iter_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line numbers, from 1, and raw lines without their line end.

    Only a line feed ends a line: tweets hold other characters that `str.splitlines` would break
    at. Raises MMCoTError for a missing or unreadable file.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                raw = raw.removesuffix(b"\n").removesuffix(b"\r")
                yield number, raw.removeprefix(_UTF8_BOM) if number == 1 else raw
    except FileNotFoundError:
        raise MMCoTError(Errors.E100.format(path=path)) from None
    except OSError as error:
        raise MMCoTError(Errors.E102.format(path=path, reason=error.strerror)) from None


def decode(path: Path, line: int, raw: bytes) -> str:
    """Raises MMCoTError where the line is not UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise located(
            path,
            line,
            f"byte {error.start + 1} of the line, 0x{raw[error.start]:02x}, is not UTF-8",
            "text in UTF-8",
            "Save the file in UTF-8.",
        ) from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends without an error:
    whoever reads `path` sees the old file or the new one, never a part.

    Raises MMCoTError where the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise MMCoTError(Errors.E103.format(path=path, reason=reason)) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_json(path: Path, value: Any) -> None:
    """Indented, whole or not at all. Raises MMCoTError where the file cannot be written."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

"""Opening an input, with errors a user can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from ..errors import Errors, MMCoTError


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Raises MMCoTError for a missing or unreadable file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise MMCoTError(Errors.E100.format(path=path)) from None
    except OSError as error:
        raise MMCoTError(Errors.E102.format(path=path, reason=error.strerror)) from None
    with file:
        yield file

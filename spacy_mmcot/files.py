"""Reading files that may be missing or damaged, and writing files whole or not at all.

The one place that turns the file system's errors into messages of the catalogue.
"""

from __future__ import annotations

import codecs
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, TextIO

from pydantic_core import to_json

from .errors import Errors, MMCoTError
from .messages import first_line, located


@contextmanager
def catch_read_errors(path: Path) -> Iterator[None]:
    """For a block that reads the file or folder `path`.

    Raises MMCoTError, in place of the block's OSError, where it is missing or cannot be read.
    """
    try:
        yield
    except FileNotFoundError:
        raise MMCoTError(Errors.E100.format(path=path)) from None
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise MMCoTError(Errors.E102.format(path=path, reason=reason)) from None


@contextmanager
def catch_write_errors(path: Path) -> Iterator[None]:
    """For a block that writes the file or folder `path`.

    Raises MMCoTError, in place of the block's OSError, where it cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise MMCoTError(Errors.E103.format(path=path, reason=reason)) from None


def check_exists(path: Path) -> None:
    """Raises MMCoTError where there is neither a file nor a folder."""
    if not path.exists():
        raise MMCoTError(Errors.E100.format(path=path))


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises MMCoTError for a missing or unreadable file."""
    with catch_read_errors(path):
        return path.read_bytes()


@contextmanager
def open_file(path: Path) -> Iterator[BufferedReader]:
    """The file, open for reading bytes. Raises MMCoTError where it is missing, or while it cannot
    be read."""
    with catch_read_errors(path), path.open("rb") as file:
        yield file


def iter_lines(path: Path, encoding: str | None = None) -> Iterator[tuple[int, bytes]]:
    """Line numbers, from 1, and lines in UTF-8 without their line end.

    encoding: of the file, see `find_encoding`. Lines of UTF-8 may hold invalid bytes.

    Only a line feed ends a line: tweets hold other characters that `str.splitlines` would break
    at. Raises MMCoTError for a missing or unreadable file, and one that is in another encoding.
    """
    encoding = find_encoding(path, encoding)
    if encoding != "utf-8-sig":
        with open_text(path, encoding, newline="\n") as file:
            for number, text in enumerate(file, start=1):
                yield number, text.removesuffix("\n").removesuffix("\r").encode()
        return
    with open_file(path) as file:
        for number, raw in enumerate(file, start=1):
            raw = raw.removesuffix(b"\n").removesuffix(b"\r")
            yield number, raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw


def find_encoding(path: Path, encoding: str | None = None) -> str:
    """The Python name of a text file's encoding: the given one, or else what the file's first
    bytes tell, UTF-16 and UTF-32 by their byte order mark, otherwise UTF-8. Raises MMCoTError for
    an unknown name, a file that cannot be UTF-8, and a pipe: files are read more than once."""
    if path.is_fifo():
        reason = "it is a pipe, whose content is gone once it is read. Write it to a file first"
        raise MMCoTError(Errors.E102.format(path=path, reason=reason))
    if encoding is not None:
        try:
            name = codecs.lookup(encoding).name
            " ".encode(name)  # some codecs are not of text, such as base64
        except (LookupError, UnicodeError):
            raise MMCoTError(Errors.E106.format(received=encoding)) from None
        return "utf-8-sig" if name == "utf-8" else name
    with open_file(path) as file:
        head = file.read(1000)
    # UTF-32 first: its mark begins like that of UTF-16.
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if head.count(0) > len(head) // 4:
        raise _make_encoding_error(path, "UTF-8", "a quarter of it are zero bytes")
    return "utf-8-sig"


@contextmanager
def open_text(path: Path, encoding: str | None = None, newline: str = "") -> Iterator[TextIO]:
    """The file, open for reading text; see `iter_lines` for its encoding and errors."""
    encoding = find_encoding(path, encoding)
    try:
        with catch_read_errors(path), path.open(encoding=encoding, newline=newline) as file:
            yield file
    except UnicodeError as error:
        name = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise _make_encoding_error(path, name, first_line(error)) from None


class EncodingError(MMCoTError):
    """A file is not in the encoding that was expected."""


def _make_encoding_error(path: Path, encoding: str, reason: str) -> EncodingError:
    from charset_normalizer import from_path

    best = from_path(path).best()
    guess = "" if best is None else f", perhaps {best.encoding}"
    message = Errors.E105.format(path=path, encoding=encoding, reason=reason, guess=guess)
    return EncodingError(message)


def decode_line(path: Path, line: int, raw: bytes) -> str:
    """The text of a line. Raises MMCoTError where it is not UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise located(
            path,
            line,
            f"byte {error.start + 1} of the line, 0x{raw[error.start]:02x}, is not UTF-8",
            "text in UTF-8",
            "Save the file in UTF-8, or name its encoding where the command has --encoding.",
        ) from None


def parse_json(text: str) -> Any:
    """The JSON value of a text. Raises ValueError, with the fault in plain words, where the text
    is not one JSON value that a file in UTF-8 can hold again."""
    try:
        value = json.loads(text)
        # A lone surrogate is a legal JSON escape, yet UTF-8 has no form for it.
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        problem = f"not JSON ({error.msg} at character {error.pos + 1})"
    except UnicodeEncodeError:
        problem = "a text holds one half of a surrogate pair"
    except RecursionError:
        problem = "the JSON is nested too deeply"
    except ValueError as error:
        problem = f"not readable as JSON ({error})"
    else:
        return value
    raise ValueError(problem)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing; they outlast a power cut."""
    missing = list(itertools.takewhile(lambda folder: not folder.exists(), (path, *path.parents)))
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        _flush_folder(folder.parent)


def move_file(path: Path, target: Path) -> None:
    """Give a file that is complete another name, in place of what had it. The name outlasts a power
    cut. Raises MMCoTError where it cannot be written."""
    with catch_write_errors(target):
        _flush(path)
        os.replace(path, target)
        _flush_folder(target.parent)


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which the block writes and which takes the place of `path`
    when the block ends without an error. A reader of `path` sees the old file or the new one,
    never a part, after a power cut too.

    Raises MMCoTError where the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with catch_write_errors(path):
            make_folder(path.parent)
            yield temporary
        move_file(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _flush(path: Path) -> None:
    """Have the system write a file's content, or a folder's names, to disk."""
    # Windows flushes files only through a descriptor that may write.
    number = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _flush_folder(path: Path) -> None:
    # Not every system lets a folder be opened, or flushed.
    with suppress(OSError):
        _flush(path)


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON file, whole or not at all. Raises MMCoTError where it cannot be
    written."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_records(path: Path, records: Iterable[Any]) -> int:
    """Write a JSON Lines file of pydantic models and dictionaries, whole or not at all, without the
    fields that are None; returns the number of records. Raises MMCoTError where it cannot be
    written."""
    written = 0
    with replace_file(path) as temporary, temporary.open("wb") as file:
        for record in records:
            file.write(to_json(record, exclude_none=True) + b"\n")
            written += 1
    return written

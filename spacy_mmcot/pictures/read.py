"""From what a Doc or a post names as its picture to the bytes of the picture's file."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

from ..errors import MMCoTError, first_line
from .policy import PicturePolicy

# Windows has none of these, and no files that they guard against.
_GUARDS = (
    getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://|(file|data):", re.IGNORECASE)


class BadPicture(MMCoTError):
    """A picture that cannot be used. The message is a short reason without a subject, such as
    `has zero bytes`, so that whoever knows the document can name it."""


def read_picture(image: str | bytes, policy: PicturePolicy) -> bytes:
    """The bytes of a picture's file: as given, from a path, or from a URL where the policy allows.

    Never reads more than `policy.max_bytes`. Raises BadPicture for what is missing, empty, too
    large, no regular file, or not allowed. What the bytes hold is not looked at.
    """
    if isinstance(image, bytes):
        data = image
    elif scheme := _SCHEME.match(image):
        data = _from_url(image, (scheme[1] or scheme[2]).lower(), policy)
    else:
        data = _from_path(image, policy)
    if len(data) > policy.max_bytes:
        raise too_large(policy)
    if not data:
        raise BadPicture("has zero bytes")
    return data


def digest(data: bytes) -> str:
    """SHA-256, hexadecimal: the name of a picture by its content."""
    return hashlib.sha256(data).hexdigest()


def too_large(policy: PicturePolicy) -> BadPicture:
    return BadPicture(f"is larger than the {policy.max_mb:g} MB that max_mb allows")


def _from_url(url: str, scheme: str, policy: PicturePolicy) -> bytes:
    if scheme not in ("http", "https"):
        raise BadPicture(f"is named by a {scheme}: address; allowed are paths, http and https")
    if not policy.urls:
        raise BadPicture("is named by a web address, and the setting urls is off")
    from .fetch import fetch

    return fetch(url, policy)


def _from_path(image: str, policy: PicturePolicy) -> bytes:
    if not image:
        raise BadPicture("is named by an empty path")
    try:
        path = Path(image).resolve()
        if policy.root is not None and not path.is_relative_to(Path(policy.root).resolve()):
            raise BadPicture(f"lies outside the folder {policy.root!r} that the setting root names")
        # Before the file is opened, since opening alone sets some devices going.
        _check_kind(path.stat())
        # The checks hold for what is opened, too: a name that became a link in the meantime is not
        # followed, and one that became a pipe does not block.
        with open(os.open(path, os.O_RDONLY | _GUARDS), "rb") as file:
            status = os.fstat(file.fileno())
            _check_kind(status)
            if status.st_size > policy.max_bytes:
                raise too_large(policy)
            return file.read(policy.max_bytes + 1)
    except FileNotFoundError:
        raise BadPicture(f"is missing: no such file: {image!r}") from None
    except PermissionError:
        raise BadPicture(f"may not be read: permission denied: {image!r}") from None
    except OSError as error:
        raise BadPicture(f"cannot be read: {error.strerror or first_line(error)}") from None
    # A loop of links, or a path with a null character.
    except (RuntimeError, ValueError) as error:
        if isinstance(error, BadPicture):
            raise
        raise BadPicture(f"cannot be read: {first_line(error)}") from None


def _check_kind(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise BadPicture("is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise BadPicture("is a device, pipe or socket, not a file")

"""Posts' pictures for models that see: found, named by their content, scaled down, encoded."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import PIL.Image

from .replies import AnswerRejected

# Pixels of the longer side. Endpoints scale to about this for their cheap level of detail.
LONGEST_SIDE = 512
_QUALITY = 85
_UNREADABLE = (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError)


@dataclass(frozen=True)
class Picture:
    """A picture file and the SHA-256 of its bytes."""

    path: Path
    digest: str


def find_picture(image: str | None, folder: Path) -> Picture | None:
    """The picture that a post in a file of `folder` names; None where there is none, or none that
    can be read. Web addresses are not fetched."""
    if not image or "://" in image:
        return None
    path = folder / image
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return _picture(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=16)
def _picture(path: Path, changed: int, size: int) -> Picture | None:
    try:
        data = path.read_bytes()
        with PIL.Image.open(io.BytesIO(data)):
            return Picture(path, hashlib.sha256(data).hexdigest())
    except _UNREADABLE:
        return None


def data_url(picture: Picture) -> str:
    """The picture as a data URL, a JPEG of at most LONGEST_SIDE pixels a side. Raises
    AnswerRejected where it cannot be decoded."""
    try:
        with PIL.Image.open(picture.path) as image:
            # Spares decoding what is scaled away.
            image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
            small = image.convert("RGB")
        small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        encoded = io.BytesIO()
        small.save(encoded, "JPEG", quality=_QUALITY)
    except _UNREADABLE as error:
        reason = f"the picture {picture.path.name} cannot be read: {error}"
        raise AnswerRejected(reason, final=True) from None
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")

"""Posts' pictures for models that see: found, named by their content, scaled down, encoded."""

from __future__ import annotations

import base64
import functools
from dataclasses import dataclass
from pathlib import Path

from ..pictures.decode import open_picture, small_jpeg
from ..pictures.policy import PicturePolicy
from ..pictures.read import BadPicture, digest, read_picture
from .replies import AnswerRejected

# Pixels of the longer side. Endpoints scale to about this for their cheap level of detail.
LONGEST_SIDE = 512
_POLICY = PicturePolicy()


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
        data = read_picture(str(path), _POLICY)
        open_picture(data, _POLICY)
    except BadPicture:
        return None
    return Picture(path, digest(data))


def data_url(picture: Picture) -> str:
    """The picture as a data URL, a JPEG of at most LONGEST_SIDE pixels a side. Raises
    AnswerRejected where it cannot be decoded."""
    try:
        data = read_picture(str(picture.path), _POLICY)
        jpeg = small_jpeg(data, _POLICY, LONGEST_SIDE)
    except BadPicture as error:
        reason = f"the picture {picture.path.name} {error}"
        raise AnswerRejected(reason, final=True) from None
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")

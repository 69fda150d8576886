"""Which pictures may be read, from where, and how large they may be: safe by default."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..errors import Errors, MMCoTError

OnBadImage = Literal["warn", "raise"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF")

# A format that Pillow learns from a plugin. It may be allowed on a machine without the plugin,
# where a picture of the format is a bad picture that names the cure.
PLUGIN_FORMAT = "HEIF"


@dataclass(frozen=True)
class PicturePolicy:
    """What is allowed of a picture. Raises MMCoTError for a value that makes no sense.

    formats: Pillow's names of the formats that may be decoded. HEIF (HEIC) works where a plugin
        such as pillow-heif is installed and registered.
    max_mb: of the file, in megabytes (1,000,000 bytes); no more is ever read.
    max_pixels: width times height. Pillow's own limits against decompression bombs hold as well.
    root: paths must lie in this folder, symbolic links and `..` resolved; None allows any path.
    urls: whether http and https addresses are fetched.
    url_timeout: seconds for one picture in all, redirects included.
    private_addresses: whether a URL may lead to this machine or its private network.
    on_bad_image: `warn` goes on without the picture, `raise` stops.
    """

    formats: tuple[str, ...] = FORMATS
    max_mb: float = 20.0
    max_pixels: int = 40_000_000
    root: str | None = None
    urls: bool = False
    url_timeout: float = 10.0
    private_addresses: bool = False
    on_bad_image: OnBadImage = "warn"

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", _formats(self.formats))
        for name in ("max_mb", "url_timeout"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value < math.inf:
                raise _refused(name, value, "a number above 0")
        if not isinstance(self.max_pixels, int) or not _is_number(self.max_pixels, least=1):
            raise _refused("max_pixels", self.max_pixels, "a whole number of at least 1")
        if isinstance(self.root, os.PathLike):
            object.__setattr__(self, "root", os.fspath(self.root))
        if self.root is not None and (not isinstance(self.root, str) or not self.root):
            raise _refused("root", self.root, "the path of a folder, or null for any path")
        for name in ("urls", "private_addresses"):
            if not isinstance(getattr(self, name), bool):
                raise _refused(name, getattr(self, name), "true or false")
        if self.on_bad_image not in get_args(OnBadImage):
            raise _refused("on_bad_image", self.on_bad_image, " or ".join(get_args(OnBadImage)))

    @property
    def max_bytes(self) -> int:
        return int(self.max_mb * 1_000_000)


def make_picture_policy(
    formats: list[str] = list(FORMATS),  # noqa: B006  (spaCy fills configs from defaults)
    max_mb: float = PicturePolicy.max_mb,
    max_pixels: int = PicturePolicy.max_pixels,
    root: str | None = PicturePolicy.root,
    urls: bool = PicturePolicy.urls,
    url_timeout: float = PicturePolicy.url_timeout,
    private_addresses: bool = PicturePolicy.private_addresses,
    on_bad_image: OnBadImage = PicturePolicy.on_bad_image,
) -> PicturePolicy:
    """`spacy_mmcot.Pictures.v1`: a PicturePolicy in a config, see there for the arguments."""
    return PicturePolicy(
        formats=tuple(formats),
        max_mb=max_mb,
        max_pixels=max_pixels,
        root=root,
        urls=urls,
        url_timeout=url_timeout,
        private_addresses=private_addresses,
        on_bad_image=on_bad_image,
    )


def known_formats() -> set[str]:
    """The names of the formats that Pillow, with the plugins registered now, can open."""
    # Pillow is imported late here, since the command line imports what names a policy.
    import PIL.Image

    PIL.Image.init()
    return set(PIL.Image.OPEN)


def _formats(received: Any) -> tuple[str, ...]:
    listed = isinstance(received, list | tuple) and all(isinstance(f, str) for f in received)
    formats = tuple(dict.fromkeys(name.upper() for name in received)) if listed else ()
    # The defaults hold for a Pillow that was built without one of them, too.
    allowed = known_formats().union(FORMATS)
    if not formats or not allowed.issuperset(formats):
        raise _refused("formats", received, f"a list of {', '.join(sorted(allowed))}")
    return formats


def _is_number(value: Any, least: float = 0) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= least


def _refused(name: str, received: object, allowed: str) -> MMCoTError:
    return MMCoTError(Errors.E140.format(name=name, received=received, allowed=allowed))

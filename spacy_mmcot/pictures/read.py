"""Which pictures may be read, from where, and how large they may be: safe by default.

From what a Doc or a post names as its picture to the bytes of the picture's file.

What a Doc keeps of a picture: its path or URL as text, or its file's bytes.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from ..errors import Errors, MMCoTError, first_line, shown

if TYPE_CHECKING:
    from PIL.Image import Image

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


# What PNG holds without loss, and what comes nearest for the modes that it does not hold.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_NEAREST = {"PA": "RGBA", "RGBa": "RGBA", "La": "LA"}


def stored_picture(image: object) -> str | bytes:
    """A path as text, bytes-like objects as bytes, a PIL image as the bytes of a PNG file.

    Raises BadPicture for anything else, and for a PIL image whose pixels cannot be had.
    """
    if isinstance(image, str):
        return image
    if isinstance(image, Path):
        return str(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    from PIL.Image import Image

    if isinstance(image, Image):
        return _png(image)
    raise BadPicture(f"is {shown(image)} ({type(image).__qualname__})")


def _png(image: Image) -> bytes:
    encoded = io.BytesIO()
    # A file that Pillow has opened is decoded only now, and may be broken or closed.
    try:
        image.load()
        # Kept, so that a picture that stands on its side is still turned upright when it is read.
        exif = image.getexif()
        _as_png_holds_it(image).save(encoded, "PNG", exif=exif, icc_profile=None, compress_level=1)
    except Exception as error:
        raise BadPicture(f"is a PIL image that cannot be stored: {first_line(error)}") from None
    return encoded.getvalue()


def _as_png_holds_it(image: Image) -> Image:
    from .decode import eight_bit_grey, is_wide_grey

    if image.mode in _PNG_MODES:
        return image
    if not is_wide_grey(image):
        return image.convert(_NEAREST.get(image.mode, "RGB"))
    if image.mode.startswith("I;16"):
        return image.convert("I").convert("I;16")
    # Whole numbers that need 16 bits, and no more, fit; others take the range they speak for.
    low, high = cast(tuple[float, float], image.getextrema())
    if image.mode == "I" and low >= 0 and 255 < high <= 65_535:
        return image.convert("I;16")
    return eight_bit_grey(image)

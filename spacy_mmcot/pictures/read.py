"""From what a Doc names as its picture to the bytes of the picture's file.

Which pictures may be read is a `PicturePolicy`, safe by default. Nothing is fetched from the web.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import math
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from ..errors import Errors, MMCoTError
from ..messages import first_line, shown
from ..types import IMAGE_KEY

if TYPE_CHECKING:
    from PIL.Image import Image
    from spacy.tokens import Doc

OnBadImage = Literal["warn", "raise"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF")
# What the names of their files end in.
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic"}

# A format that Pillow reads with a plugin. Without it the reason for a bad picture names it.
PLUGIN_FORMAT = "HEIF"

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://|(file|data):", re.IGNORECASE)
# Windows has few of these flags, and no files that they guard against.
_FLAG_NAMES = ("O_RDONLY", "O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY")
_OPEN_FLAGS = sum(getattr(os, name, 0) for name in _FLAG_NAMES)
_FOLDER_FLAGS = _OPEN_FLAGS | getattr(os, "O_DIRECTORY", 0)
# The modes that PNG holds without loss, and the nearest one of these for some others.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_NEAREST = {"PA": "RGBA", "RGBa": "RGBA", "La": "LA"}


class BadPicture(MMCoTError):
    """A picture that cannot be used. The message is a short reason without a subject, such as
    `has zero bytes`, so that a caller who knows the document can name it."""


@dataclass(frozen=True)
class PicturePolicy:
    """What is allowed of a picture; in a config, `spacy_mmcot.Pictures.v1`.

    formats: Pillow's names of the formats that may be decoded. HEIF (HEIC) works where a plugin
        such as pillow-heif is installed and registered.
    max_mb: size limit of the file, in megabytes (1,000,000 bytes); no more is ever read.
    max_pixels: limit of width times height. Pillow's own limits against decompression bombs hold
        as well.
    root: paths must lie in this folder, or one of these, symbolic links and `..` resolved; None
        allows any path.
    on_bad_image: `warn` logs a warning and goes on without the picture, `raise` stops.

    Raises MMCoTError for a value that is not allowed.
    """

    formats: Sequence[str] = FORMATS  # kept as a tuple
    max_mb: float = 20.0
    max_pixels: int = 40_000_000
    root: str | Sequence[str] | None = None
    on_bad_image: OnBadImage = "warn"

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", _check_formats(self.formats))
        if isinstance(self.root, os.PathLike):
            object.__setattr__(self, "root", os.fspath(self.root))
        elif isinstance(self.root, list):
            object.__setattr__(self, "root", tuple(self.root))
        size, pixels = self.max_mb, self.max_pixels
        named = all(isinstance(root, str) and root for root in self.roots) and self.root != ()
        for name, is_good, allowed in (
            ("max_mb", type(size) in (int, float) and 0 < size < math.inf, "a number above 0"),
            ("max_pixels", type(pixels) is int and pixels >= 1, "a whole number of at least 1"),
            ("root", named, "the path of a folder, a list of them, or null for any path"),
            ("on_bad_image", self.on_bad_image in get_args(OnBadImage), "warn or raise"),
        ):
            if not is_good:
                raise _reject_setting(name, getattr(self, name), allowed)

    @property
    def roots(self) -> tuple[str, ...]:
        """The folders of `root`; none where any path is allowed."""
        if self.root is None:
            return ()
        return self.root if isinstance(self.root, tuple) else (self.root,)

    @property
    def max_bytes(self) -> int:
        return int(self.max_mb * 1_000_000)


def make_local_policy(folder: Path) -> PicturePolicy:
    """The policy for pictures that a file in a folder names, where what is read leaves the machine
    or is shown: they must lie in that folder or in the working directory."""
    return PicturePolicy(root=(str(folder), "."))


def list_formats() -> set[str]:
    """The formats that Pillow, with the plugins registered now, can open."""
    # Imported late, since the command line imports what names a policy.
    import PIL.Image

    PIL.Image.init()
    return set(PIL.Image.OPEN)


def _check_formats(received: Any) -> tuple[str, ...]:
    listed = isinstance(received, list | tuple) and all(isinstance(f, str) for f in received)
    formats = tuple(dict.fromkeys(name.upper() for name in received)) if listed else ()
    # The defaults are allowed even where Pillow was built without one of them.
    allowed = list_formats().union(FORMATS)
    if not formats or not allowed.issuperset(formats):
        raise _reject_setting("formats", received, f"a list of {', '.join(sorted(allowed))}")
    return formats


def _reject_setting(name: str, received: object, allowed: str) -> MMCoTError:
    name = f"spacy_mmcot.Pictures.v1: {name}"
    return MMCoTError(Errors.E409.format(name=name, received=repr(received), allowed=allowed))


def get_image(doc: Doc) -> str | bytes | None:
    """The Doc's picture, whether or not the extension `mmcot_image` is registered: a path, or a
    file's content; None without one."""
    return doc.user_data.get(IMAGE_KEY)


def is_address(image: str) -> bool:
    """Whether a picture's name is an address, such as https://..., instead of a path."""
    return _ADDRESS.match(image) is not None


def read_picture(image: str | bytes, policy: PicturePolicy) -> bytes:
    """The bytes of a picture's file: as given, or from a path. What they hold is not checked.

    Never reads more than `policy.max_bytes`. Raises BadPicture for what is missing, empty, too
    large, no regular file, an address, or outside of `policy.root`.
    """
    data = image if isinstance(image, bytes) else _read_path(image, policy)
    if len(data) > policy.max_bytes:
        raise BadPicture(f"is larger than the {policy.max_mb:g} MB that max_mb allows")
    if not data:
        raise BadPicture("has zero bytes")
    return data


def hash_picture(data: bytes) -> str:
    """The SHA-256 of a picture's bytes, hexadecimal: its name by content."""
    return hashlib.sha256(data).hexdigest()


# Pixels of the longer side. Endpoints scale to about this for their cheap level of detail.
LONGEST_SIDE = 512


@dataclass(frozen=True)
class Picture:
    """The SHA-256 of a picture file's bytes, and the picture as a data URL: a JPEG of at most
    LONGEST_SIDE pixels a side."""

    digest: str
    url: str = field(repr=False)


def find_picture(image: str | None, folder: Path, root: Path | None = None) -> Picture | None:
    """The picture that a post in a file of `folder` names; None where there is none, it cannot be
    decoded, or it lies outside `root` (default: `folder`): a posts file from elsewhere must not
    send private pictures to an LLM. Web addresses are not fetched."""
    if not image or "://" in image:
        return None
    path = folder / image
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return _picture(path, root or folder, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=16)
def _picture(path: Path, root: Path, changed: int, size: int) -> Picture | None:
    from .decode import make_thumbnail

    policy = PicturePolicy(root=str(root))
    try:
        data = read_picture(str(path), policy)
        jpeg = make_thumbnail(data, policy, LONGEST_SIDE)
    except BadPicture:
        return None
    url = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
    return Picture(hash_picture(data), url)


def _read_path(image: str, policy: PicturePolicy) -> bytes:
    if not image:
        raise BadPicture("is named by an empty path")
    if address := _ADDRESS.match(image):
        scheme = (address[1] or address[2]).lower()
        raise BadPicture(
            f"is named by an address ({scheme}:), but pictures are read from files alone: "
            "download it first, and name the file"
        )
    try:
        root, path = check_roots(image, policy)
        with open(_open_beneath(root, path), "rb") as file:
            _check_kind(os.fstat(file.fileno()))
            return file.read(policy.max_bytes + 1)
    except FileNotFoundError:
        raise BadPicture(f"is missing: no such file: {image!r}") from None
    except BadPicture:
        raise
    # RuntimeError: a loop of links; ValueError: a path with a null character.
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise BadPicture(f"cannot be read: {reason}") from None


def check_roots(image: str, policy: PicturePolicy) -> tuple[Path, Path]:
    """The folder of `policy.root` that holds the path, its own folder without a root, and the path,
    both resolved. Raises BadPicture where the path lies outside."""
    path = Path(image).resolve()
    roots = [Path(root).resolve() for root in policy.roots] or [path.parent]
    for root in roots:
        if path.is_relative_to(root):
            return root, path
    named = " or ".join(map(repr, policy.roots))
    raise BadPicture(f"lies outside the folder {named} that the setting root names")


def _open_beneath(root: Path, path: Path) -> int:
    """Open a path in a folder, both resolved. What has become a link in the meantime, the file or a
    folder on the way to it, is not followed. Raises OSError and BadPicture."""
    if os.open not in os.supports_dir_fd:  # Windows
        _check_kind(path.stat())
        return os.open(path, _OPEN_FLAGS)
    *folders, name = path.relative_to(root).parts or (".",)
    place = os.open(root, _FOLDER_FLAGS)
    try:
        for folder in folders:
            inner = os.open(folder, _FOLDER_FLAGS, dir_fd=place)
            os.close(place)
            place = inner
        # Checked before the file is opened, since opening alone starts some devices, and again
        # once it is open. The flags keep what has become a pipe from blocking.
        _check_kind(os.stat(name, dir_fd=place, follow_symlinks=False))
        return os.open(name, _OPEN_FLAGS, dir_fd=place)
    finally:
        os.close(place)


def _check_kind(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise BadPicture("is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise BadPicture("is a device, pipe or socket, not a file")


def encode_picture(image: object) -> str | bytes:
    """What a Doc keeps of a picture: a path as text, bytes-like objects as bytes, a PIL image as
    the bytes of a PNG file.

    Raises BadPicture for anything else, and for a PIL image whose pixels cannot be read.
    """
    if isinstance(image, str):
        return image
    if isinstance(image, Path):
        return str(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    from PIL.Image import Image

    if isinstance(image, Image):
        return _encode_png(image)
    raise BadPicture(f"is {shown(image)} ({type(image).__qualname__})")


def _encode_png(image: Image) -> bytes:
    encoded = io.BytesIO()
    # Pillow decodes an opened file only now, and the file may be broken or closed.
    try:
        image.load()
        # The orientation is kept, so that a reader can turn the picture upright.
        exif = image.getexif()
        image = _convert_for_png(image)
        image.save(encoded, "PNG", exif=exif, icc_profile=None, compress_level=1)
    except Exception as error:
        raise BadPicture(f"is a PIL image that cannot be stored: {first_line(error)}") from None
    return encoded.getvalue()


def _convert_for_png(image: Image) -> Image:
    from .decode import is_wide_grey, make_eight_bit_grey

    if image.mode in _PNG_MODES:
        return image
    if not is_wide_grey(image):
        return image.convert(_NEAREST.get(image.mode, "RGB"))
    if image.mode.startswith("I;16"):
        return image.convert("I").convert("I;16")
    # Whole numbers from 256 to 65,535 need 16 bits and fit into them.
    low, high = cast(tuple[float, float], image.getextrema())
    if image.mode == "I" and low >= 0 and 255 < high <= 65_535:
        return image.convert("I;16")
    return make_eight_bit_grey(image)

"""What a Doc keeps of a picture: its path or URL as text, or its file's bytes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..errors import first_line, shown
from .read import BadPicture

if TYPE_CHECKING:
    from PIL.Image import Image

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

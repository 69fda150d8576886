"""From the bytes of a picture's file to an upright RGB image of the size that is needed."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import PIL.Image
from PIL.Image import Transpose

from ..errors import first_line
from .headers import check_headers, read_orientation
from .read import PLUGIN_FORMAT, BadPicture, PicturePolicy, list_formats

_BOMBS = (PIL.Image.DecompressionBombWarning, PIL.Image.DecompressionBombError)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_JPEG_QUALITY = 85
# From EXIF's orientation to what turns a picture upright.
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_BAND = 1 << 20  # pixels of wide grey that are converted at once
_WIDE_GREY = ("I", "F")  # and all that begin with I;16

_filters = threading.Lock()


def open_picture(data: bytes, policy: PicturePolicy) -> PIL.Image.Image:
    """The picture, its header read and its pixels not yet decoded.

    Raises BadPicture for what is no picture, has a format that is not allowed, or is too large.
    """
    formats = list_formats().intersection(policy.formats)
    check_headers(data, policy)
    try:
        with _filter_warnings():
            image = PIL.Image.open(io.BytesIO(data), formats=sorted(formats))
    except _BOMBS as error:
        raise BadPicture(f"has more pixels than Pillow allows: {first_line(error)}") from None
    except PIL.UnidentifiedImageError:
        raise BadPicture(_explain_unidentified(data, policy)) from None
    # Hostile bytes make Pillow's readers raise errors of any kind.
    except Exception as error:
        raise BadPicture(f"cannot be decoded: {first_line(error)}") from None
    width, height = image.size
    if width * height > policy.max_pixels:
        limit = f"more than the {policy.max_pixels} that max_pixels allows"
        raise BadPicture(f"has {width} x {height} pixels, {limit}")
    return image


def decode_picture(data: bytes, policy: PicturePolicy, size: int) -> PIL.Image.Image:
    """The picture upright (EXIF orientation applied), in RGB, its first frame, transparency laid
    on white. Where both sides are longer than `size` pixels, it is scaled down so that the shorter
    one has `size`; a smaller picture keeps its size.

    Raises BadPicture for what `open_picture` refuses, and for pixels that are broken or cut short.
    """
    image = open_picture(data, policy)
    try:
        # Lets a JPEG be decoded at a smaller scale; other formats ignore it.
        image.draft(None, (size, size))
        # Pillow reads a TIFF's metadata here, and warns of what is damaged.
        with _filter_warnings() if image.format == "TIFF" else contextlib.nullcontext():
            image.load()
        # Pillow itself turns a TIFF, and would read all of the others' metadata.
        if image.format != "TIFF":
            way = read_orientation(image.info.get("exif"), image.info.get("xmp"))
            if way in _TURNS:
                image = image.transpose(_TURNS[way])
        return _lay_on_white(_scale_down(_to_resizable(image), size))
    except Exception as error:
        raise BadPicture(f"cannot be decoded: {first_line(error)}") from None


def make_thumbnail(data: bytes, policy: PicturePolicy, longest: int) -> bytes:
    """The picture as a JPEG file of at most `longest` pixels a side. Raises BadPicture."""
    image = decode_picture(data, policy, longest)
    image.thumbnail((longest, longest))
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=_JPEG_QUALITY)
    return encoded.getvalue()


def make_eight_bit_grey(image: PIL.Image.Image) -> PIL.Image.Image:
    """An image of mode L from one with wide grey values (modes I, F, I;16...), which Pillow would
    clip at 255.

    The values decide which range is black to white: 0 to 1 (fractions only), 0 to 255 or 0 to
    65,535, the smallest that holds them all; values that fit none are stretched from black to
    white."""
    import numpy

    low, high = numpy.inf, -numpy.inf
    for _, values in _iter_bands(image):
        finite = values[numpy.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        low = high = 0.0
    tops = {"F": (1, 255, 65_535), "I": (255, 65_535)}.get(image.mode, (65_535,))
    top = next((top for top in tops if low >= 0 and high <= top), None)
    least, span = (low, (high - low) or 1.0) if top is None else (0.0, top)
    grey = PIL.Image.new("L", image.size)
    for row, values in _iter_bands(image):
        values = numpy.nan_to_num(values, nan=low, posinf=high, neginf=low)
        levels = ((values - least) / span * 255).round().astype(numpy.uint8)
        grey.paste(PIL.Image.fromarray(levels), (0, row))
    return grey


def _iter_bands(image: PIL.Image.Image) -> Iterator[tuple[int, Any]]:
    """The first row of each band of the picture, and its values, float32 (rows, columns)."""
    import numpy

    width, height = image.size
    rows = max(1, _BAND // width)
    for row in range(0, height, rows):
        band = image.crop((0, row, width, min(height, row + rows)))
        yield row, numpy.asarray(band, dtype=numpy.float32)


def is_wide_grey(image: PIL.Image.Image) -> bool:
    return image.mode in _WIDE_GREY or image.mode.startswith("I;16")


@contextlib.contextmanager
def _filter_warnings() -> Iterator[None]:
    """Turn Pillow's warnings of decompression bombs into errors, and drop those about damaged
    metadata, which neither change the picture nor add to the reason for refusing it."""
    # Filters are global: without the lock, threads would restore each other's.
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
        yield


def _to_resizable(image: PIL.Image.Image) -> PIL.Image.Image:
    """The same picture in a mode whose pixels can be averaged."""
    if is_wide_grey(image):
        return make_eight_bit_grey(image)
    if image.mode in _ALPHA or "transparency" in image.info:
        return image.convert("RGBA")
    return image if image.mode in ("RGB", "L") else image.convert("RGB")


def _scale_down(image: PIL.Image.Image, size: int) -> PIL.Image.Image:
    shorter = min(image.size)
    if shorter <= size:
        return image
    width, height = (round(side * size / shorter) for side in image.size)
    return image.resize((width, height), PIL.Image.Resampling.BICUBIC, reducing_gap=3.0)


def _lay_on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = PIL.Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _explain_unidentified(data: bytes, policy: PicturePolicy) -> str:
    """Why Pillow found no reader for the bytes, judging by how they begin."""
    allowed = f"allowed formats: {', '.join(policy.formats)}"
    begin = data[:16]
    if begin[4:8] == b"ftyp" and begin[8:12] in _HEIF_BRANDS:
        if PLUGIN_FORMAT not in policy.formats:
            return f"is in the format {PLUGIN_FORMAT}, which is not allowed; {allowed}"
        if PLUGIN_FORMAT not in list_formats():
            return (
                f"is in the format {PLUGIN_FORMAT} (HEIC), which needs a plugin: install "
                "pillow-heif and call pillow_heif.register_heif_opener()"
            )
    # Only the formats' tests of the first bytes are run, never the reader of a forbidden format.
    for name, (_, accepts) in PIL.Image.OPEN.items():
        # Some tests need more bytes than there are.
        with contextlib.suppress(IndexError, struct.error):
            if accepts is not None and accepts(begin):
                if name in policy.formats:
                    return f"is a broken {name} file"
                return f"is in the format {name}, which is not allowed; {allowed}"
    return f"is no picture: its content fits no format; {allowed}"

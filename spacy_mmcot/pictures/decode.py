"""From the bytes of a picture's file to an upright RGB image of the size that is needed.

Headers are checked before a decoder sees them. A small file can cost it minutes, or gigabytes, that
no limit of width times height shows:
a JPEG by many scans over all its pixels, a TIFF by tiles larger than the picture or by a directory
whose entries all name the same bytes, a WebP by a canvas that is allocated when it is opened.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import PIL.Image
from PIL.Image import Transpose

from ..messages import first_line
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


# Passes over as many pixels as max_pixels allows; a usual progressive JPEG has 10 scans.
MAX_PASSES = 10
# Decoded bytes for each of the pixels that max_pixels allows: one channel in double precision.
_BYTES_PER_PIXEL = 8
# Bytes of a BMP file in runs: Pillow decodes them in Python, 0.25 s a megabyte.
_MAX_RUNS = 2_000_000
# Segments of a JPEG, bytes between them, chunks of a PNG, or entries of TIFF directories. Programs
# write a few thousand at most.
_MAX_PARTS = 100_000

_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # inside a scan
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9

_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_ORIENTATION, _EXIF, _GPS, _INTEROP = 0x0112, 0x8769, 0x8825, 0xA005
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES = 256, 257, 258, 259, 277
_ROWS_PER_STRIP, _TILE_WIDTH, _TILE_HEIGHT = 278, 322, 323
# None, fax, LZW, JPEG, deflate, PackBits. Others can ask for any amount of memory.
_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946}
_JPEG_IN_TIFF = 7
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=\"|>)([1-8])")


def check_headers(data: bytes, policy: PicturePolicy) -> None:
    """Raises BadPicture for a picture that would cost far more time or memory to decode than others
    of its size. Other faults are left to the decoder."""
    try:
        if data.startswith(b"\xff\xd8"):
            _check_jpeg(data, policy)
        elif data.startswith(b"\x89PNG"):
            _check_png(data)
        elif data[:4] in (b"II*\0", b"MM\0*"):
            _check_tiff(data, policy)
        elif data[:4] in (b"II+\0", b"MM\0+"):
            raise BadPicture("is a BigTIFF file, which is made for more than 4 GB")
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            _check_webp(data, policy)
        elif data[:2] == b"BM" and len(data) > _MAX_RUNS and data[30] in (1, 2):
            raise BadPicture(f"is a BMP file in runs of more than {_MAX_RUNS} bytes")
    except (struct.error, IndexError):
        pass  # cut short


def read_orientation(exif: bytes | None, xmp: bytes | None) -> int:
    """How a picture lies, 1 to 8 as EXIF counts, from its metadata; 1 where they do not say."""
    try:
        block = (exif or b"").removeprefix(b"Exif\0\0")
        found = next(_iter_directories(block)).get(_ORIENTATION, 0)
        if 1 <= found <= 8:
            return found
    except (BadPicture, struct.error, IndexError, StopIteration):
        pass
    named = _XMP_ORIENTATION.search(xmp or b"")
    return int(named[1]) if named else 1


def _check_area(what: str, area: int, limit: int) -> None:
    if area > limit:
        raise BadPicture(f"has {what}: more than the {limit} pixels that max_pixels allows for")


def _check_jpeg(data: bytes, policy: PicturePolicy) -> None:
    parts = scans = width = height = 0
    position = 2
    while position < len(data):
        parts = _count_part(parts)
        if data[position] != 0xFF:
            position += 1  # no marker: decoders skip it, byte by byte, as they do fill bytes
            continue
        marker = data[position + 1]
        position += 1 if marker == 0xFF else 2
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        if marker == _END_OF_IMAGE:
            if scans:
                break
            continue
        (length,) = struct.unpack_from(">H", data, position)
        segment = data[position + 2 : position + length]
        position += length
        for name in (b"Exif\0\0", b"MPF\0"):
            if marker in (0xE1, 0xE2) and segment.startswith(name):
                list(_iter_directories(segment[len(name) :]))
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", segment, 1)
        if marker == _START_OF_SCAN:
            scans += 1
            end = _NEXT_MARKER.search(data, position)
            position = end.start() if end else len(data)
    what = f"{scans} scans of {width} x {height} pixels"
    _check_area(what, scans * width * height, MAX_PASSES * policy.max_pixels)


def _check_png(data: bytes) -> None:
    parts, position = 0, 8
    while data[position + 4 : position + 8] != b"IEND":
        parts = _count_part(parts)
        position += 12 + int(struct.unpack_from(">I", data, position)[0])


def _count_part(parts: int) -> int:
    """One part of a picture more, which a decoder reads in Python."""
    if parts >= _MAX_PARTS:
        what = "segments, chunks, directory entries or bytes between them"
        raise BadPicture(f"has more than {_MAX_PARTS} {what}")
    return parts + 1


def _check_webp(data: bytes, policy: PicturePolicy) -> None:
    kind, start = data[12:16], 20
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[start + 4 : start + 7], "little")
        height = 1 + int.from_bytes(data[start + 7 : start + 10], "little")
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, start + 1)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        sides = struct.unpack_from("<HH", data, start + 6)
        width, height = (side & 0x3FFF for side in sides)
    _check_area(f"{width} x {height} pixels", width * height, policy.max_pixels)


def _check_tiff(data: bytes, policy: PicturePolicy) -> None:
    tags, *_ = _iter_directories(data)
    if (compression := tags.get(_COMPRESSION, 1)) not in _COMPRESSIONS:
        raise BadPicture(f"is a TIFF file of the compression {compression}, which is not allowed")
    width, height = tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0)
    if tags.get(_TILE_WIDTH) or tags.get(_TILE_HEIGHT):
        across, down = max(1, tags.get(_TILE_WIDTH, 0)), max(1, tags.get(_TILE_HEIGHT, 0))
    else:
        across, down = max(1, width), max(1, min(tags.get(_ROWS_PER_STRIP, height), height))
    parts = -(-width // across) * -(-height // down)
    what = f"{parts} tiles or strips of {across} x {down} pixels"
    _check_area(what, parts * across * down, 4 * policy.max_pixels)
    depth = tags.get(_SAMPLES, 1) * max(8, tags.get(_BITS, 1)) // 8
    limit = _BYTES_PER_PIXEL * policy.max_pixels
    if across * down * depth > limit or width * height * depth > limit:
        raise BadPicture(f"has {what} of {depth} bytes each, more than {limit} bytes")
    if compression == _JPEG_IN_TIFF:
        scans = data.count(b"\xff\xda")
        _check_area(f"{scans} scans", scans * across * down, MAX_PASSES * policy.max_pixels)


def _iter_directories(data: bytes) -> Iterator[dict[int, int]]:
    """The first directory of a TIFF file or an EXIF block and those that it names: the first whole
    number of each of their tags.

    Raises BadPicture where there are too many entries, and where they hold more bytes than there
    are: Pillow copies the bytes of every entry.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return
    waiting, seen = [struct.unpack_from(f"{order}I", data, 4)[0]], set[int]()
    parts = held = 0
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        (count,) = struct.unpack_from(f"{order}H", data, place)
        tags: dict[int, int] = {}
        for start in range(place + 2, min(place + 2 + 12 * count, len(data) - 11), 12):
            parts = _count_part(parts)
            tag, kind, values = struct.unpack_from(f"{order}HHI", data, start)
            size = _TYPE_SIZES.get(kind, 0) * values
            at = start + 8 if size <= 4 else struct.unpack_from(f"{order}I", data, start + 8)[0]
            if at + size > len(data) or not size:
                continue
            held += size
            if held > len(data):
                raise BadPicture("has a directory whose entries hold more bytes than the file")
            if kind in (3, 4, 13):
                (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at)
        waiting += [tags[tag] for tag in (_EXIF, _GPS, _INTEROP) if tag in tags]
        yield tags

"""Small files that cost a decoder far more than their size lets expect."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Sequence

import PIL.Image


def _jpeg(width: int, height: int, progressive: bool = False, **settings: object) -> bytes:
    file = io.BytesIO()
    image = PIL.Image.new("RGB", (width, height), (200, 90, 30))
    image.save(file, "JPEG", progressive=progressive, **settings)
    return file.getvalue()


def many_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG that goes over all its pixels again and again."""
    whole = _jpeg(width, height, progressive=True)
    last = whole.rindex(b"\xff\xc4")  # the last scan, with its table before it
    body = whole[last:-2]
    return whole[:-2] + body * scans + b"\xff\xd9"


def directory(
    entries: Sequence[tuple[int, int, int, int]], head: bytes = b"II*\0\x08\0\0\0"
) -> bytes:
    """A TIFF directory of (tag, type, count, value or place)."""
    rows = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return head + struct.pack("<H", len(entries)) + rows + b"\0\0\0\0"


def greedy_directory(entries: int, size: int) -> bytes:
    """A directory whose entries all name the same bytes."""
    start = 8 + 2 + 12 * entries + 4
    rows = [(0x4000 + i, 7, size, start) for i in range(entries)]
    return directory(rows) + b"\0" * size


def tiff(width: int, height: int, *others: tuple[int, int, int, int], data: bytes = b"") -> bytes:
    known = {256: (4, width), 257: (4, height), 258: (3, 8), 259: (3, 8), 262: (3, 1)}
    entries = {tag: (tag, kind, 1, value) for tag, (kind, value) in known.items()}
    entries |= {entry[0]: entry for entry in others}
    place = 8 + 2 + 12 * (len(entries) + 2) + 4
    offsets, counts = (324, 325) if 322 in entries else (273, 279)
    entries |= {offsets: (offsets, 4, 1, place), counts: (counts, 4, 1, len(data))}
    return directory(list(entries.values())) + data


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * (width + 1) * height))
    extra = b"".join(chunk(*one) for one in chunks)
    return b"\x89PNG\r\n\x1a\n" + head + extra + body + chunk(b"IEND", b"")


def _with_segment(marker: int, body: bytes) -> bytes:
    whole = _jpeg(8, 8)
    segment = struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
    return whole[:2] + segment + whole[2:]


def _with_junk(whole: bytes, junk: bytes) -> bytes:
    """A JPEG with something between its first segment and the next."""
    end = 4 + int.from_bytes(whole[4:6], "big")
    return whole[:end] + junk + whole[end:]


def webp_canvas(width: int, height: int) -> bytes:
    body = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0"
    body += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body += b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def webp_lossless(width: int, height: int) -> bytes:
    body = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + b"\0" * 20
    return (
        b"RIFF"
        + struct.pack("<I", len(body) + 12)
        + b"WEBPVP8L"
        + struct.pack("<I", len(body))
        + body
    )


EXIF = b"Exif\0\0"
DEFLATED = zlib.compress(b"\0" * 1_000_000, 9)

# What is refused before a decoder sees it.
REFUSED: dict[str, Callable[[], bytes]] = {
    "progressive JPEG, repeated scans behind a byte of junk": lambda: _with_junk(
        many_scans(3000, 2000, 200), b"\0"
    ),
    "progressive JPEG, repeated scans behind an end": lambda: _with_junk(
        many_scans(3000, 2000, 200), b"\xff\xd9"
    ),
    "JPEG, millions of fill bytes": lambda: _with_junk(_jpeg(8, 8), b"\xff" * 19_000_000),
    "JPEG, millions of bytes of junk": lambda: _with_junk(_jpeg(8, 8), b"\0" * 19_000_000),
    "JPEG, millions of empty comments": lambda: _with_junk(
        _jpeg(8, 8), b"\xff\xfe\0\2" * 4_500_000
    ),
    "PNG, millions of empty chunks": lambda: png(4, 4, *[(b"abCd", b"")] * 1_500_000),
    "progressive JPEG, repeated scans": lambda: many_scans(3000, 2000, 200),
    "progressive JPEG, small and very many scans": lambda: many_scans(600, 600, 3000),
    "JPEG, EXIF whose entries share bytes": lambda: _with_segment(
        0xE1, EXIF + greedy_directory(2500, 30_000)
    ),
    "JPEG, MPF whose entries share bytes": lambda: _with_segment(
        0xE2, b"MPF\0" + greedy_directory(2500, 30_000)
    ),
    "TIFF, directory whose entries share bytes": lambda: greedy_directory(20_000, 1_000_000),
    "TIFF, EXIF directory whose entries share bytes": lambda: _nested(),
    "TIFF, directories that share their entries": lambda: _chain_directories(12),
    "TIFF, a tile of gigabytes": lambda: tiff(
        1, 1, (322, 4, 1, 23_008), (323, 4, 1, 23_008), data=DEFLATED
    ),
    "TIFF, a tile that is long": lambda: tiff(
        1, 1, (322, 4, 1, 16), (323, 4, 1, 2**31), data=DEFLATED
    ),
    "TIFF, many tiles that are large": lambda: tiff(
        6000, 6, (322, 4, 1, 16), (323, 4, 1, 2_000_000), data=DEFLATED
    ),
    "TIFF, LZMA": lambda: tiff(8, 8, (259, 3, 1, 34925), data=b"\xfd7zXZ\0"),
    "TIFF, Zstandard": lambda: tiff(8, 8, (259, 3, 1, 50000), data=b"\x28\xb5\x2f\xfd"),
    "TIFF, JPEG with repeated scans": lambda: tiff(
        3000, 2000, (259, 3, 1, 7), (278, 4, 1, 2000), data=many_scans(3000, 2000, 200)
    ),
    "BigTIFF": lambda: b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0",
    "WebP, a large canvas": lambda: webp_canvas(16_383, 16_383),
    "WebP, a large lossless picture": lambda: webp_lossless(16_383, 16_383),
    "BMP, very many runs": lambda: _runs(6_000, 1_600),
    "PNG, more pixels than are allowed": lambda: png(50_000, 1_000),
}


def _chain_directories(count: int) -> bytes:
    """Directories of 65,535 entries each, most of them empty, that begin 25 bytes apart."""
    places = [8 + 25 * i for i in range(count)]
    data = bytearray(places[-1] + 12 * 0x10000)
    data[:8] = b"II*\0" + struct.pack("<I", places[0])
    for place, following in zip(places, [*places[1:], 0], strict=True):
        struct.pack_into("<HHHII", data, place, 0xFFFF, 0x8769, 4, 1, following)
    return bytes(data)


def _nested() -> bytes:
    inner = greedy_directory(5_000, 1_000_000)[8:]
    head = directory([(0x8769, 4, 1, 26)])
    shifted = bytearray(inner)
    for i in range(5_000):
        place = 2 + 12 * i + 8
        (at,) = struct.unpack_from("<I", shifted, place)
        struct.pack_into("<I", shifted, place, at - 8 + len(head))
    return head + bytes(shifted)


def _text(kind: bytes) -> bytes:
    body = b"k\0\0" + DEFLATED
    return body if kind == b"zTXt" else b"k\0\1\0\0\0" + DEFLATED


# What may be read or refused, quickly and in little memory.
BOUNDED: dict[str, Callable[[], bytes]] = {
    "progressive JPEG of many pixels": lambda: _jpeg(7000, 5700, progressive=True),
    "PNG, compressed texts": lambda: png(8, 8, *[(b"zTXt", _text(b"zTXt"))] * 5_000),
    "PNG, international texts": lambda: png(8, 8, *[(b"iTXt", _text(b"iTXt"))] * 5_000),
    "PNG, a colour profile": lambda: png(
        8, 8, (b"iCCP", b"p\0\0" + zlib.compress(b"\0" * 10**8, 9))
    ),
    "PNG, EXIF whose entries share bytes": lambda: png(
        8, 8, (b"eXIf", greedy_directory(20_000, 1_000_000))
    ),
    "PNG, EXIF in a text": lambda: png(
        8,
        8,
        (
            b"zTXt",
            b"Raw profile type exif\0\0"
            + zlib.compress(
                b"\nexif\n 9\n" + (EXIF + greedy_directory(9_000, 200_000)).hex().encode()
            ),
        ),
    ),
    "PNG, many pixels": lambda: png(20_000, 2_000),
    "TIFF, floats": lambda: tiff(
        *(6_300, 6_300, (339, 3, 1, 3), (258, 3, 1, 32)),
        data=zlib.compress(b"\0" * 6_300 * 6_300 * 4, 9),
    ),
    "BMP, many runs": lambda: _runs(1_000, 900),
    "JPEG of much noise": lambda: _noise(4_500, 3_000, "JPEG", quality=97, progressive=True),
    "PNG of much noise": lambda: _noise(2_500, 2_500, "PNG", compress_level=1),
    "GIF, a frame beyond its canvas": lambda: _gif(),
}


def _noise(width: int, height: int, kind: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image = PIL.Image.frombytes(
        "RGB", (width, height), random.Random(1).randbytes(3 * width * height)
    )
    image.save(file, kind, **settings)
    return file.getvalue()


def _runs(width: int, height: int) -> bytes:
    pixels = b"\1\7" * (width * height)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    start = 14 + len(head) + 1024
    return (
        b"BM"
        + struct.pack("<IHHI", start + len(pixels), 0, 0, start)
        + head
        + b"\0" * 1024
        + pixels
    )


def _gif() -> bytes:
    file = io.BytesIO()
    PIL.Image.new("L", (10, 10)).save(file, "GIF")
    whole = bytearray(file.getvalue())
    place = whole.index(b"\x2c")
    struct.pack_into("<HH", whole, place + 5, 60_000, 60_000)
    return bytes(whole)

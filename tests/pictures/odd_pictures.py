"""Pictures as they come from the wild, made for real on disk, and what must become of each."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import PIL.Image

PICTURE = "picture"
ORANGE = (200, 100, 50)


class Odd(NamedTuple):
    """`make` writes what is needed to a folder and returns the image to name on a Doc; `expected`
    is PICTURE where it can be read, or a part of the reason why not; `settings` gives the
    PicturePolicy's values, where other than the defaults, for that folder."""

    make: Callable[[Path], str | bytes]
    expected: str
    settings: Callable[[Path], dict[str, Any]] = lambda folder: {}


def encoded(image: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def written(folder: Path, name: str, data: bytes) -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


def noise(width: int = 300, height: int = 200) -> PIL.Image.Image:
    values = numpy.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=numpy.uint8)
    return PIL.Image.fromarray(values)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes whose header claims any number of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
        + chunk(b"IEND", b"")
    )


def _folder(folder: Path) -> str:
    (folder / "holiday.jpg").mkdir()
    return str(folder / "holiday.jpg")


def _pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe.jpg")
    return str(folder / "pipe.jpg")


def _loop(folder: Path) -> str:
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    return str(folder / "loop.jpg")


def _truncated(kind: str) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        data = encoded(noise(), kind)
        return written(folder, f"half.{kind.lower()}", data[: len(data) // 2])

    return make


def _saved(
    image: Callable[[], PIL.Image.Image], kind: str, **options: Any
) -> Callable[[Path], str]:
    return lambda folder: written(folder, f"odd.{kind.lower()}", encoded(image(), kind, **options))


def _transparent() -> PIL.Image.Image:
    """Left half orange, right half see-through."""
    image = PIL.Image.new("RGBA", (40, 20), (*ORANGE, 255))
    image.paste((0, 0, 0, 0), (20, 0, 40, 20))
    return image


def _animation(folder: Path) -> str:
    frames = [PIL.Image.new("RGB", (30, 30), colour) for colour in (ORANGE, "blue", "green")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    return written(folder, "moving.gif", data)


def sideways() -> PIL.Image.Image:
    """40 x 20, the left half orange, the right half blue."""
    image = PIL.Image.new("RGB", (40, 20), ORANGE)
    image.paste((0, 0, 255), (20, 0, 40, 20))
    return image


def turned(orientation: int) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif


def grey16() -> PIL.Image.Image:
    """From black to white over 65,536 levels, 256 x 256."""
    return PIL.Image.fromarray(numpy.arange(65_536, dtype=numpy.uint16).reshape(256, 256))


def _heic() -> bytes:
    brands = b"heic" + struct.pack(">I", 0) + b"mif1heic"
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + b"\0" * 64


def _below(folder: Path) -> dict[str, Any]:
    (folder / "root").mkdir(exist_ok=True)
    return {"root": str(folder / "root")}


def _outside(folder: Path) -> str:
    return written(folder, "outside.png", encoded(noise(), "PNG"))


def _outside_by_dots(folder: Path) -> str:
    _outside(folder)
    _below(folder)
    return str(folder / "root" / ".." / "outside.png")


def _outside_by_link(folder: Path) -> str:
    _below(folder)
    (folder / "root" / "link.png").symlink_to(_outside(folder))
    return str(folder / "root" / "link.png")


def _inside_by_link(folder: Path) -> str:
    root = Path(_below(folder)["root"])
    (root / "link.png").symlink_to(written(root, "inside.png", encoded(noise(), "PNG")))
    return str(root / "link.png")


ODD: dict[str, Odd] = {
    # What cannot be read
    "missing": Odd(lambda folder: str(folder / "gone.jpg"), "is missing"),
    "no path": Odd(lambda folder: "", "empty path"),
    "null character": Odd(lambda folder: "a\0b.jpg", "cannot be read"),
    "path too long": Odd(lambda folder: str(folder / ("x" * 5000)), "cannot be read"),
    "folder": Odd(_folder, "is a folder"),
    "pipe": Odd(_pipe, "is a device, pipe or socket"),
    "device": Odd(lambda folder: "/dev/zero", "is a device, pipe or socket"),
    "link to itself": Odd(_loop, "cannot be read"),
    "zero bytes": Odd(lambda folder: written(folder, "empty.jpg", b""), "has zero bytes"),
    "zero bytes in memory": Odd(lambda folder: b"", "has zero bytes"),
    "too many bytes": Odd(
        lambda folder: written(folder, "big.jpg", b"\xff" * 20_001),
        "larger than the 0.02 MB",
        lambda folder: {"max_mb": 0.02},
    ),
    "too many bytes in memory": Odd(
        lambda folder: b"\xff" * 20_001,
        "larger than the 0.02 MB",
        lambda folder: {"max_mb": 0.02},
    ),
    # What is no whole picture of an allowed format
    "text named .png": Odd(
        lambda folder: written(folder, "note.png", b"This is a note, not a picture."),
        "is no picture",
    ),
    "one byte": Odd(lambda folder: written(folder, "one.png", b"\n"), "is no picture"),
    "random bytes": Odd(lambda folder: bytes(range(7, 256)), "is no picture"),
    "broken header": Odd(
        lambda folder: written(folder, "broken.png", b"\x89PNG\r\n\x1a\nno picture"),
        "cannot be decoded",
    ),
    "nothing but a signature": Odd(
        lambda folder: written(folder, "broken.gif", b"GIF89a"),
        "is a broken GIF file",
    ),
    "truncated JPEG": Odd(_truncated("JPEG"), "truncated"),
    "truncated PNG": Odd(_truncated("PNG"), "truncated"),
    "truncated GIF": Odd(_truncated("GIF"), "cannot be decoded"),
    "truncated WEBP": Odd(_truncated("WEBP"), "cannot be decoded"),
    "pixels of a header": Odd(lambda folder: bomb(5_000, 5_000), "truncated"),
    "too many pixels": Odd(lambda folder: bomb(7_000, 7_000), "7000 x 7000 pixels"),
    "bomb": Odd(
        lambda folder: written(folder, "bomb.png", bomb(12_000, 12_000)), "pixels than Pillow"
    ),
    "larger bomb": Odd(
        lambda folder: written(folder, "bomb.png", bomb(100_000, 100_000)), "pixels than Pillow"
    ),
    "HEIC without a plugin": Odd(
        lambda folder: written(folder, "phone.heic", _heic()), "needs a plugin"
    ),
    "format of no list": Odd(_saved(noise, "ICO"), "in the format ICO, which is not allowed"),
    "format not in the list": Odd(
        _saved(noise, "PNG"),
        "in the format PNG, which is not allowed",
        lambda folder: {"formats": ["JPEG"]},
    ),
    # What the policy forbids
    "outside the root": Odd(_outside, "lies outside the folder", _below),
    "outside the root by dots": Odd(_outside_by_dots, "lies outside the folder", _below),
    "outside the root by a link": Odd(_outside_by_link, "lies outside the folder", _below),
    "inside the root by a link": Odd(_inside_by_link, PICTURE, _below),
    "web address": Odd(lambda folder: "HTTPS://example.org/a.png", "(https:), but pictures"),
    "file address": Odd(lambda folder: f"file://{_outside(folder)}", "(file:), but pictures"),
    "file address, short": Odd(lambda folder: "file:/etc/hostname", "(file:), but pictures"),
    "data address": Odd(lambda folder: "data:image/png;base64,AAAA", "(data:), but pictures"),
    "other scheme": Odd(lambda folder: "ftp://example.org/a.png", "download it first"),
    # What is odd, and a picture
    "1x1": Odd(_saved(lambda: PIL.Image.new("RGB", (1, 1), ORANGE), "PNG"), PICTURE),
    "20,000 wide": Odd(
        _saved(lambda: PIL.Image.new("RGB", (20_000, 900), ORANGE), "JPEG"), PICTURE
    ),
    "20,000 wide, 1 high": Odd(
        _saved(lambda: PIL.Image.new("RGB", (20_000, 1), ORANGE), "PNG"), PICTURE
    ),
    "CMYK JPEG": Odd(
        _saved(lambda: PIL.Image.new("RGB", (40, 20), ORANGE).convert("CMYK"), "JPEG"), PICTURE
    ),
    "palette with alpha": Odd(_saved(lambda: _transparent().quantize(8), "PNG"), PICTURE),
    "transparent GIF": Odd(_saved(_transparent, "GIF"), PICTURE),
    "RGBA": Odd(_saved(_transparent, "PNG"), PICTURE),
    "LA": Odd(_saved(lambda: _transparent().convert("LA"), "PNG"), PICTURE),
    "1 bit": Odd(_saved(lambda: PIL.Image.new("1", (40, 20), 1), "PNG"), PICTURE),
    "animated GIF": Odd(_animation, PICTURE),
    "EXIF-rotated": Odd(_saved(sideways, "JPEG", exif=turned(6), quality=95), PICTURE),
    "16-bit grey": Odd(_saved(grey16, "PNG"), PICTURE),
    "16-bit grey TIFF": Odd(_saved(grey16, "TIFF"), PICTURE),
    "float grey": Odd(_saved(lambda: PIL.Image.new("F", (40, 20), 0.5), "TIFF"), PICTURE),
    "name like a scheme": Odd(
        lambda folder: written(folder, "c:odd.png", encoded(noise(), "PNG")), PICTURE
    ),
    "JPEG named .png": Odd(
        lambda folder: written(folder, "really.png", encoded(noise(), "JPEG")), PICTURE
    ),
}

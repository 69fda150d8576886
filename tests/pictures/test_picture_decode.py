from __future__ import annotations

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import PIL.Image
import PIL.ImageFile
import pytest
from pictures.odd_pictures import ODD, ORANGE, bomb, encoded, grey16, noise, sideways, turned

from spacy_mmcot.pictures.decode import decode_picture, open_picture
from spacy_mmcot.pictures.read import BadPicture, PicturePolicy, read_picture

POLICY = PicturePolicy()
WHITE, BLUE = (255, 255, 255), (0, 0, 255)


def decoded(kind: str, folder: Path, size: int = 1_000) -> PIL.Image.Image:
    return decode_picture(read_picture(ODD[kind].make(folder), POLICY), POLICY, size)


def close(image: PIL.Image.Image, x: int, y: int, colour: tuple[int, int, int]) -> bool:
    found = image.getpixel((x, y))
    assert isinstance(found, tuple)
    return all(abs(a - b) <= 6 for a, b in zip(found, colour, strict=True))


@pytest.mark.parametrize("kind", ["palette with alpha", "transparent GIF", "RGBA"])
def test_what_is_transparent_lies_on_white(kind: str, tmp_path: Path) -> None:
    image = decoded(kind, tmp_path)
    assert image.size == (40, 20)
    assert close(image, 5, 10, ORANGE) and close(image, 35, 10, WHITE)


def test_grey_with_alpha(tmp_path: Path) -> None:
    image = decoded("LA", tmp_path)
    assert close(image, 5, 10, (124, 124, 124)) and close(image, 35, 10, WHITE)


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    data = encoded(PIL.Image.new("RGBA", (8, 8), (0, 0, 0, 51)), "PNG")
    assert decode_picture(data, POLICY, 8).getpixel((4, 4)) == (204, 204, 204)
    # The colour below what is fully transparent does not bleed into its neighbours.
    image = PIL.Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 33, 64))
    small = decode_picture(encoded(image, "PNG"), POLICY, 8)
    red, green, _ = numpy.moveaxis(numpy.asarray(small).astype(int), -1, 0)
    assert abs(red - green).max() <= 2


def test_colours_of_print(tmp_path: Path) -> None:
    assert close(decoded("CMYK JPEG", tmp_path), 20, 10, ORANGE)


def test_the_first_frame_is_taken(tmp_path: Path) -> None:
    assert close(decoded("animated GIF", tmp_path), 15, 15, ORANGE)


@pytest.mark.parametrize("kind", ["16-bit grey", "16-bit grey TIFF"])
def test_sixteen_bits_keep_their_range(kind: str, tmp_path: Path) -> None:
    levels = numpy.asarray(decoded(kind, tmp_path))
    assert (levels[..., 0] == levels[..., 2]).all()
    assert (levels[0, 0, 0], levels[128, 0, 0], levels[255, 255, 0]) == (0, 128, 255)
    # One row of the picture for each of 256 levels.
    assert len(numpy.unique(levels)) == 256


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.0, 0.5, 1.0), (0, 128, 255)),
        ((0, 100, 255), (0, 100, 255)),
        ((0, 32_768, 65_535), (0, 128, 255)),
        ((-1.0, 0.0, 1.0), (0, 128, 255)),
        ((0.0, float("nan"), 1.0), (0, 0, 255)),
        ((0.0, float("inf"), -float("inf"), 1.0), (0, 255, 0, 255)),
        ((5e6, 5e6, 5e6), (0, 0, 0)),
    ],
)
def test_floats_take_the_range_they_speak_for(
    values: tuple[float, ...], expected: tuple[int, ...]
) -> None:
    image = PIL.Image.fromarray(numpy.array([values], dtype=numpy.float32))
    levels = numpy.asarray(decode_picture(encoded(image, "TIFF"), POLICY, 8))[0, :, 0]
    assert tuple(map(int, levels)) == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_is_turned_upright(kind: str) -> None:
    data = encoded(sideways(), kind, exif=turned(6), quality=95)
    image = decode_picture(data, POLICY, 1_000)
    assert image.size == (20, 40)
    assert close(image, 10, 5, ORANGE) and close(image, 10, 35, BLUE)


def test_a_damaged_exif_block_costs_the_turn_only() -> None:
    data = encoded(sideways(), "JPEG", exif=turned(6), quality=95)
    start = data.index(b"Exif\0\0") + 6
    image = decode_picture(data[:start] + b"\xff" * 8 + data[start + 8 :], POLICY, 1_000)
    assert image.size == (40, 20)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_shorter_side_is_scaled_to_size(kind: str) -> None:
    data = encoded(noise(1_200, 800), kind)
    assert decode_picture(data, POLICY, 100).size == (150, 100)
    assert decode_picture(data, POLICY, 800).size == (1_200, 800)
    assert decode_picture(data, POLICY, 5_000).size == (1_200, 800)


def test_scaling_keeps_the_colours() -> None:
    image = decode_picture(encoded(sideways().resize((4_000, 2_000)), "JPEG"), POLICY, 20)
    assert image.size == (40, 20)
    assert close(image, 5, 10, ORANGE) and close(image, 35, 10, BLUE)


def test_very_wide_pictures(tmp_path: Path) -> None:
    width, height = decoded("20,000 wide", tmp_path, 90).size
    assert height == 90 and abs(width - 2_000) < 20  # JPEG's own scaling rounds up
    assert decoded("20,000 wide, 1 high", tmp_path, 90).size == (20_000, 1)
    assert decoded("1x1", tmp_path).getpixel((0, 0)) == ORANGE


def test_limits_of_pixels_are_checked_before_decoding() -> None:
    small = PicturePolicy(max_pixels=60_000 - 1)
    data = encoded(noise(300, 200), "PNG")
    with pytest.raises(BadPicture, match=r"300 x 200 pixels, more than the 59999"):
        open_picture(data, small)
    assert open_picture(data, PicturePolicy(max_pixels=60_000)).size == (300, 200)
    # Pillow's limits hold, whatever the policy says.
    generous = PicturePolicy(max_pixels=10**12)
    for side in (10_000, 50_000):
        with pytest.raises(BadPicture, match="more pixels than Pillow allows"):
            open_picture(bomb(side, side), generous)


def test_a_bomb_is_never_unpacked() -> None:
    """In a process of its own, whose memory is measured: 8 GB of pixels would show."""
    pytest.importorskip("resource")
    script = (
        "import resource, sys\n"
        "from spacy_mmcot.pictures.decode import decode_picture\n"
        "from spacy_mmcot.pictures.read import PicturePolicy\n"
        "from spacy_mmcot.pictures.read import BadPicture\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    decode_picture(sys.stdin.buffer.read(), PicturePolicy(), 224)\n"
        "except BadPicture:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=bomb(90_000, 90_000), capture_output=True, check=True
    )
    assert int(done.stdout) < 50_000  # kilobytes (bytes on macOS, where the bound is laxer still)


def test_no_plugin_is_asked_for_where_its_format_is_not_allowed(tmp_path: Path) -> None:
    data = Path(str(ODD["HEIC without a plugin"].make(tmp_path))).read_bytes()
    with pytest.raises(BadPicture, match="format HEIF, which is not allowed"):
        open_picture(data, PicturePolicy(formats=("JPEG",)))


def test_a_registered_plugin_reads_heic(tmp_path: Path) -> None:
    """In a process of its own, since a plugin stays registered."""
    pytest.importorskip("pillow_heif")
    script = (
        "import io, PIL.Image, pillow_heif\n"
        "pillow_heif.register_heif_opener()\n"
        "from spacy_mmcot.pictures.decode import decode_picture\n"
        "from spacy_mmcot.pictures.read import PicturePolicy\n"
        "file = io.BytesIO()\n"
        "PIL.Image.new('RGB', (128, 64), (200, 100, 50)).save(file, 'HEIF')\n"
        "image = decode_picture(file.getvalue(), PicturePolicy(), 32)\n"
        "print(image.mode, image.size)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "RGB (64, 32)\n", done.stderr


def test_pictures_decode_alike_in_threads() -> None:
    data = [encoded(noise(200 + i, 100), "PNG") for i in range(8)]
    expected = [decode_picture(d, POLICY, 50).tobytes() for d in data]
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda d: decode_picture(d, POLICY, 50).tobytes(), data * 5)
    assert list(found) == expected * 5


def test_every_cut_of_a_picture_ends_in_a_reason_or_a_picture() -> None:
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"):
        data = encoded(noise(20, 10), kind)
        refused = 0
        for length in range(1, len(data), 3):
            try:
                assert decode_picture(data[:length], POLICY, 8).mode == "RGB"
            except BadPicture:
                refused += 1
        assert refused > len(data) // 6, kind


def test_broken_bytes_end_in_a_reason_or_a_picture() -> None:
    random = numpy.random.default_rng(2)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"):
        data = encoded(noise(20, 10), kind)
        for _ in range(60):
            broken = numpy.frombuffer(data, dtype=numpy.uint8).copy()
            places = random.integers(0, min(len(data), 400), 4)
            broken[places] = random.integers(0, 256, 4)
            try:
                assert decode_picture(broken.tobytes(), POLICY, 8).mode == "RGB"
            except BadPicture as error:
                assert str(error)


def test_the_file_keeps_its_bytes() -> None:
    data = encoded(grey16(), "PNG")
    decode_picture(data, POLICY, 8)
    assert PIL.Image.open(io.BytesIO(data)).mode == "I;16"

from __future__ import annotations

import os
import resource
import time
import warnings
from collections.abc import Callable

import PIL.Image
import pytest
from pictures.hostile_pictures import BOUNDED, REFUSED, greedy_directory, png, tiff
from pictures.odd_pictures import encoded, noise

from spacy_mmcot.pictures.decode import check_headers, decode_picture, read_orientation
from spacy_mmcot.pictures.read import BadPicture, PicturePolicy

POLICY = PicturePolicy()


@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_before_it_is_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = REFUSED[kind]()

    def load(image: PIL.Image.Image) -> None:
        pytest.fail("it was decoded")

    monkeypatch.setattr(PIL.Image.Image, "load", load)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(BadPicture):
        decode_picture(data, POLICY, 96)


def test_entries_of_directories_are_counted() -> None:
    with pytest.raises(BadPicture, match="directory entries"):
        check_headers(REFUSED["TIFF, directories that share their entries"](), POLICY)


def cost(data: bytes) -> tuple[float, float]:
    """Seconds of processor time, and megabytes, that decoding takes, in a process of its own."""
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        warnings.simplefilter("ignore")
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            decode_picture(data, POLICY, 96)
        except BadPicture:
            pass
        finally:
            took = time.process_time() - started
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            os.write(writable, f"{took} {grown / 1024}".encode())
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as file:
        took, grown = map(float, file.read().split())
    os.waitpid(child, 0)
    return took, grown


@pytest.mark.parametrize("kind", [*REFUSED, *BOUNDED])
def test_time_and_memory_are_bounded(kind: str) -> None:
    data = {**REFUSED, **BOUNDED}[kind]()
    assert len(data) < POLICY.max_bytes
    took, grown = cost(data)
    assert took < 5  # 1.5 on a quiet machine
    assert grown < 600


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_what_cameras_and_programs_write_passes(kind: str) -> None:
    image = noise(300, 200)
    exif = PIL.Image.Exif()
    exif[0x010F], exif[0x0112] = "A camera", 1
    settings = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    for more in ({}, {"progressive": True}) if kind == "JPEG" else ({},):
        check_headers(encoded(image, kind, **settings, **more), POLICY)
        assert decode_picture(encoded(image, kind, **settings, **more), POLICY, 50).size == (75, 50)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_usual_tiff_files_pass(compression: str) -> None:
    data = encoded(noise(300, 200), "TIFF", compression=compression)
    assert decode_picture(data, POLICY, 50).size == (75, 50)
    tiled = tiff(10, 10, (322, 4, 1, 256), (323, 4, 1, 256), data=b"")
    check_headers(tiled, POLICY)


@pytest.mark.parametrize("make", [lambda: REFUSED["JPEG, EXIF whose entries share bytes"]()])
@pytest.mark.parametrize("cut", [1, 3, 5, 11, 29, 50, 1000])
def test_headers_that_are_cut_short_are_left_to_the_decoder(
    make: Callable[[], bytes], cut: int
) -> None:
    check_headers(make()[:cut], POLICY)
    check_headers(tiff(8, 8)[:cut], POLICY)


@pytest.mark.parametrize("way", range(0, 10))
def test_a_picture_lies_as_its_metadata_say(way: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = way
    assert read_orientation(exif.tobytes(), None) == (way if 1 <= way <= 8 else 1)
    xmp = f'<rdf:Description tiff:Orientation="{way}"/>'.encode()
    assert read_orientation(b"II*", xmp) == (way if 1 <= way <= 8 else 1)
    assert read_orientation(greedy_directory(2_000, 90_000), None) == 1
    assert decode_picture(png(4, 4, (b"eXIf", b"MM\0*\0\0\0\x08")), POLICY, 4).size == (4, 4)

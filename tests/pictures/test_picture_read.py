from __future__ import annotations

import hashlib
import io
import os
import socket
from pathlib import Path

import numpy
import PIL.Image
import pytest
from pictures.odd_pictures import encoded, grey16, noise, sideways, turned

from spacy_mmcot.pictures.decode import decode_picture
from spacy_mmcot.pictures.read import (
    BadPicture,
    PicturePolicy,
    encode_picture,
    hash_picture,
    read_picture,
)

POLICY = PicturePolicy()


def test_bytes_and_paths_are_read_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(noise(), "PNG")
    (tmp_path / "ä b.png").write_bytes(data)
    assert read_picture(data, POLICY) == data
    assert read_picture(str(tmp_path / "ä b.png"), POLICY) == data
    monkeypatch.chdir(tmp_path)
    assert read_picture("ä b.png", POLICY) == data
    assert hash_picture(data) == hashlib.sha256(data).hexdigest()


def test_size_limits_are_exact(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x" * 1_000)
    (tmp_path / "b.jpg").write_bytes(b"x" * 1_001)
    policy = PicturePolicy(max_mb=0.001)
    assert len(read_picture(str(tmp_path / "a.jpg"), policy)) == 1_000
    with pytest.raises(BadPicture, match=r"larger than the 0\.001 MB that max_mb allows"):
        read_picture(str(tmp_path / "b.jpg"), policy)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs Linux")
def test_files_that_hide_their_size_are_limited_too() -> None:
    assert os.stat("/proc/self/maps").st_size == 0
    with pytest.raises(BadPicture, match="larger than"):
        read_picture("/proc/self/maps", PicturePolicy(max_mb=0.000_1))


def test_a_socket_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.jpg")
        with pytest.raises(BadPicture, match="is a device, pipe or socket"):
            read_picture("s.jpg", POLICY)


def test_links_may_be_followed_where_no_root_is_set(tmp_path: Path) -> None:
    data = encoded(noise(), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "b.png").symlink_to("a.png")
    assert read_picture(str(tmp_path / "b.png"), POLICY) == data


def test_a_root_may_be_relative_or_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"data")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real-too").mkdir()
    (tmp_path / "real-too" / "a.png").write_bytes(b"data")
    monkeypatch.chdir(tmp_path)
    for root in ("real", "link", str(tmp_path / "link")):
        for path in ("real/a.png", "link/a.png", "real/../link/a.png"):
            assert read_picture(path, PicturePolicy(root=root)) == b"data"
        with pytest.raises(BadPicture, match="lies outside"):
            read_picture("real-too/a.png", PicturePolicy(root=root))


def test_whether_a_file_exists_outside_the_root_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "there.png").write_bytes(b"data")
    policy = PicturePolicy(root=str(tmp_path / "root"))
    reasons = set()
    for name in ("there.png", "gone.png"):
        with pytest.raises(BadPicture) as caught:
            read_picture(str(tmp_path / name), policy)
        reasons.add(str(caught.value))
    assert len(reasons) == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_pil_images_are_stored_without_loss(mode: str) -> None:
    image = noise().convert("RGBA" if mode == "LA" else "RGB").convert(mode)
    kept = PIL.Image.open(io.BytesIO(encode_picture(image)))  # type: ignore[arg-type]
    assert kept.mode == mode
    assert kept.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I"])
def test_sixteen_bit_images_are_stored_without_loss(mode: str) -> None:
    image = grey16() if mode == "I;16" else grey16().convert("I").convert(mode)
    kept = PIL.Image.open(io.BytesIO(encode_picture(image)))  # type: ignore[arg-type]
    assert kept.mode == "I;16"
    assert (numpy.asarray(kept) == numpy.asarray(grey16())).all()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "F", "I", "PA", "RGBa"])
def test_modes_that_png_cannot_hold_are_converted(mode: str) -> None:
    orange = PIL.Image.new("RGB", (8, 8), (200, 100, 50))
    if mode == "RGBa":
        orange = orange.convert("RGBA")
    data = encode_picture(
        orange.quantize(4).convert("PA") if mode == "PA" else orange.convert(mode)
    )
    assert isinstance(data, bytes)
    found = decode_picture(data, POLICY, 8).getpixel((4, 4))
    expected = (124, 124, 124) if mode in "FI" else (200, 100, 50)
    assert isinstance(found, tuple)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 4


def test_an_opened_photo_is_still_turned_upright(tmp_path: Path) -> None:
    sideways().save(tmp_path / "photo.jpg", exif=turned(6))
    with PIL.Image.open(tmp_path / "photo.jpg") as photo:
        data = encode_picture(photo)
    assert isinstance(data, bytes)
    assert decode_picture(data, POLICY, 100).size == (20, 40)


def test_pil_images_that_cannot_be_had_are_refused(tmp_path: Path) -> None:
    data = encoded(noise(), "JPEG")
    with pytest.raises(
        BadPicture, match="is a PIL image that cannot be stored: image file is trun"
    ):
        encode_picture(PIL.Image.open(io.BytesIO(data[: len(data) // 2])))
    with PIL.Image.open(io.BytesIO(data)) as closed:
        pass
    with pytest.raises(BadPicture, match="is a PIL image that cannot be stored"):
        encode_picture(closed)
    with pytest.raises(BadPicture, match="is a PIL image that cannot be stored"):
        encode_picture(PIL.Image.new("RGB", (0, 5)))

"""Whatever a Doc names as its picture ends in an upright RGB image or in a reason, never in
another error, a warning on the way, or a wait."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
from pictures.odd_pictures import ODD, PICTURE

from spacy_mmcot.pictures.decode import decode_picture
from spacy_mmcot.pictures.read import BadPicture, PicturePolicy, read_picture

SIZE = 16


@pytest.mark.parametrize("kind", ODD)
def test_a_picture_or_a_reason(kind: str, tmp_path: Path) -> None:
    odd = ODD[kind]
    image, policy = odd.make(tmp_path), PicturePolicy(**odd.settings(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if odd.expected == PICTURE:
            picture = decode_picture(read_picture(image, policy), policy, SIZE)
            assert picture.mode == "RGB"
            assert min(picture.size) <= SIZE
            return
        with pytest.raises(BadPicture) as caught:
            decode_picture(read_picture(image, policy), policy, SIZE)
    reason = str(caught.value)
    assert odd.expected in reason
    assert "\n" not in reason and "\0" not in reason


def test_a_file_without_permission(tmp_path: Path) -> None:
    image = ODD["1x1"].make(tmp_path)
    os.chmod(image, 0)
    if os.access(image, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(BadPicture, match="Permission denied"):
        read_picture(image, PicturePolicy())


def test_the_demo_pictures_are_all_read() -> None:
    folder = Path(__file__).parents[2] / "assets" / "demo" / "images"
    policy = PicturePolicy(root=str(folder), on_bad_image="raise")
    sizes = {
        min(decode_picture(read_picture(str(path), policy), policy, 64).size)
        for path in folder.iterdir()
    }
    assert sizes == {64}

"""The ways in which a study reads pictures."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import spacy
from spacy.tokens import Doc

from research.picture_ways import Way, change_pictures
from spacy_mmcot import MMCoTError, attach

Pictures = list[Any]


def png(grey: int) -> bytes:
    encoded = io.BytesIO()
    PIL.Image.new("L", (8, 8), grey).save(encoded, "PNG")
    return encoded.getvalue()


def make_docs(pictures: Pictures) -> list[Doc]:
    records = [(f"post {number}", picture) for number, picture in enumerate(pictures)]
    return list(attach(spacy.blank("en"), records))


def read(way: Way, pictures: Pictures) -> Pictures:
    """The pictures that the way makes of these."""
    return [doc._.mmcot_image for doc in change_pictures(make_docs(pictures), way, "a.spacy")]


@pytest.fixture
def mixed(tmp_path: Path) -> Pictures:
    """Pictures by path, by content and by address, docs without, and one picture four times under
    three names."""
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    (tmp_path / "copy.png").write_bytes(png(0))
    files = [str(tmp_path / f"{number}.png") for number in range(6)]
    return [
        *(*files, None, png(9), "https://example.org/a.png", str(tmp_path / "absent.png"), None),
        *(str(tmp_path / "copy.png"), png(0), files[0]),
    ]


def content(picture: Any) -> Any:
    if isinstance(picture, str) and Path(picture).is_file():
        return Path(picture).read_bytes()
    return picture


def test_none_and_real_leave_the_docs_as_they_are(mixed: Pictures) -> None:
    assert read("none", mixed) == read("real", mixed) == mixed


def test_shuffled_is_always_anothers(mixed: Pictures) -> None:
    shuffled = read("shuffled", mixed)
    for own, other in zip(mixed, shuffled, strict=True):
        assert (own is None) == (other is None)
        if own is not None:
            assert other in mixed
            assert content(other) != content(own)
    assert read("shuffled", mixed) == shuffled


@pytest.mark.parametrize("n", [2, 3, 4, 7, 50])
def test_shuffling_uses_every_picture_once(n: int) -> None:
    own = [png(grey) for grey in range(n)]
    shuffled = read("shuffled", own)
    assert Counter(shuffled) == Counter(own)
    assert all(mine != other for mine, other in zip(own, shuffled, strict=True))
    assert n < 4 or shuffled != [*own[1:], *own[:1]]


def test_one_picture_cannot_be_shuffled(tmp_path: Path) -> None:
    (tmp_path / "same.png").write_bytes(png(1))
    same = [png(1), None, str(tmp_path / "same.png")]
    with pytest.raises(MMCoTError, match=r"\[E216\] a\.spacy"):
        read("shuffled", same)
    assert len(read("black", same)) == 3
    assert read("shuffled", [None, None]) == [None, None]


def test_black(mixed: Pictures) -> None:
    changed = read("black", mixed)
    assert [picture is None for picture in changed] == [picture is None for picture in mixed]
    (black,) = {picture for picture in changed if picture is not None}
    assert isinstance(black, bytes) and len(black) < 1000
    with PIL.Image.open(io.BytesIO(black)) as image:
        assert image.format == "PNG"
        assert image.convert("RGB").getextrema() == ((0, 0), (0, 0), (0, 0))

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from spacy import registry
from thinc.api import Config

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.pictures.read import FORMATS, PicturePolicy


def test_the_default_is_safe() -> None:
    policy = PicturePolicy()
    assert (policy.max_bytes, policy.formats) == (20_000_000, FORMATS)
    assert (policy.root, policy.on_bad_image) == (None, "warn")


def test_a_config_makes_a_policy_and_shows_its_defaults() -> None:
    block = {"@misc": "spacy_mmcot.Pictures.v1", "formats": ["png"], "max_mb": 0.5, "root": "a"}
    filled = registry.fill({"pictures": block})
    read = Config().from_str(Config(filled).to_str())
    assert read["pictures"]["max_pixels"] == 40_000_000
    policy = registry.resolve(read)["pictures"]
    assert policy == PicturePolicy(formats=("PNG",), max_mb=0.5, root="a")
    assert pickle.loads(pickle.dumps(policy)) == policy


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("formats", [], "JPEG"),
        ("formats", ["JPG"], "JPEG"),
        ("formats", "PNG", "a list of"),
        ("max_mb", 0, "a number above 0"),
        ("max_mb", float("inf"), "a number above 0"),
        ("max_mb", float("nan"), "a number above 0"),
        ("max_mb", "20", "a number above 0"),
        ("max_pixels", 0, "a whole number of at least 1"),
        ("max_pixels", True, "a whole number of at least 1"),
        ("max_pixels", 1.5, "a whole number of at least 1"),
        ("root", "", "the path of a folder"),
        ("on_bad_image", "ignore", "warn or raise"),
    ],
)
def test_values_that_make_no_sense_are_refused(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(MMCoTError) as caught:
        PicturePolicy(**{name: value})
    message = str(caught.value)
    assert f"[E409] spacy_mmcot.Pictures.v1: {name} is {value!r}" in message
    assert allowed in message


def test_a_root_may_be_a_path() -> None:
    assert PicturePolicy(root=Path("a") / "b").root == str(Path("a") / "b")  # type: ignore[arg-type]

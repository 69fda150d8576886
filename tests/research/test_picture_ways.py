"""The ways in which a study reads pictures."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import spacy
import tiny
import toy
from spacy.tokens import Doc, Span

from research.picture_ways import Way, change_pictures, compare_gates
from research.steps import evaluate_pipeline
from spacy_mmcot import MMCoTError, attach, set_image, write_docs

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


def label_docs(rows: list[tuple[str, str, Any]]) -> list[Doc]:
    """Docs of one name each. rows: name, label and picture."""
    docs = list(attach(spacy.blank("en"), [(name, picture) for name, _, picture in rows]))
    for doc, (_, label, _) in zip(docs, rows, strict=True):
        doc.ents = [Span(doc, 0, 1, label=label)]
    return docs


def test_pictures_that_fit_no_meaning_and_those_that_fit_another() -> None:
    rows = [
        ("Jaguar", "ANIMAL", png(0)),
        ("Jaguar", "VEHICLE", png(1)),
        ("Olive", "FOOD", png(2)),
        ("Olive", "PERSON", png(3)),
        ("Fox", "ANIMAL", png(4)),
        ("Jaguar", "ANIMAL", None),
    ]
    read = {
        way: [doc._.mmcot_image for doc in change_pictures(label_docs(rows), way, "a.spacy")]
        for way in ("foreign", "fitting")
    }
    labels = {picture: label for _, label, picture in rows if picture is not None}
    shown = {way: [labels.get(picture) for picture in found] for way, found in read.items()}
    assert all(label in ("FOOD", "PERSON") for label in shown["foreign"][:2])
    assert all(label in ("ANIMAL", "VEHICLE") for label in shown["foreign"][2:4])
    # Nothing else is a fox, and who had no picture gets none.
    assert shown["fitting"] == ["VEHICLE", "ANIMAL", "PERSON", "FOOD", None, None]
    assert shown["foreign"][4:] != ["ANIMAL", None] and shown["foreign"][5] is None


def test_gates_of_own_and_other_pictures() -> None:
    assert compare_gates([0.9, 0.8], [0.1, 0.2, 0.3]) == 1.0
    assert compare_gates([0.5], [0.5]) == 0.5
    assert compare_gates([0.6, 0.2], [0.4]) == 0.5


def test_gates_are_measured_with_the_scores(bert_source: str, tmp_path: Path) -> None:
    nlp = toy.transformer_pipeline(bert_source, vision=tiny.VISION)
    nlp.initialize(lambda: toy.examples(nlp))
    nlp.to_disk(tmp_path / "model")
    docs = [example.reference for example in toy.examples(nlp)[:6]]
    for number, doc in enumerate(docs[:4]):
        set_image(doc, png(40 * number))
    write_docs(tmp_path / "docs.spacy", docs)
    metrics = evaluate_pipeline(tmp_path / "model", tmp_path / "docs.spacy", pictures="real")
    assert metrics["docs_with_picture"] == len(metrics["gates"]) == 4
    assert all(0 < gate < 1 for gate in metrics["gates"])

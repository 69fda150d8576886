"""evaluate and teach with pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import spacy
import toy
from click.testing import Result
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span

from spacy_mmcot.corpus.extensions import register_extensions

Command = Callable[..., Result]
Fails = Callable[..., str]


def png(colour: str) -> bytes:
    encoded = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), colour).save(encoded, "PNG")
    return encoded.getvalue()


SEEN: list[str | bytes | None] = []


@Language.factory("test_red_is_a_person", assigns=["doc.ents"])
class RedIsAPerson:
    """Finds the name that every text begins with: a person where the picture is red, a place where
    it is of any other colour, nothing without one. Notes what it sees."""

    def __init__(self, nlp: Language, name: str):
        register_extensions()

    def __call__(self, doc: Doc) -> Doc:
        picture = doc._.mmcot_image
        SEEN.append(picture)
        if picture is not None:
            with PIL.Image.open(io.BytesIO(picture)) as image:
                red = image.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
            doc.ents = [Span(doc, 0, 1, label="PER" if red else "LOC")]  # type: ignore[assignment]
        return doc

    def pipe(self, docs: Iterable[Doc], batch_size: int = 64) -> Iterable[Doc]:
        return map(self, docs)

    def to_disk(self, path: object, exclude: object = ()) -> None: ...

    def from_disk(self, path: object, exclude: object = ()) -> RedIsAPerson:
        return self


@pytest.fixture
def looking(tmp_path: Path) -> Path:
    nlp = spacy.blank("en")
    nlp.add_pipe("test_red_is_a_person")
    nlp.to_disk(tmp_path / "looking")
    SEEN.clear()
    return tmp_path / "looking"


def labelled(nlp: Language, text: str, *entities: tuple[int, int, str]) -> Doc:
    doc = nlp.make_doc(text)
    doc.set_ents([Span(doc, *entity) for entity in entities], default="outside")
    return doc


def write(path: Path, *rows: tuple[str, list[tuple[int, int, str]] | None, str | None]) -> Path:
    """A file of docs: text, entities by token (None for a doc that nobody labelled), colour."""
    register_extensions()
    nlp = spacy.blank("en")
    docs = []
    for text, entities, colour in rows:
        doc = nlp.make_doc(text) if entities is None else labelled(nlp, text, *entities)
        if colour is not None:
            doc._.mmcot_image = png(colour)
        docs.append(doc)
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(
        tmp_path / "data.spacy",
        ("Jordan at last", [(0, 1, "PER")], "red"),
        ("Jordan at last", [(0, 1, "LOC")], "blue"),
        ("Oslo at last", [(0, 1, "LOC")], "green"),
        ("nothing here", [], None),
    )


@pytest.fixture
def evaluated(command: Command, looking: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(data: Path, *options: object) -> dict[str, Any]:
        output = tmp_path / "metrics.json"
        result = command("evaluate", looking, data, "-o", output, *options)
        assert result.exit_code == 0, (result.output, result.exception)
        return {**json.loads(output.read_text("utf-8")), "shown": result.output}

    return run


def test_pictures_are_seen_only_where_asked_for(
    evaluated: Callable[..., dict[str, Any]], data: Path
) -> None:
    for options in ([], ["--pictures", "none"]):
        SEEN.clear()
        metrics = evaluated(data, *options)
        assert metrics["ents_f"] == 0.0
        assert (metrics["pictures"], metrics["docs_with_picture"]) == ("none", 0)
        assert set(SEEN) == {None}
        assert "pictures" not in metrics["shown"]
    metrics = evaluated(data, "--pictures", "real")
    assert metrics["ents_f"] == 1.0
    assert (metrics["pictures"], metrics["docs_with_picture"]) == ("real", 3)
    assert "real pictures on 3" in metrics["shown"]


def test_unknown_pictures(command: Command, looking: Path, data: Path) -> None:
    result = command("evaluate", looking, data, "--pictures", "grey")
    assert result.exit_code == 2
    assert "grey" in result.stderr and "real" in result.stderr


@pytest.mark.parametrize("hidden", [False, True])
def test_a_teacher_sees_pictures_unless_they_are_hidden(
    hidden: bool, command: Command, data: Path, tmp_path: Path
) -> None:
    nlp = toy.initialised()
    nlp.add_pipe("test_red_is_a_person", first=True)
    nlp.to_disk(tmp_path / "teacher")
    SEEN.clear()
    taught = tmp_path / "taught.spacy"
    options = ["--no-pictures"] if hidden else []
    result = command("teach", tmp_path / "teacher", data, "-o", taught, *options)
    assert result.exit_code == 0, result.output
    own = [png("red"), png("blue"), png("green"), None]
    assert ([None] * 4 if hidden else own) == SEEN
    docs = list(DocBin().from_disk(taught).get_docs(nlp.vocab))
    assert [doc._.mmcot_image for doc in docs] == own

"""evaluate and teach with pictures, and the scores of ambiguous names."""

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
from spacy.training import Example

from research.ambiguity import ambiguous_scores, ambiguous_surfaces
from spacy_mmcot.corpus.extensions import register
from spacy_mmcot.evaluation.scorers import score_entities
from spacy_mmcot.types import Relation

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
        register()

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
    register()
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


def test_shuffled_and_black_pictures(evaluated: Callable[..., dict[str, Any]], data: Path) -> None:
    own = [png("red"), png("blue"), png("green"), None]
    SEEN.clear()
    metrics = evaluated(data, "--pictures", "shuffled")
    assert set(SEEN) == set(own)
    assert all(seen != picture for seen, picture in zip(SEEN[:3], own, strict=False))
    # A red one is one of the other two's now, and with it one of them a person.
    assert metrics["ents_f"] == pytest.approx(1 / 3)
    assert metrics["pictures"] == "shuffled"
    SEEN.clear()
    metrics = evaluated(data, "--pictures", "black")
    assert len(set(SEEN[:3])) == 1 and SEEN[3] is None
    assert metrics["ents_f"] == pytest.approx(2 / 3)
    assert metrics["pictures"] == "black"


def test_unknown_pictures(command: Command, looking: Path, data: Path) -> None:
    result = command("evaluate", looking, data, "--pictures", "grey")
    assert result.exit_code == 2
    assert "grey" in result.stderr and "shuffled" in result.stderr


def test_one_picture_cannot_be_shuffled(fails: Fails, looking: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "one.spacy", ("Jordan at last", [(0, 1, "PER")], "red"))
    assert str(path) in fails("E216", "evaluate", looking, path, "--pictures", "shuffled")


def test_ambiguous_names_over_data_and_further_files(
    evaluated: Callable[..., dict[str, Any]], data: Path, tmp_path: Path
) -> None:
    """Oslo is one only because another file has a person of that name."""
    assert not [key for key in evaluated(data) if key.startswith("ambiguous")]
    keys = [f"ambiguous_{key}" for key in "prfn"]
    seen = ("--pictures", "real")
    alone = evaluated(data, *seen, "--ambiguous", data)
    assert [alone[key] for key in keys] == [1.0, 1.0, 1.0, 2]
    assert "ambiguous names: F 100.00 (P 100.00, R 100.00) over 2 mentions" in alone["shown"]

    folder = tmp_path / "further"
    folder.mkdir()
    write(folder / "a.spacy", ("OSLO sings", [(0, 1, "PER")], None), ("Anna", None, None))
    more = evaluated(data, *seen, "--ambiguous", folder, "--ambiguous", data)
    assert more["ambiguous_n"] == 3
    blind = evaluated(data, "--ambiguous", folder)
    assert [blind[key] for key in keys] == [0.0, 0.0, 0.0, 3]
    # All of them are places now, as two of the three are in gold.
    black = evaluated(data, "--pictures", "black", "--ambiguous", folder)
    assert [black[key] for key in keys] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 3])


def test_no_ambiguous_name(evaluated: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    path = write(tmp_path / "plain.spacy", ("Oslo at last", [(0, 1, "LOC")], "blue"))
    metrics = evaluated(path, "--ambiguous", path)
    assert metrics["ambiguous_n"] == 0
    assert metrics["ambiguous_f"] is None
    assert "ambiguous names: none in this data" in metrics["shown"]


def test_ambiguous_files_that_say_nothing(
    fails: Fails, looking: Path, data: Path, broken: dict[str, Path], tmp_path: Path
) -> None:
    unlabelled = write(tmp_path / "unlabelled.spacy", ("Oslo at last", None, None))
    line = fails("E709", "evaluate", looking, data, "--ambiguous", data, "--ambiguous", unlabelled)
    assert str(unlabelled) in line
    for code in ("E100", "E201", "E202", "E203"):
        assert str(broken[code]) in fails(
            code, "evaluate", looking, data, "--ambiguous", broken[code]
        )


def test_ambiguous_names_need_entities(fails: Fails, data: Path, tmp_path: Path) -> None:
    """A pipeline of relations alone is scored on gold entities, so there is nothing to compare."""
    nlp = spacy.blank("en")
    model = {"@architectures": "spacy_mmcot.PairClassifier.v1", "tok2vec": toy.TOK2VEC}
    nlp.add_pipe("mmcot_rel", config={"model": model})
    gold = labelled(nlp, "Anna sings in Oslo", (0, 1, "PER"), (3, 4, "LOC"))
    gold._.mmcot_rel = [Relation(gold.ents[0], gold.ents[1], "at", 1.0)]
    nlp.initialize(lambda: [Example(nlp.make_doc(gold.text), gold)])
    nlp.to_disk(tmp_path / "model")
    path = tmp_path / "related.spacy"
    DocBin(docs=[gold], store_user_data=True).to_disk(path)
    line = fails("E708", "evaluate", tmp_path / "model", path, "--ambiguous", data)
    assert str(path) in line and "mmcot_rel" in line


def test_scores_count_gold_and_predicted_mentions_of_the_names() -> None:
    nlp = spacy.blank("en")
    text = "jordan met Jordan Smith in Paris"
    gold = labelled(nlp, text, (0, 1, "PER"), (2, 4, "PER"), (5, 6, "LOC"))
    predicted = labelled(nlp, text, (0, 1, "LOC"), (2, 3, "PER"), (5, 6, "LOC"))
    unlabelled = Example(labelled(nlp, "Jordan", (0, 1, "PER")), nlp.make_doc("Jordan"))
    examples = [Example(predicted, gold), unlabelled]
    surfaces = ambiguous_surfaces([gold, predicted])
    assert surfaces == {"jordan"}
    # Gold: jordan; predicted: jordan with another label, and Jordan where gold has a longer name.
    scores = ambiguous_scores(examples, surfaces)
    assert scores == {"ambiguous_p": 0, "ambiguous_r": 0, "ambiguous_f": 0, "ambiguous_n": 1}
    # Over all names they are the strict scores.
    every = {ent.text.lower() for doc in (gold, predicted) for ent in doc.ents}
    scores, strict = ambiguous_scores(examples, every), score_entities(examples)
    assert [scores[f"ambiguous_{key}"] for key in "prf"] == pytest.approx(
        [strict[f"ents_{key}"] for key in "prf"]
    )


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

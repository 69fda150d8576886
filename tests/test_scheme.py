from __future__ import annotations

from pathlib import Path

import pytest

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.scheme import Scheme, check_labels, draft_scheme, format_scheme, read_scheme
from spacy_mmcot.types import Entity, Post, PostRelation

CLINICAL = """\
language: German
domain: clinical notes
entities:
  DRUG: medicines by any name, also abbreviations
  DOSE: amounts of a medicine
relations:
  dose_of: {definition: the amount of a medicine, head: DOSE, tail: DRUG}
guidelines: Units belong to the dose.
examples: 10
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "scheme.yml"
    path.write_text(text, encoding="utf-8")
    return path


def post(text: str, *entities: tuple[str, str], relation: str | None = None) -> Post:
    found = [
        Entity(start=text.index(m), end=text.index(m) + len(m), label=label)
        for m, label in entities
    ]
    relations = [PostRelation(head=0, tail=1, label=relation)] if relation else []
    return Post(id=text[:8], text=text, entities=found, relations=relations)


def test_a_scheme_is_read_with_its_legal_types(tmp_path: Path) -> None:
    scheme = read_scheme(write(tmp_path, CLINICAL))
    assert (scheme.language, scheme.domain, scheme.examples) == ("German", "clinical notes", 10)
    assert list(scheme.entities) == ["DRUG", "DOSE"]
    assert scheme.legal() == {"DOSE": {"DRUG": ["dose_of"]}}


def test_several_types_of_one_end_are_all_legal(tmp_path: Path) -> None:
    text = CLINICAL.replace("tail: DRUG", "tail: [DRUG, DOSE]")
    legal = read_scheme(write(tmp_path, text)).legal()
    assert legal == {"DOSE": {"DRUG": ["dose_of"], "DOSE": ["dose_of"]}}


@pytest.mark.parametrize(
    "old, new, line, words",
    [
        ("tail: DRUG", "tail: PILL", 7, ["dose_of.tail", "'PILL'", "DRUG, DOSE"]),
        ("DOSE: amounts of a medicine", "DOSE: ''", 5, ["entities.DOSE", "empty"]),
        ("DOSE: amounts of a medicine", "DOSE: 3", 5, ["entities.DOSE", "3"]),
        ("definition: the amount of a medicine", "definition: ' '", 7, ["dose_of", "empty"]),
        ("examples: 10", "examples: -1", 9, ["examples"]),
        ("examples: 10", "exampels: 10", 9, ["exampels"]),
        ("domain: clinical notes", "domain: ''", 2, ["domain", "empty"]),
        ("  dose_of:", "  None:", 7, ["None", "no relation"]),
        ("  DOSE:", "  DRUG:", 5, ["found duplicate key"]),
        ("examples: 10", "examples: 2024-13-45", 1, ["it is not YAML (month must be in 1..12)"]),
        ("entities:", "entities: [", 3, ["YAML"]),
    ],
)
def test_a_broken_scheme_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, words: list[str]
) -> None:
    assert old in CLINICAL
    path = write(tmp_path, CLINICAL.replace(old, new))
    with pytest.raises(MMCoTError) as error:
        read_scheme(path)
    message = str(error.value)
    if "YAML" not in words:  # where YAML breaks off depends on what comes behind
        assert f"{path}, line {line}:" in message
    assert all(word in message for word in words), message


def test_a_missing_scheme_is_named(tmp_path: Path) -> None:
    with pytest.raises(MMCoTError, match=r"nothing\.yml"):
        read_scheme(tmp_path / "nothing.yml")


def test_posts_with_labels_beyond_the_scheme_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, CLINICAL)
    scheme = read_scheme(path)
    good = post("5 mg Ramipril", ("5 mg", "DOSE"), ("Ramipril", "DRUG"), relation="dose_of")
    check_labels(scheme, [good], path)
    for bad, word in (
        (post("Aspirin", ("Aspirin", "PILL")), "PILL"),
        (post("5 mg Ramipril", ("5 mg", "DOSE"), ("Ramipril", "DRUG"), relation="of"), "'of'"),
        (
            post("Ramipril 5 mg", ("Ramipril", "DRUG"), ("5 mg", "DOSE"), relation="dose_of"),
            "from DRUG to DOSE",
        ),
    ):
        with pytest.raises(MMCoTError) as error:
            check_labels(scheme, [good, bad], path)
        assert word in str(error.value) and bad.id in str(error.value)


def test_a_draft_names_labels_mentions_and_signatures_and_reads_back(tmp_path: Path) -> None:
    posts = [
        post("5 mg Ramipril", ("5 mg", "DOSE"), ("Ramipril", "DRUG"), relation="dose_of"),
        post("10 mg Ramipril", ("10 mg", "DOSE"), ("Ramipril", "DRUG"), relation="dose_of"),
        post("Aspirin", ("Aspirin", "DRUG")).model_copy(update={"split": "unlabelled"}),
    ]
    draft = draft_scheme(posts)
    assert '"Ramipril"' in draft.entities["DRUG"] and "2 mentions" in draft.entities["DRUG"]
    assert "Aspirin" not in draft.entities["DRUG"]  # unlabelled posts keep their labels
    assert draft.relations["dose_of"].head == ["DOSE"]
    assert draft.relations["dose_of"].tail == ["DRUG"]
    assert read_scheme(write(tmp_path, format_scheme(draft))) == draft


def test_a_draft_needs_labels() -> None:
    with pytest.raises(MMCoTError, match="labelled"):
        draft_scheme([Post(id="1", text="nothing")])


def test_the_least_scheme_is_one_label() -> None:
    assert Scheme(entities={"X": "x"}).legal() == {}
    with pytest.raises(ValueError, match="has no label"):
        Scheme(entities={})

"""Predictions files: what is written comes back, and what is no such file is named by its line."""

from __future__ import annotations

import json
from pathlib import Path

import found
import pytest

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.evaluation.predictions import read_predictions, write_predictions

GOOD = json.loads(
    found.predicted(
        "1", [found.word(0)], [(*found.word(0), 0.5)], confidence=0.25
    ).model_dump_json()
)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    a, b = found.word(0), found.word(2, label="LOC")
    docs = [
        *found.at_random(20, seed=1),
        found.predicted("ünlabelled", None, [(*a, 0.1)]),
        found.predicted(
            "relations",
            [a, b],
            [a, b],
            gold_relations=[found.related(a, b)],
            relations=[found.related(a, b, score=0.9)],
        ),
        found.predicted("no words", [], [], text="", confidence=1.0),
    ]
    path = tmp_path / "new" / "found.jsonl"
    write_predictions(path, docs)
    assert read_predictions(path) == docs
    assert len(path.read_bytes().splitlines()) == len(docs)


def test_an_id_that_is_there_twice_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    path.write_text("before", "utf-8")
    docs = [found.predicted(name, [], []) for name in ("a", "b", "a")]
    with pytest.raises(MMCoTError, match=r"\[E808\] .*found.jsonl: two docs have the id 'a'"):
        write_predictions(path, docs)
    assert path.read_text("utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "JSON"),
        (json.dumps({**GOOD, "gold": None, "colour": 1}), "colour"),
        (json.dumps({key: value for key, value in GOOD.items() if key != "entities"}), "entities"),
        (json.dumps({**GOOD, "confidence": 1.5}), "confidence"),
        (json.dumps({**GOOD, "confidence": "high"}), "confidence"),
        (json.dumps({**GOOD, "entities": [{"start": 0, "end": 4}]}), "label"),
        (json.dumps({**GOOD, "text": "w00"}), "gold.*ends past"),
        (
            json.dumps(
                {**GOOD, "entities": [{"start": s, "end": 9, "label": "PER"} for s in (0, 5)]}
            ),
            "entities.*overlap",
        ),
        (json.dumps({**GOOD, "id": "0"}), "'0' occurs twice"),
    ],
)
def test_a_bad_line_is_named(line: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    write_predictions(path, [found.predicted("0", [], [])])
    with path.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    with pytest.raises(MMCoTError, match=rf"\[E101\] .*found.jsonl, line 2: .*{problem}"):
        read_predictions(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MMCoTError, match="E100"):
        read_predictions(tmp_path / "absent.jsonl")

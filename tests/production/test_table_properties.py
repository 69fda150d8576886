"""Whatever a table holds comes out as it went in: any cells, any names of columns, in any order."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import spacy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_tables import read_jsonl

from spacy_mmcot import AnnotateSettings, ColumnNames, annotate
from spacy_mmcot.production import annotate as module

ADDED = ("entities", "relations", "confidence", "weakest")
# Any character but halves of surrogate pairs, which no file in UTF-8 can hold; often those that
# formats have rules about.
CHARACTERS = st.one_of(
    st.sampled_from("\r\n\",\t \ufeff\0\u2028\x85;|='\\"), st.characters(codec="utf-8")
)
TEXTS = st.text(CHARACTERS, max_size=8)
FILLED = TEXTS.filter(str.strip)
NAMES = st.text(CHARACTERS, max_size=5).filter(lambda name: name not in {*ADDED, "id", "image"})
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXTS, values, max_size=3),
    max_leaves=6,
)
QUICK = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", autouse=True)
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An empty pipeline, loaded once."""
    folder = tmp_path_factory.mktemp("blank")
    nlp = spacy.blank("xx")
    nlp.to_disk(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_pipeline", lambda source: nlp)
        yield folder


@st.composite
def tables(
    draw: st.DrawFn, cells: st.SearchStrategy[Any]
) -> tuple[list[str], list[dict[str, Any]], str]:
    """Columns in any order, rows, and the name of the column with the texts."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    text = draw(st.sampled_from(names))
    rows = st.fixed_dictionaries({name: FILLED if name == text else cells for name in names})
    return names, draw(st.lists(rows, max_size=5)), text


def run(pipeline: Path, source: Path, target: Path, text: str, chunk: int) -> None:
    names = ColumnNames(text=text)
    result = annotate(
        pipeline, source, target, AnnotateSettings(names, chunk_rows=chunk), overwrite=True
    )
    assert result.rejected == 0


def write_csv(path: Path, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: cell or None for name, cell in row.items() if name not in ADDED}
            for row in csv.DictReader(file, strict=True)
        ]


@QUICK
@given(table=tables(TEXTS), chunk=st.integers(1, 3))
def test_csv_keeps_every_cell(table: tuple, chunk: int, pipeline: Path, tmp_path: Path) -> None:
    names, rows, text = table
    source = tmp_path / "in.csv"
    write_csv(source, names, rows)
    expected = [{name: cell or None for name, cell in row.items()} for row in rows]
    run(pipeline, source, tmp_path / "out.csv", text, chunk)
    assert read_csv(tmp_path / "out.csv") == expected
    # Its own output can be read again, and by way of the other format.
    prefix = ColumnNames(text=text, prefix="again_")
    annotate(
        pipeline,
        tmp_path / "out.csv",
        tmp_path / "again.jsonl",
        AnnotateSettings(prefix),
        overwrite=True,
    )
    again = read_jsonl(tmp_path / "again.jsonl")
    assert [{name: row[name] for name in names} for row in again] == expected


@QUICK
@given(table=tables(JSON), chunk=st.integers(1, 3))
def test_json_lines_keep_every_value(
    table: tuple, chunk: int, pipeline: Path, tmp_path: Path
) -> None:
    names, rows, text = table
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    run(pipeline, source, target, text, chunk)
    found = read_jsonl(target)
    assert [{name: row[name] for name in names} for row in found] == rows
    assert [tuple(row)[: len(names)] for row in found] == [tuple(row) for row in rows]


@QUICK
@given(table=tables(JSON), chunk=st.integers(1, 3))
def test_json_lines_become_csv(table: tuple, chunk: int, pipeline: Path, tmp_path: Path) -> None:
    _, rows, text = table
    source, target = tmp_path / "in.jsonl", tmp_path / "out.csv"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    run(pipeline, source, target, text, chunk)
    for row, cells in zip(rows, read_csv(target), strict=True):
        for name, value in row.items():
            if isinstance(value, str | None):
                assert cells[name] == (value or None)
            else:
                assert json.loads(cells[name]) == value

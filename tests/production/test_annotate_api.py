"""`spacy_mmcot.annotate`: what the command does, called from Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_tables import read_jsonl, rows, write_jsonl

from spacy_mmcot import AnnotateSettings, ColumnNames, MMCoTError, annotate


def test_a_table_from_python(toy_model: Path, tmp_path: Path) -> None:
    values = [{"body": row["text"], "n": row["n"]} for row in rows(5)]
    source = write_jsonl(tmp_path / "in.jsonl", [*values, {"body": 1}])
    settings = AnnotateSettings(ColumnNames(text="body", prefix="found_"), chunk_rows=4)
    progress: list[tuple[int, int]] = []

    def note(total: int, done: int) -> None:
        progress.append((total, done))

    output = tmp_path / "out.jsonl"
    result = annotate(toy_model, source, output, settings, on_progress=note)
    assert (result.rows, result.rejected, result.resumed) == (6, 1, 0)
    assert progress == [(6, 0), (6, 4), (6, 6)]
    found = read_jsonl(output)
    assert [row["n"] for row in found] == [0, 1, 2, 3, 4]
    assert any(row["found_entities"] for row in found)
    again = annotate(toy_model, [source], output, settings)
    assert (again.rows, again.rejected, again.resumed) == (6, 1, 6)
    with pytest.raises(MMCoTError, match="E745"):
        annotate(toy_model, source, output)

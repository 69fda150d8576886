"""A results file outlives kills, and the table says what its lines say."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from research.results import append_result, by_data, read_results, summary
from spacy_mmcot.errors import MMCoTError


def line(run: str, seed: int, f: float, experiment: str = "small") -> dict[str, Any]:
    metrics = {"ents_f": f, "training": {"steps": 20, "seconds": 2.0 + seed}}
    return {
        **{"experiment": experiment, "run": run, "seed": seed, "metrics": metrics},
        **{"schema": 1, "evaluated_on": "dev", "also_on": {}, "other_pictures": {}},
    }


def test_lines_come_back_in_order_of_their_experiment(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    assert read_results(path, "small") == []
    lines = [line("a", 1, 0.5), line("b", 1, 0.6, "other"), line("a", 2, 0.7)]
    for row in lines:
        append_result(path, row)
    assert read_results(path, "small") == [lines[0], lines[2]]
    assert read_results(path, "other") == [lines[1]]
    assert read_results(path, "third") == []


def test_a_line_cut_off_by_a_kill_costs_that_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_result(path, line("a", 1, 0.5))
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line("b", 1, 0.6))[:40])
    assert read_results(path, "small") == [line("a", 1, 0.5)]
    append_result(path, line("c", 1, 0.7))
    append_result(path, line("d", 1, 0.8))
    assert [row["run"] for row in read_results(path, "small")] == ["a", "c", "d"]


@pytest.mark.parametrize("schema", [None, 0, 2])
def test_lines_of_another_schema_are_refused(schema: int | None, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_result(path, {**line("a", 1, 0.5), "schema": schema})
    with pytest.raises(MMCoTError, match=r"results\.jsonl.*schema 1"):
        read_results(path, "small")


def test_a_last_line_without_its_line_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(line("a", 1, 0.5)), "utf-8")
    append_result(path, line("b", 1, 0.6))
    assert [row["run"] for row in read_results(path, "small")] == ["a", "b"]


def shown(results: list[dict[str, Any]]) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=120)
    console.print(summary(results, "ents_f"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    rows = [row for row in text.splitlines() if row.startswith("│")]
    return [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]


def test_the_table(tmp_path: Path) -> None:
    results = [line("a", 1, 0.5), line("b", 1, 0.61234), line("a", 3, 0.6)]
    assert shown(results) == [
        ["a", "50.00", "60.00", "55.00", "10.00", "20", "4"],
        ["b", "61.23", "", "61.23", "", "20", "3"],
    ]


def test_a_run_repeated_counts_once_with_its_last_result() -> None:
    results = [line("a", 1, 0.5), line("a", 1, 0.6)]
    assert shown(results) == [["a", "60.00", "60.00", "", "20", "3"]]


def test_runs_without_the_score_are_left_out() -> None:
    relations = line("a", 1, 0.5) | {"metrics": {"rel_f": 0.4, "training": None}}
    assert shown([relations, line("b", 1, 0.6)]) == [["b", "60.00", "60.00", "", "20", "3"]]
    assert summary([relations], "ents_f") is None
    table = summary([relations], "rel_f")
    assert table is not None and table.title == "relation F1 (gold mentions)"


def test_further_data_has_tables_of_its_own() -> None:
    more = {**line("a", 1, 0.5)["metrics"], "ents_f": 0.7}
    results = [line("a", 1, 0.5) | {"also_on": {"folder/other": more}}, line("b", 1, 0.6)]
    found = by_data(results)
    assert list(found) == ["dev", "folder/other"]
    assert shown(found["dev"]) == shown(results)
    assert shown(found["folder/other"]) == [["a", "70.00", "70.00", "", "20", "3"]]


def test_pictures_read_in_other_ways_are_rows_beside_their_run() -> None:
    ways = {
        way: {**line("a", 1, 0.5)["metrics"], "ents_f": f}
        for way, f in (("none", 0.45), ("real", 0.5), ("shuffled", 0.4), ("black", 0.3))
    }
    results = [line("a", seed, 0.5) | {"other_pictures": ways} for seed in (1, 2)]
    results.append(line("b", 1, 0.6))
    found = by_data(results)
    assert list(found) == ["dev"]
    assert [row[:4] for row in shown(found["dev"])] == [
        ["a", "50.00", "50.00", "50.00"],
        ["a, no pictures", "45.00", "45.00", "45.00"],
        ["a, real pictures", "50.00", "50.00", "50.00"],
        ["a, shuffled pictures", "40.00", "40.00", "40.00"],
        ["a, black pictures", "30.00", "30.00", "30.00"],
        ["b", "60.00", "", "60.00"],
    ]


def test_ambiguous_names_have_a_table_of_their_own() -> None:
    with_names, without = line("a", 1, 0.5), line("b", 1, 0.6)
    with_names["metrics"]["ambiguous_f"] = 0.25
    without["metrics"]["ambiguous_f"] = None
    table = summary([with_names, without], "ambiguous_f", "dev")
    assert table is not None and table.title == "dev: entity F1 (ambiguous names)"
    assert table.row_count == 1
    assert summary([without], "ambiguous_f") is None


def test_no_results_yet() -> None:
    assert summary([], "ents_f") is None

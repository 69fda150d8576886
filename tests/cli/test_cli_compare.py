"""compare: which of two pipelines is better, from the files that evaluate wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import found
import pytest
from click.testing import Result

from spacy_mmcot.evaluation.predictions import Predicted, write_predictions

Command = Callable[..., Result]
Fails = Callable[..., str]


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, docs: list[Predicted]) -> Path:
        path = tmp_path / f"{name}.jsonl"
        write_predictions(path, docs)
        return path

    return write


@pytest.fixture
def pair(file: Callable[..., Path]) -> dict[str, Path]:
    """A baseline, and a student that is better."""
    return {
        name: file(name, found.at_random(200, int(100 * right), right))
        for name, right in (("baseline", 0.6), ("student", 0.9))
    }


def compared(command: Command, tmp_path: Path, *arguments: object) -> dict[str, Any]:
    output = tmp_path / "new" / "comparison.json"
    result = command("compare", *arguments, "--json", output)
    assert result.exit_code == 0, result.output
    return {**json.loads(output.read_text("utf-8")), "shown": result.output}


def test_a_better_student(command: Command, pair: dict[str, Path], tmp_path: Path) -> None:
    files = (pair["baseline"], pair["student"])
    figures = compared(command, tmp_path, *files)
    ents = figures["ents"]
    assert 0 < ents["baseline_f"] < ents["student_f"] < 1
    assert ents["difference"] == pytest.approx(ents["student_f"] - ents["baseline_f"])
    assert 0 < ents["low"] < ents["difference"] < ents["high"]
    assert ents["p"] < 0.01
    assert (ents["docs"], figures["resamples"], figures["seed"]) == (200, 10_000, 0)
    assert (figures["baseline"], figures["student"]) == tuple(map(str, files))
    assert "rel_e2e" not in figures and "relations" not in figures["shown"]
    assert f"{100 * ents['difference']:+.2f}" in figures["shown"]
    assert "10000 resamples" in figures["shown"]


def test_the_seed_settles_the_resamples(
    command: Command, pair: dict[str, Path], tmp_path: Path
) -> None:
    options = (pair["baseline"], pair["student"], "--resamples", "50")
    one, again = (compared(command, tmp_path, *options, "--seed", "3") for _ in range(2))
    other = compared(command, tmp_path, *options, "--seed", "4")
    assert one == again
    assert one["ents"]["low"] != other["ents"]["low"]
    assert one["ents"]["student_f"] == other["ents"]["student_f"]


def test_docs_in_another_order_and_unlabelled_ones(
    command: Command, file: Callable[..., Path], tmp_path: Path
) -> None:
    docs = [*found.at_random(50, seed=1), found.predicted("bare", None, [found.word(0)])]
    figures = compared(command, tmp_path, file("a", docs), file("b", docs[::-1]))
    assert figures["ents"]["docs"] == 50
    assert (figures["ents"]["difference"], figures["ents"]["p"]) == (0, 1)


def with_relations(seed: int, looks: bool = True) -> list[Predicted]:
    """A relation between two gold mentions in every doc, found in every third from `seed` on."""
    a, b = found.word(0), found.word(2, label="LOC")
    return [
        found.predicted(
            str(i),
            [a, b],
            [a, b],
            gold_relations=[found.related(a, b)],
            relations=([found.related(a, b, score=0.5)] * (i % 3 == seed)) if looks else None,
        )
        for i in range(30)
    ]


def test_relations_end_to_end(command: Command, file: Callable[..., Path], tmp_path: Path) -> None:
    figures = compared(
        command, tmp_path, file("a", with_relations(0)), file("b", with_relations(1))
    )
    assert figures["rel_e2e"]["student_f"] == pytest.approx(2 * 10 / (10 + 30))
    assert figures["rel_e2e"]["low"] < figures["rel_e2e"]["difference"] == 0
    assert figures["ents"]["student_f"] == 1
    assert "relations, end to end" in figures["shown"]


def test_relations_only_where_both_look_for_them(
    command: Command, file: Callable[..., Path], tmp_path: Path
) -> None:
    blind = file("b", with_relations(0, looks=False))
    assert "rel_e2e" not in compared(command, tmp_path, file("a", with_relations(0)), blind)


def test_a_mention_with_another_label_makes_its_relations_wrong(
    command: Command, file: Callable[..., Path], tmp_path: Path
) -> None:
    docs = with_relations(0)
    wrong = [
        doc.model_copy(
            update={"entities": [e.model_copy(update={"label": "ORG"}) for e in doc.entities]}
        )
        for doc in docs
    ]
    figures = compared(command, tmp_path, file("a", docs), file("b", wrong))
    assert figures["rel_e2e"]["student_f"] == 0 < figures["rel_e2e"]["baseline_f"]


def test_other_docs(fails: Fails, file: Callable[..., Path]) -> None:
    docs = found.at_random(5, seed=1)
    line = fails("E800", "compare", file("a", docs), file("b", docs[2:]))
    assert "'post-0', 'post-1'" in line


def test_other_labels(fails: Fails, file: Callable[..., Path]) -> None:
    pair = (file(str(i), found.at_random(50, seed=1, gold_seed=i)) for i in (1, 2))
    assert "'post-" in fails("E801", "compare", *pair)


def test_nothing_to_compare(fails: Fails, file: Callable[..., Path]) -> None:
    bare = file("a", [found.predicted("1", None, [])])
    assert str(bare) in fails("E802", "compare", bare, bare)


def test_files_that_are_none(fails: Fails, pair: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "posts.jsonl").write_text('{"id": "1", "text": "Ada"}\n', "utf-8")
    fails("E101", "compare", pair["baseline"], tmp_path / "posts.jsonl")
    fails("E100", "compare", tmp_path / "absent.jsonl", pair["student"])
    (tmp_path / "file").write_text("", "utf-8")
    target = tmp_path / "file" / "out.json"
    fails("E103", "compare", pair["baseline"], pair["student"], "--json", target)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.jsonl"],
        ["a.jsonl", "b.jsonl", "c.jsonl"],
        ["a.jsonl", "b.jsonl", "--resamples", "0"],
    ],
)
def test_wrong_usage(command: Command, arguments: list[str]) -> None:
    result = command("compare", *arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr

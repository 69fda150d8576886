"""cascade: thresholds of the confidence, and what they cost and give."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import found
import pytest
from click.testing import Result

from spacy_mmcot.evaluation.predictions import Predicted, write_predictions
from spacy_mmcot.evaluation.scores import compute_f, count_entities

Command = Callable[..., Result]
Fails = Callable[..., str]

DOCS = found.at_random(200, seed=1)
LLM_DOCS = [doc.model_copy(update={"confidence": None}) for doc in found.at_random(200, 2, 0.97)]


# So sure of a miss that no threshold gives 100 F1.
DOCS.append(found.predicted("sure", [found.word(0)], [], confidence=1.0))
LLM_DOCS.append(found.predicted("sure", [found.word(0)], [found.word(0)]))


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    path = tmp_path / "pipeline.jsonl"
    write_predictions(path, DOCS)
    return path


@pytest.fixture
def llm(tmp_path: Path) -> Path:
    path = tmp_path / "llm.jsonl"
    write_predictions(path, LLM_DOCS[::-1])
    return path


def figures_of(command: Command, pipeline: Path, *options: object) -> dict[str, Any]:
    output = pipeline.parent / "new" / "cascade.json"
    result = command("cascade", pipeline, "--json", output, *options)
    assert result.exit_code == 0, result.output
    return {**json.loads(output.read_text("utf-8")), "shown": result.output}


def f_of(docs: list[Predicted]) -> float:
    return float(compute_f(count_entities(docs).sum(axis=0)))


def test_without_an_llm_only_what_is_known(command: Command, pipeline: Path) -> None:
    figures = figures_of(command, pipeline)
    assert figures["docs"] == len(DOCS)
    assert figures["f"] == pytest.approx(f_of(DOCS))
    assert figures["aurc"] < figures["error_rate"]
    assert (figures["llm_f"], figures["chosen"]) == (None, None)
    assert {point["cascade_f"] for point in figures["curve"]} == {None}
    assert {step["cost_per_1000"] for step in figures["steps"]} == {None}
    assert [round(step["sent"], 1) for step in figures["steps"]] == [i / 10 for i in range(11)]
    # The surer the docs, the better.
    kept = [step["f"] for step in figures["steps"][:-1]]
    assert kept[0] == figures["f"] < kept[5] < kept[8]
    assert "with LLM" not in figures["shown"] and "USD" not in figures["shown"]
    assert "chosen" not in figures["shown"]


def test_with_the_llm_the_cascade_is_measured(command: Command, pipeline: Path, llm: Path) -> None:
    options = ("--llm-predictions", llm, "--cost-per-doc", "0.004", "--threshold", "0.5")
    figures = figures_of(command, pipeline, *options)
    chosen = figures["chosen"]
    by_id = {doc.id: doc for doc in LLM_DOCS}
    answers = [by_id[doc.id] if doc.confidence < 0.5 else doc for doc in DOCS]  # type: ignore[operator]
    assert chosen["threshold"] == 0.5
    assert chosen["cascade_f"] == pytest.approx(f_of(answers))
    assert chosen["f"] == pytest.approx(f_of([d for d in DOCS if d.confidence >= 0.5]))  # type: ignore[operator]
    sent = sum(doc.confidence < 0.5 for doc in DOCS) / len(DOCS)  # type: ignore[operator]
    assert chosen["sent"] == pytest.approx(sent)
    assert chosen["cost_per_1000"] == pytest.approx(4 * sent)
    assert figures["llm_f"] == pytest.approx(f_of(LLM_DOCS)) and figures["llm_measured"]
    assert figures["curve"][-1]["cascade_f"] == pytest.approx(figures["llm_f"])
    assert "send docs with doc._.mmcot_confidence < 0.5: " in figures["shown"]
    assert "(measured)" in figures["shown"]


def test_by_default_as_good_as_the_llm(command: Command, pipeline: Path, llm: Path) -> None:
    figures = figures_of(command, pipeline, "--llm-predictions", llm)
    chosen = figures["chosen"]
    assert chosen["cascade_f"] >= figures["llm_f"] and 0 < chosen["sent"] <= 1
    before = [p for p in figures["curve"] if p["sent"] < chosen["sent"]]
    assert before and all(p["cascade_f"] < figures["llm_f"] for p in before)


def test_a_given_f_of_the_llm_is_a_target_for_what_is_kept(
    command: Command, pipeline: Path
) -> None:
    figures = figures_of(command, pipeline, "--llm-f", "0.8")
    assert figures["chosen"]["f"] >= 0.8 and figures["chosen"]["cascade_f"] is None
    assert (figures["llm_f"], figures["llm_measured"]) == (0.8, False)
    assert "F1 of the LLM 80.00 (as given)" in figures["shown"]
    out_of_reach = figures_of(command, pipeline, "--llm-f", "1.0")
    assert out_of_reach["chosen"] is None
    assert "chosen: none, on no share of the docs" in out_of_reach["shown"].replace("\n", " ")


def test_a_target_and_a_budget(command: Command, pipeline: Path) -> None:
    target = figures_of(command, pipeline, "--target-f", "0.75", "--llm-f", "0.9")["chosen"]
    assert target["f"] >= 0.75
    budget = figures_of(command, pipeline, "--budget-share", "0.305")["chosen"]
    assert budget["sent"] == pytest.approx(0.305, abs=0.01) and budget["sent"] <= 0.305
    everything = figures_of(command, pipeline, "--budget-share", "1")
    assert everything["chosen"]["threshold"] is None
    assert "send all docs" in everything["shown"]
    nothing = figures_of(command, pipeline, "--budget-share", "0")
    assert "send none of these docs" in nothing["shown"]


def test_a_target_out_of_reach(fails: Fails, pipeline: Path) -> None:
    line = fails("E807", "cascade", pipeline, "--target-f", "0.9999")
    assert "0.9999" in line and "the best is 0." in line


def test_unlabelled_docs_do_not_count(command: Command, pipeline: Path) -> None:
    figures = figures_of(command, pipeline)
    write_predictions(pipeline, [*DOCS, found.predicted("bare", None, [found.word(0)])])
    assert figures_of(command, pipeline) == figures


def test_files_that_cannot_be_used(fails: Fails, pipeline: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    write_predictions(other, [found.predicted("1", None, [], confidence=0.5)])
    assert str(other) in fails("E805", "cascade", other)
    write_predictions(other, [found.predicted("the one", [], [])])
    assert "'the one'" in fails("E806", "cascade", other)
    assert "'the one'" in fails("E800", "cascade", pipeline, "--llm-predictions", other)
    fails("E100", "cascade", tmp_path / "absent.jsonl")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--llm-f", "0.5", "--llm-predictions", "a.jsonl"], "--llm-f and --llm-predictions"),
        (["--target-f", "0.5", "--threshold", "0.5"], "--target-f and --threshold"),
        (["--target-f", "80"], "--target-f"),
        (["--cost-per-doc", "-1"], "--cost-per-doc"),
    ],
)
def test_wrong_usage(options: list[str], named: str, command: Command, pipeline: Path) -> None:
    result = command("cascade", pipeline, *options)
    assert result.exit_code == 2
    assert named in result.stderr

"""An LLM's conclusions as findings: scores by sureness, false relations, disagreements."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
from click.testing import Result
from spacy.tokens import Doc

from spacy_mmcot.corpus.docbin import write_docs
from spacy_mmcot.corpus.docs import make_doc
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.evaluation.conclusions import (
    attach_conclusions,
    collect_conclusions,
    evaluate_conclusions,
    list_disagreements,
)
from spacy_mmcot.evaluation.predictions import read_predictions
from spacy_mmcot.types import Answers, Post

TEXT = "Ada Berg met Oslo in Oslo"
GOLD = [{"start": 0, "end": 8, "label": "PER"}, {"start": 13, "end": 17, "label": "PER"}]
GOLD += [{"start": 21, "end": 25, "label": "LOC"}]


def answers(name: str, entities: Any = None, relations: Any = None) -> Answers:
    """Entities as (mention, label, sureness), relations as (head, label, tail, sureness)."""
    conclusion: dict[str, Any] = {}
    if entities is not None:
        conclusion["entities"] = [
            dict(zip(("mention", "label", "sure"), each, strict=True)) for each in entities
        ]
    if relations is not None:
        conclusion["relations"] = [
            dict(zip(("head", "label", "tail", "sure"), each, strict=True)) for each in relations
        ]
    return Answers.model_validate({"id": name, "conclusion": conclusion})


def make(name: str, relations: Any = (), pairs: Any = None, entities: Any = GOLD) -> Doc:
    related = [{"head": head, "tail": tail, "label": label} for head, label, tail in relations]
    post = {"id": name, "text": TEXT, "entities": entities, "relations": related, "pairs": pairs}
    return make_doc(spacy.blank("en"), Post.model_validate(post))


@pytest.fixture
def docs() -> list[Doc]:
    """In the first the LLM is sure of one wrong label and of one relation too many, and not sure of
    a right one; in the second it overlooks an entity; nobody asked about the third."""
    said = {
        "a": answers(
            "a",
            [("Ada Berg", "PER", "high"), ("Oslo", "LOC", "high"), ("Oslo", "LOC", "low")],
            [("Ada Berg", "at", "Oslo", "low")],
        ),
        "b": answers("b", [("Ada Berg", "PER", "high"), ("Oslo", "PER", "medium")], []),
    }
    return list(attach_conclusions([make("a", [(0, "at", 2)]), make("b"), make("c")], said))


def test_scores_are_those_of_a_pipeline_and_sure_and_unsure_stand_apart(docs: list[Doc]) -> None:
    metrics = evaluate_conclusions(docs)
    assert (metrics["docs"], metrics["docs_with_conclusion"]) == (3, 2)
    # 4 of 5 concluded entities are right, of 6 gold ones.
    assert [metrics[f"ents_{key}"] for key in "pr"] == pytest.approx([4 / 5, 4 / 6])
    assert metrics["seqeval_f"] == pytest.approx(metrics["ents_f"])
    assert [metrics[f"ents_sure_{key}"] for key in "prn"] == pytest.approx([2 / 3, 2 / 6, 3])
    assert [metrics[f"ents_unsure_{key}"] for key in "prn"] == pytest.approx([1, 2 / 6, 2])
    assert metrics["ents_sure_per_type"]["LOC"] == {"p": 0, "r": 0, "f": 0, "n": 1}
    assert metrics["ents_unsure_per_type"]["PER"]["p"] == 1.0
    assert not any(key.endswith(("ece", "reliability")) for key in metrics)


def test_a_false_relation_counts_among_unrelated_pairs_alone(docs: list[Doc]) -> None:
    """The nearest Oslo is taken for the tail: gold relates the other one."""
    metrics = evaluate_conclusions(docs)
    assert metrics["rel_f"] == metrics["rel_e2e_f"] == 0.0
    # 12 ordered pairs, one of them related.
    assert metrics["rel_false_positives"] == pytest.approx(100 / 11)
    assert (metrics["rel_sure_n"], metrics["rel_unsure_n"]) == (0, 1)


def test_given_pairs_are_scored_on_gold_mentions_without_entities() -> None:
    said = {
        "a": answers("a", None, [("Ada Berg", "at", "Oslo", "high")]),
        "b": answers("b", None, [("Ada Berg", "None", "Oslo", "high")]),
    }
    data = [make(name, [(0, "at", 1)], [(0, 1), (1, 2)]) for name in ("a", "b")]
    metrics = evaluate_conclusions(attach_conclusions(data, said))
    assert "ents_f" not in metrics
    assert [metrics[f"rel_{key}"] for key in "pr"] == [1.0, 0.5]
    assert metrics["rel_e2e_r"] == 0.5
    assert metrics["rel_false_positives"] == 0.0


def test_disagreements_name_both_sides_and_the_sure_ones_come_first(docs: list[Doc]) -> None:
    rows = list_disagreements([one for one in collect_conclusions(docs) if one])
    assert [(row["id"], row["sure"]) for row in rows] == [
        *[("a", "high"), ("a", "low"), ("a", None), ("b", None)]
    ]
    assert rows[0]["text"] == TEXT
    oslo = {"mention": "Oslo", "start": 13, "end": 17}
    assert rows[0]["gold"] == {**oslo, "label": "PER"}
    assert rows[0]["conclusion"] == {**oslo, "label": "LOC"}
    assert (rows[1]["gold"], rows[1]["conclusion"]["label"]) == (None, "at")
    assert (rows[2]["gold"]["tail_start"], rows[2]["conclusion"]) == (21, None)
    assert rows[3]["gold"]["mention"] == "Oslo"


def test_nothing_to_compare(docs: list[Doc]) -> None:
    unlabelled = list(attach_conclusions([make("a", entities=None)], {"a": answers("a", [])}))
    for data in (docs[2:], unlabelled):
        with pytest.raises(MMCoTError, match="E809"):
            evaluate_conclusions(data)


def test_the_command_reads_recorded_answers_and_writes_all_files(
    command: Callable[..., Result], docs: list[Doc], tmp_path: Path
) -> None:
    entities = [("Ada Berg", "PER", "low"), ("Oslo", "LOC", "high")]
    said = [answers("a", entities), answers("x", [])]
    lines = "".join(each.model_dump_json(exclude_none=True) + "\n" for each in said)
    (tmp_path / "said.jsonl").write_text(lines, "utf-8")
    write_docs(tmp_path / "data.spacy", docs)
    files = [tmp_path / name for name in ("llm.json", "found.jsonl", "differ.jsonl")]
    options = zip(("--output", "--predictions", "--disagreements"), files, strict=True)
    given = ("evaluate", tmp_path / "data.spacy", "--answers", tmp_path / "said.jsonl")
    done = command(*given, *(part for option in options for part in option))
    assert done.exit_code == 0, done.output
    assert "3 docs, 1 with a conclusion" in done.output
    (row,) = (
        line
        for line in done.output.partition("by the LLM's sureness")[2].splitlines()
        if line.startswith("│ all")
    )
    cells = [cell.strip() for cell in row.split("│")[2:8]]
    assert cells == ["1", "0.00", "0.00", "1", "100.00", "33.33"]
    assert json.loads(files[0].read_text("utf-8"))["ents_sure_n"] == 1
    assert [doc.id for doc in read_predictions(files[1])] == ["a"]
    assert len(files[2].read_text("utf-8").splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["data.spacy"], "E810"),
        (["model", "data.spacy", "--answers", "said.jsonl"], "E810"),
        (["data.spacy", "--answers", "said.jsonl", "--knowledge"], "E811"),
        (["data.spacy", "--answers", "said.jsonl", "--pictures", "real"], "E811"),
        (["model", "data.spacy", "--disagreements", "differ.jsonl"], "E811"),
    ],
)
def test_options_that_do_not_fit(
    command: Callable[..., Result], words: list[str], code: str
) -> None:
    done = command("evaluate", *words)
    assert done.exit_code == 2
    assert f"[{code}]" in done.stderr

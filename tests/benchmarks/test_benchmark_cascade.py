"""`benchmarks cascade`: gain by share of docs sent, and docs and budget on a failing server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import spacy
import toy
from spacy.tokens import DocBin
from typer.testing import CliRunner

from benchmarks.__main__ import app

# The toy student knows none of these names.
NAMES = ("Ugo", "Zoe", "Ines", "Ludo")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Docs that the toy student knows, and four that the LLM alone reads right."""
    docs = [example.reference for example in toy.examples(spacy.blank("en"))]
    for name in NAMES:
        doc = spacy.blank("en").make_doc(f"perhaps {name} left for good")
        doc.set_ents([doc.char_span(8, 8 + len(name), "PER")], default="outside")
        docs.append(doc)
    for doc in docs:
        said = [{"mention": e.text, "label": e.label_, "sure": "high"} for e in doc.ents]
        places = [{"start": e.start_char} for e in doc.ents]
        entities = [{**item, **place} for item, place in zip(said, places, strict=True)]
        doc._.mmcot_knowledge = {"conclusion": {"reasoning": "", "entities": entities}}
    path = tmp_path_factory.mktemp("data") / "dev.spacy"
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


def test_gain_faults_and_budget(toy_model: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "cascade.json"
    words = ["cascade", str(toy_model), str(data), "--docs", "60", "--json", str(output)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    figures = json.loads(output.read_text("utf-8"))
    by_share = figures["cascade_f_by_share"]
    assert list(by_share) == [f"{i / 10:.1f}" for i in range(11)]
    assert by_share["0.0"] < by_share["1.0"] == 1.0 and figures["docs"] == 11
    expected = (by_share["0.3"] - by_share["0.0"]) / (1 - by_share["0.0"])
    assert figures["gain_share_at_30"] == pytest.approx(expected, abs=0.01) and expected > 0.3
    assert figures["sent"][0] == 0 and figures["sent"][-1] == 1
    assert figures["docs_lost"] == 0 and sum(figures["sources"].values()) == 60
    assert figures["sources"]["llm"] >= 10 and figures["sources"]["student: no budget"] >= 10
    assert sum(figures["faults"].values()) >= 3
    assert 0 < figures["budget_spent"] <= figures["budget"]


def test_docs_without_conclusions_are_an_error(toy_model: Path, tmp_path: Path) -> None:
    docs = [example.reference for example in toy.examples(spacy.blank("en"))]
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "dev.spacy")
    done = CliRunner().invoke(app, ["cascade", str(toy_model), str(tmp_path / "dev.spacy")])
    assert done.exit_code == 1 and "[E809]" in done.output

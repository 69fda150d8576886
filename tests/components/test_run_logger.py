"""What training cost is in every saved pipeline."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import spacy
import toy
from spacy.language import Language
from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from spacy.training.loop import train

from spacy_mmcot.components.base import make_run_logger


def info(step: int) -> dict:
    scores = {"ents_f": 0.5}
    return {
        **{
            "epoch": 0,
            "step": step,
            "score": 0.5,
            "other_scores": scores,
            "seconds": 1,
            "words": 9,
        },
        **{"losses": {"mmcot_ner": 1.0}, "checkpoints": []},
    }


def test_seconds_are_those_of_update_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    nlp = toy.pipeline()
    nlp.config["training"]["score_weights"] = {"ents_f": 1.0}
    nlp.config["training"]["logger"] = {"@loggers": "spacy_mmcot.RunLogger.v1"}
    now = 100.0
    clock = SimpleNamespace(perf_counter=lambda: now)
    monkeypatch.setattr("spacy_mmcot.components.base.time", clock)
    log, finalize = make_run_logger()(nlp, io.StringIO(), io.StringIO())
    log(info(0))
    for _ in range(3):
        now += 0.02
        log(None)
    now += 3.0  # an evaluation
    log(info(4))
    finalize()
    # Three steps were timed; the two with an evaluation count as mean ones.
    assert nlp.meta["mmcot_training"] == {"steps": 5, "seconds": 0.1}


def test_a_line_every_half_minute_says_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nlp = toy.pipeline()
    nlp.config["training"].update(score_weights={"ents_f": 1.0}, patience=1000)
    nlp.config["training"]["max_steps"] = "${training.patience}"
    now = 0.0
    clock = SimpleNamespace(perf_counter=lambda: now)
    monkeypatch.setattr("spacy_mmcot.components.base.time", clock)
    out = io.StringIO()
    log, _ = make_run_logger()(nlp, out, io.StringIO())
    log(info(0))
    table = out.getvalue()
    spoken = [now]
    for _ in range(60):
        now += 1.5
        before = out.getvalue()
        log(None)
        if out.getvalue() != before:
            spoken.append(now)
    lines = out.getvalue().removeprefix(table).splitlines()
    assert lines[0] == "step 15 of 1000, 1.50 s a step, 25 min left"
    assert max(b - a for a, b in itertools.pairwise([*spoken, now])) <= 30


def test_nothing_timed_yet() -> None:
    nlp = toy.pipeline()
    log, _ = make_run_logger()(nlp, io.StringIO(), io.StringIO())
    log(info(0))
    assert nlp.meta["mmcot_training"] == {"steps": 1, "seconds": 0.0}


def training_pipeline(folder: Path) -> Language:
    data = DocBin(docs=[eg.reference for eg in toy.examples(spacy.blank("en"))])
    data.to_disk(folder / "train.spacy")
    config = toy.pipeline().config.copy()
    corpus = {"@readers": "spacy_mmcot.Corpus.v1", "path": str(folder / "train.spacy")}
    config["corpora"] = {"train": corpus, "dev": dict(corpus)}
    config["training"].update(
        {
            "max_steps": 12,
            "eval_frequency": 4,
            "logger": {"@loggers": "spacy_mmcot.RunLogger.v1", "progress_bar": False},
        }
    )
    return init_nlp(config)


def test_a_trained_pipeline_carries_its_cost(tmp_path: Path) -> None:
    nlp = training_pipeline(tmp_path)
    (tmp_path / "out").mkdir()
    shown = io.StringIO()
    train(nlp, tmp_path / "out", stdout=shown)
    # The best one is saved at an evaluation; the last one after the step past the twelfth.
    for name, steps in (("model-best", (4, 8, 12)), ("model-last", (13,))):
        meta = json.loads((tmp_path / "out" / name / "meta.json").read_text("utf-8"))
        noted = meta["mmcot_training"]
        assert set(noted) == {"steps", "seconds"}
        assert noted["steps"] in steps
        assert 0 < noted["seconds"] < 60
        loaded = spacy.load(tmp_path / "out" / name).meta["mmcot_training"]
        assert loaded == pytest.approx(noted)
    # The console table of spaCy's own logger.
    assert "LOSS MMCOT" in shown.getvalue() and "ENTS_F" in shown.getvalue()

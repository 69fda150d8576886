"""The shipped configs, through spaCy's own commands and as one chain from teacher to metrics."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import DocBin
from spacy.util import load_config, load_model_from_config

from spacy_mmcot.distillation.soft_labels import get_soft_tags
from spacy_mmcot.types import PROMPT_TARGET_KEY

Spacy = Callable[..., subprocess.CompletedProcess[str]]

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = ("teacher", "student", "student_cnn")
SHORT = (
    *("--training.optimizer.learn_rate.total_steps", 10, "--training.eval_frequency", 5),
    *("--training.optimizer.learn_rate.warmup_steps", 2),
)

each_config = pytest.mark.parametrize("name", NAMES)


def test_all_configs_are_tested() -> None:
    assert {path.stem for path in CONFIGS.glob("*.cfg")} == set(NAMES)


def leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found.update(leaves(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value
    return found


@each_config
def test_what_a_config_says_is_what_the_pipeline_gets(name: str) -> None:
    config = load_config(CONFIGS / f"{name}.cfg")
    filled = leaves(load_model_from_config(config, auto_fill=True).config.interpolate())
    stated = leaves(config.interpolate())
    assert {key: filled[key] for key in stated if key in filled} == {
        key: value for key, value in stated.items() if key in filled
    }
    # Nothing is stated that spaCy does not know, but for the parts that training alone resolves.
    assert all(key.startswith(("paths.", "system.", "corpora.")) for key in stated.keys() - filled)


@each_config
def test_architectures_are_stated_in_full(name: str) -> None:
    """No default of a factory or architecture hides: what fill-config adds to the components."""
    config = load_config(CONFIGS / f"{name}.cfg")
    filled = leaves(load_model_from_config(config, auto_fill=True).config)
    added = [key for key in filled if key.startswith("components.")]
    added = [key for key in added if key not in leaves(config) and ".model." in key]
    spacys = ("components.transformer.set_extra_annotations",)
    assert [key for key in added if not key.startswith(spacys)] in (
        [],
        ["components.mmcot_ner.model.tok2vec.upstream"],
    )


def differences(name: str) -> set[str]:
    """The settings in which a config and the student's differ."""
    ours, student = (leaves(load_config(CONFIGS / f"{n}.cfg")) for n in (name, "student"))
    return {key for key in ours | student if ours.get(key) != student.get(key)}


def test_the_baseline_and_the_small_student_are_overrides() -> None:
    model = "components.transformer.model"
    overrides = {
        f"{model}.layers": 3,
        **{f"components.{name}.soft_weight": 0.0 for name in ("mmcot_ner", "mmcot_rel")},
    }
    config = load_config(CONFIGS / "student.cfg", overrides=overrides)
    nlp = load_model_from_config(config, auto_fill=True)
    assert nlp.config["components"]["transformer"]["model"]["layers"] == 3
    assert nlp.config["components"]["mmcot_ner"]["soft_weight"] == 0.0


def test_the_student_without_a_transformer_differs_in_its_encoder_and_its_steps_only() -> None:
    allowed = ("components.transformer.", "components.tok2vec.", "nlp.pipeline", "nlp.after_")
    listeners = tuple(f"components.{name}.model.tok2vec" for name in ("mmcot_ner", "mmcot_rel"))
    left = {key for key in differences("student_cnn") if not key.startswith(allowed + listeners)}
    assert left == {
        "corpora.train.pictures",
        "training.eval_frequency",
        "training.optimizer.learn_rate.total_steps",
        "training.optimizer.learn_rate.warmup_steps",
    }


def test_teacher_and_student_differ_in_what_they_read_and_learn_from() -> None:
    allowed = {
        *(f"components.{name}.soft_weight" for name in ("mmcot_ner", "mmcot_rel")),
        *(f"components.{name}.model.conclusions" for name in ("mmcot_ner", "mmcot_rel")),
        *("components.transformer.model.knowledge_tags", "training.max_epochs"),
        "training.eval_frequency",
        "components.transformer.model.segment_length",
        "components.mmcot_ner.model.tok2vec.pooling.@layers",
        *("corpora.train.knowledge", "corpora.dev.knowledge", "corpora.dev.pictures"),
    }
    assert differences("teacher") == allowed


@each_config
def test_spacys_checks_accept_it_and_filling_it_in_adds_nothing(
    name: str, python_spacy: Spacy, corpus: Path, tmp_path: Path
) -> None:
    config, full = CONFIGS / f"{name}.cfg", tmp_path / "full.cfg"
    done = python_spacy("init", "fill-config", config, full)
    assert done.returncode == 0, done.stdout + done.stderr
    assert leaves(load_config(full)) == leaves(load_config(config))

    paths = (
        *("--paths.train", corpus / "train.spacy"),
        *("--paths.dev", corpus / "dev.spacy"),
    )
    done = python_spacy("debug", "config", config, *paths)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Config is valid" in done.stdout

    done = python_spacy("debug", "data", config, *paths)
    assert "Traceback" not in done.stderr
    assert "24 training docs" in done.stdout, done.stdout + done.stderr
    assert "Pipeline can be initialized with data" in done.stdout
    assert "Corpus is loadable" in done.stdout


@each_config
def test_a_pipeline_can_make_its_optimizer(name: str) -> None:
    nlp = load_model_from_config(load_config(CONFIGS / f"{name}.cfg"), auto_fill=True)
    assert nlp.create_optimizer().learn_rate == 0.0


def test_training_without_a_path_says_so(python_spacy: Spacy, bert: Path, tmp_path: Path) -> None:
    source = ("--components.transformer.model.source", bert)
    done = python_spacy("train", CONFIGS / "student.cfg", "-o", tmp_path / "out", *source)
    assert done.returncode == 1
    assert "E204" in done.stdout + done.stderr


def test_the_chain_from_teacher_to_metrics(
    python_spacy: Spacy, corpus: Path, bert: Path, tmp_path: Path
) -> None:
    def succeed(*arguments: object) -> str:
        done = python_spacy(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    dev = ("--paths.dev", corpus / "dev.spacy")
    source = ("--components.transformer.model.source", bert)
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    taught = tmp_path / "taught.spacy"
    train = (*dev, *source, *SHORT, "--paths.train")
    gold = corpus / "train.spacy"
    succeed("train", CONFIGS / "teacher.cfg", "-o", teacher, *train, gold)

    parts = [corpus / "train.spacy", corpus / "unlabelled.spacy"]
    prompts = ("--prompt-length", 4)
    said = succeed("mmcot", "teach", teacher / "model-best", *parts, "-o", taught, *prompts)
    assert "36 docs taught (12 of them unlabelled), 36 prompt targets" in said
    docs = list(DocBin().from_disk(taught).get_docs(spacy.blank("en").vocab))
    assert all(len(get_soft_tags(doc)) > 1 and PROMPT_TARGET_KEY in doc.user_data for doc in docs)
    unlabelled = [doc for doc in docs if not doc.has_annotation("ENT_IOB")]
    assert len(unlabelled) == 12

    succeed("train", CONFIGS / "student.cfg", "-o", student, *train, taught)
    for name, folder, options in (
        ("teacher", teacher, ["--knowledge"]),
        ("student", student, []),
    ):
        output = tmp_path / "metrics" / f"{name}.json"
        data = corpus / "test.spacy"
        succeed("mmcot", "evaluate", folder / "model-last", data, "-o", output, *options)
        metrics = json.loads(output.read_text("utf-8"))
        assert {"ents_p", "ents_r", "ents_f", "ents_per_type", "seqeval_f", "ents_ece"} <= set(
            metrics
        )
        assert metrics["seqeval_f"] == pytest.approx(metrics["ents_f"])
        assert 0 <= metrics["rel_e2e_f"] <= 1 and 0 <= metrics["rel_f"] <= 1
        assert metrics["docs"] == 8
        assert metrics["model_mb"] > 0
        assert metrics["training"]["steps"] == 11
        assert metrics["training"]["seconds"] > 0

    loaded = spacy.load(student / "model-best")
    assert loaded.pipe_names == ["transformer", "mmcot_ner", "mmcot_rel"]
    assert (
        loaded.get_pipe("mmcot_ner").labels
        == spacy.load(teacher / "model-best").get_pipe("mmcot_ner").labels
    )

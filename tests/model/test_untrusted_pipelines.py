"""A saved pipeline is data: loading one writes no file by its names, runs none of its code, and
fetches nothing."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
import tiny
from spacy.language import Language

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model.bridge import torch_shim
from spacy_mmcot.model.sources import build_model, load_tokenizer, save_tokenizer
from spacy_mmcot.production.job import load_pipeline

CODE = "open({path!r}, 'w').close()\n"


@pytest.fixture(scope="module")
def nlp(tiny_source: Callable[[str], str]) -> Language:
    return tiny.pipeline(tiny_source("bert"))


@pytest.fixture
def saved(nlp: Language, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """Write the pipeline with the settings of its encoder changed, as an attacker would."""

    def save(change: Callable[[dict[str, Any]], None]) -> Path:
        module = torch_shim(nlp.get_pipe("transformer").model).module  # type: ignore[attr-defined]
        own = module.settings
        module.settings = copy.deepcopy(own)
        change(module.settings)
        try:
            nlp.to_disk(tmp_path / "pipeline")
        finally:
            module.settings = own
        return tmp_path / "pipeline"

    return save


def test_nothing_changed_loads(saved: Callable[..., Path]) -> None:
    assert len(spacy.load(saved(lambda settings: None))("Anna sings")) == 2


@pytest.mark.parametrize(
    "name",
    [
        *("../planted.json", "sub/tokenizer.json", "tokenizer.json\0.txt", "", ".", "..", "\\x"),
        *("tokenizer.py", "tokenization_evil.py", "config.json", "model.safetensors", "con"),
        *("tokenizer.json/../../planted", "~/planted.json", "TOKENIZER.JSON", 5),
    ],
)
def test_a_tokenizer_file_of_another_name_is_refused(
    saved: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    folder = saved(lambda settings: settings["tokenizer"].update({name: b"{}"}))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(MMCoTError, match=r"E404.*Allowed: .*tokenizer\.json"):
        spacy.load(folder)
    assert set(tmp_path.rglob("*")) == before


def test_an_absolute_name_is_refused(saved: Callable[..., Path], tmp_path: Path) -> None:
    planted = str(tmp_path / "planted.json")
    with pytest.raises(MMCoTError, match="E404"):
        spacy.load(saved(lambda settings: settings["tokenizer"].update({planted: b"{}"})))
    assert not Path(planted).exists()


@pytest.mark.parametrize("content", ["{}", None, 5, ["x"]])
def test_a_tokenizer_file_without_bytes_is_refused(
    saved: Callable[..., Path], content: object
) -> None:
    folder = saved(lambda settings: settings["tokenizer"].update({"vocab.txt": content}))
    with pytest.raises(MMCoTError, match="E404"):
        spacy.load(folder)


def test_code_beside_a_pipeline_is_not_run(saved: Callable[..., Path], tmp_path: Path) -> None:
    """Neither is anybody asked whether it should be: the answer would be read from stdin."""
    planted, code = tmp_path / "planted", tmp_path / "evil"
    code.mkdir()
    (code / "evil.py").write_text(CODE.format(path=str(planted)), "utf-8")

    def change(settings: dict[str, Any]) -> None:
        classes = {"AutoTokenizer": [f"{code}--evil.T", f"{code}--evil.T"]}
        classes |= {"AutoModel": f"{code}--evil.M", "AutoConfig": f"{code}--evil.C"}
        files = settings["tokenizer"]
        config = json.loads(files["tokenizer_config.json"])
        config["auto_map"] = settings["config"]["auto_map"] = classes
        files["tokenizer_config.json"] = json.dumps(config).encode()

    folder = saved(change)
    loaded = subprocess.run(
        [sys.executable, "-c", f"import spacy; print(len(spacy.load({str(folder)!r})('Anna')))"],
        input="y\ny\ny\n",
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")},
    )
    assert (loaded.returncode, loaded.stdout.strip()) == (0, "1"), loaded.stderr
    assert not planted.exists()


def test_files_that_a_tokenizer_config_names_are_not_read(
    tiny_source: Callable[[str], str], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    files = save_tokenizer(AutoTokenizer.from_pretrained(tiny_source("bert")))
    secret = tmp_path / "secret.json"
    secret.write_text("not a tokenizer", "utf-8")
    config = json.loads(files["tokenizer_config.json"])
    config |= {"tokenizer_file": str(secret), "vocab_file": str(secret), "name_or_path": "a/b"}
    config |= {"fast_tokenizer_files": ["../../secret.json"]}
    files["tokenizer_config.json"] = json.dumps(config).encode()
    assert str(secret) not in json.dumps(load_tokenizer(files).init_kwargs, default=str)
    files["tokenizer_config.json"] = b"[1, 2"
    with pytest.raises(MMCoTError, match="E404"):
        load_tokenizer(files)


def test_a_config_loads_neither_kernels_nor_backbones(nlp: Language) -> None:
    config = dict(tiny.module_of(nlp).encoder.config.to_dict())
    hostile = {"_attn_implementation": "org/kernel", "attn_implementation": "org/kernel"}
    hostile |= {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
    hostile |= {"auto_map": {"AutoModel": "evil.M"}, "backbone": "org/model"}
    # What timm's wrappers hand to it: names of the hub, checkpoint files.
    hostile |= {"architecture": "hf-hub:org/model", "model_args": {"checkpoint_path": "evil.pt"}}
    hostile |= {"backbone_kwargs": {"pretrained": True}}
    model = build_model({**config, **hostile, "parts": [{"auto_map": {}}]})
    assert model.config._attn_implementation in ("sdpa", "eager")
    assert not hasattr(model.config, "auto_map") and not hasattr(model.config, "backbone")
    assert model.config.parts == [{}]
    assert not {"architecture", "model_args", "backbone_kwargs"} & model.config.to_dict().keys()


@pytest.mark.parametrize(
    "change",
    [
        lambda settings: settings["config"].pop("model_type"),
        lambda settings: settings["config"].update(model_type="../../x"),
        lambda settings: settings["config"].update(dtype="no such", torch_dtype="no such"),
        lambda settings: settings["config"].update(hidden_size="wide"),
        lambda settings: settings.update(tokenizer={}),
        lambda settings: settings.pop("tokenizer"),
        lambda settings: settings.update(unheard_of=1),
    ],
)
def test_a_damaged_pipeline_is_named(
    saved: Callable[..., Path], change: Callable[[dict[str, Any]], None]
) -> None:
    with pytest.raises(MMCoTError, match=r"E700.*pipeline"):
        load_pipeline(saved(change))

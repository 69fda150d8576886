"""Where encoders come from: a hub name, a local folder, or `package:NAME`.

A shallower encoder out of a deep one: its first layers, pretrained weights and all.

A Hugging Face tokenizer as bytes, so that a pipeline on disk needs no source to be loaded.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from ..errors import Errors, MMCoTError, first_line

# The names that model families use for dropout inside their layers.
_LAYER_DROPOUT = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "activation_dropout",
)


def resolve_source(source: str) -> str:
    """The folder or hub name behind an encoder source.

    `package:NAME` names an installed Python package that carries one Hugging Face model folder
    (a `config.json` beside weights and tokenizer files), at its top or one level down.
    """
    if not source.startswith("package:"):
        return source
    name = source.removeprefix("package:")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise MMCoTError(Errors.E400.format(source=source, name=name))
    root = Path(next(iter(spec.submodule_search_locations)))
    for folder in (root, *sorted(p for p in root.iterdir() if p.is_dir())):
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            return str(folder)
    raise MMCoTError(Errors.E401.format(source=source, folder=root))


def load_pretrained(source: str) -> tuple[Any, Any]:
    """The pretrained (tokenizer, torch encoder) of a source, in evaluation mode."""
    path = resolve_source(source)
    try:
        config = without_layer_dropout(AutoConfig.from_pretrained(path))
        tokenizer = AutoTokenizer.from_pretrained(path)
        encoder = AutoModel.from_pretrained(path, config=config)
    # Beside missing files: a tokenizer that needs a library, weights of other shapes or damaged.
    # What the libraries raise for these is no fixed set: tokenizers raises Exception itself.
    except Exception as error:
        raise MMCoTError(
            Errors.E402.format(source=source, reason=first_line(error).rstrip("."))
        ) from error
    return tokenizer, without_pooler(encoder).eval()


def build_from_config(config: dict[str, Any]) -> Any:
    """An encoder of the given Hugging Face config, its weights still to be loaded."""
    hf_config = AutoConfig.for_model(**config)
    return without_pooler(AutoModel.from_config(without_layer_dropout(hf_config)))


def without_layer_dropout(config: Any) -> Any:
    """Dropout inside the layers costs CPU time and gained nothing on small labelled sets; the
    embeddings' own dropout is set by PromptedEncoder."""
    for name in _LAYER_DROPOUT:
        if isinstance(getattr(config, name, None), float):
            setattr(config, name, 0.0)
    return config


def without_pooler(encoder: Any) -> Any:
    """Sentence poolers feed nothing here: drop their weights."""
    if isinstance(getattr(encoder, "pooler", None), torch.nn.Module):
        encoder.pooler = None
    return encoder


def keep_layers(encoder: Any, layers: int | None) -> None:
    """Cut a Hugging Face encoder down to its first `layers` layers, in place; None keeps all. Its
    config says so afterwards, so that `build_from_config` makes the same encoder.

    Raises MMCoTError for a number that the encoder does not have, and for a family whose layers
    do not stand in one list of modules (ALBERT, whose layers share their weights).
    """
    if layers is None:
        return
    depth = encoder.config.num_hidden_layers
    if not 1 <= layers <= depth:
        raise MMCoTError(
            Errors.E409.format(
                name="layers of spacy_mmcot.PromptedTransformer.v1",
                received=layers,
                allowed=f"1 to {depth}, the layers of the encoder, or null for all",
            )
        )
    stacks = [m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if len(stacks) != 1:
        raise MMCoTError(Errors.E411.format(family=encoder.config.model_type))
    del stacks[0][layers:]
    encoder.config.num_hidden_layers = layers
    # Families that alternate kinds of attention list the kind of every layer.
    if getattr(encoder.config, "layer_types", None):
        encoder.config.layer_types = encoder.config.layer_types[:layers]


def tokenizer_files(tokenizer: Any) -> dict[str, bytes]:
    """What `save_pretrained` writes, by file name."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def tokenizer_of(files: dict[str, bytes]) -> Any:
    """The tokenizer that `tokenizer_files` took apart."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return AutoTokenizer.from_pretrained(folder)

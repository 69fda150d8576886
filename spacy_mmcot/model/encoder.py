"""Where encoders come from: a hub name, a local folder, or `package:NAME`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
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

"""Pretrained encoders and tokenizers: loaded from a source (a hub name, a local folder, or
`package:NAME`), cut to their first layers, and rebuilt without the source from what a pipeline has
saved.

A saved pipeline is data: it may neither write files by names of its own, nor bring code, nor make
the libraries fetch any. `trust_remote_code=False` keeps transformers from asking on the terminal.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from ..errors import Errors, MMCoTError
from ..messages import first_line, shown

_PACKAGE = "package:"
# The files that tokenizers write in `save_pretrained`.
_TOKENIZER_FILES = frozenset(
    {
        *("added_tokens.json", "special_tokens_map.json", "tokenizer.json"),
        *("tokenizer_config.json", "vocab.json", "vocab.txt", "merges.txt", "dict.txt"),
        *("bpe.codes", "entity_vocab.json", "unigram.json", "chat_template.jinja"),
        *("sentencepiece.bpe.model", "sentencepiece.model", "spiece.model", "spm.model"),
        *("tokenizer.model", "spm_char.model", "source.spm", "target.spm", "bpe.model"),
        *("prophetnet.tokenizer", "byte_maps.json", "emoji.json"),
    }
)
# Settings by which a config names code, kernels, backbones or quantizers for transformers to load.
_LOADING_SETTINGS = frozenset(
    {
        *("auto_map", "custom_pipelines", "quantization_config", "backbone", "backbone_config"),
        *("use_pretrained_backbone", "use_timm_backbone", "attn_implementation", "backbone_kwargs"),
        *("architecture", "model_args"),  # of timm's models, which may name files and hub models
        *("_attn_implementation", "_attn_implementation_internal", "attn_implementation_internal"),
    }
)

# The names that model families use for dropout inside their layers.
_LAYER_DROPOUT = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob"),
    *("dropout", "attention_dropout", "activation_dropout"),
)


def resolve_source(source: str) -> str:
    """The folder or hub name behind an encoder source.

    `package:NAME` names an installed Python package that carries one Hugging Face model folder
    (a `config.json` beside weights and tokenizer files), at its top or one level down.
    """
    if not source.startswith(_PACKAGE):
        return source
    root = find_package(source)
    for folder in (root, *sorted(p for p in root.iterdir() if p.is_dir())):
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            return str(folder)
    raise MMCoTError(Errors.E401.format(source=source, folder=root))


def find_package(source: str) -> Path:
    """The folder of the Python package behind `package:NAME`. Raises MMCoTError where none of this
    name is installed."""
    name = source.removeprefix(_PACKAGE)
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if not source.startswith(_PACKAGE) or spec is None or not spec.submodule_search_locations:
        raise MMCoTError(Errors.E400.format(source=source, name=name))
    return Path(next(iter(spec.submodule_search_locations)))


def load_pretrained(source: str) -> tuple[Any, Any]:
    """The pretrained (tokenizer, torch encoder) of a source, in evaluation mode. Raises MMCoTError
    where it cannot be loaded."""
    path = resolve_source(source)
    try:
        config = remove_layer_dropout(AutoConfig.from_pretrained(path, trust_remote_code=False))
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        encoder = AutoModel.from_pretrained(path, config=config, trust_remote_code=False)
    # Missing or damaged files, weights of another shape, a tokenizer that needs a library: the
    # libraries raise all kinds of exceptions, tokenizers even Exception itself.
    except Exception as error:
        reason = first_line(error).rstrip(".")
        message = Errors.E402.format(kind="Encoder", source=source, reason=reason)
        raise MMCoTError(message) from error
    return tokenizer, _remove_pooler(encoder).eval()


def build_from_config(config: dict[str, Any]) -> Any:
    """An encoder of the given Hugging Face config, its weights still to be loaded."""
    return _remove_pooler(build_model(config))


def build_model(config: dict[str, Any]) -> Any:
    """A model of the given Hugging Face config, its weights still to be loaded. Settings by which
    the config would have code or files loaded are left out."""
    hf_config = remove_layer_dropout(AutoConfig.for_model(**_drop_loading_settings(config)))
    return AutoModel.from_config(hf_config, trust_remote_code=False)


def _drop_loading_settings(value: Any) -> Any:
    """A config, or a part of one, without the settings that `_LOADING_SETTINGS` names."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in _LOADING_SETTINGS}
        return {name: _drop_loading_settings(part) for name, part in kept.items()}
    return [_drop_loading_settings(part) for part in value] if isinstance(value, list) else value


def remove_layer_dropout(config: Any) -> Any:
    """Set dropout inside the layers to 0, in place: it costs CPU time and gained nothing on small
    labelled sets. PromptedEncoder sets the embeddings' own dropout."""
    for name in _LAYER_DROPOUT:
        if isinstance(getattr(config, name, None), float):
            setattr(config, name, 0.0)
    return config


def _remove_pooler(encoder: Any) -> Any:
    """Drop the sentence pooler, which is never used here."""
    if isinstance(getattr(encoder, "pooler", None), nn.Module):
        encoder.pooler = None
    return encoder


def keep_layers(encoder: Any, layers: int | None) -> None:
    """Cut a Hugging Face encoder down to its first `layers` layers, in place; None keeps all. Its
    config is changed too, so that `build_from_config` makes the same encoder.

    Raises MMCoTError for a number of layers that the encoder does not have, and for a family
    whose layers are not one list of modules (ALBERT, whose layers share their weights).
    """
    if layers is None:
        return
    depth = encoder.config.num_hidden_layers
    if not 1 <= layers <= depth:
        name = "layers of spacy_mmcot.PromptedTransformer.v1"
        allowed = f"1 to {depth}, the layers of the encoder, or null for all"
        raise MMCoTError(Errors.E409.format(name=name, received=layers, allowed=allowed))
    stacks = [m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if len(stacks) != 1:
        raise MMCoTError(Errors.E411.format(family=encoder.config.model_type))
    del stacks[0][layers:]
    encoder.config.num_hidden_layers = layers
    # Families that alternate kinds of attention list the kind of every layer.
    if getattr(encoder.config, "layer_types", None):
        encoder.config.layer_types = encoder.config.layer_types[:layers]


def save_tokenizer(tokenizer: Any) -> dict[str, bytes]:
    """The files that `save_pretrained` writes, by name. Raises MMCoTError for one that
    `load_tokenizer` would refuse."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    _check_tokenizer_files(files)
    return files


def load_tokenizer(files: dict[str, bytes]) -> Any:
    """The tokenizer whose files `save_tokenizer` returned. Raises MMCoTError for files that no
    tokenizer writes."""
    _check_tokenizer_files(files)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            if name == "tokenizer_config.json":
                content = _clean_tokenizer_config(content)
            (Path(folder) / name).write_bytes(content)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def _check_tokenizer_files(files: dict[str, bytes]) -> None:
    for name, content in files.items():
        if name not in _TOKENIZER_FILES or not isinstance(content, bytes):
            allowed = ", ".join(sorted(_TOKENIZER_FILES))
            raise MMCoTError(Errors.E404.format(received=shown(name), allowed=allowed))


def _clean_tokenizer_config(content: bytes) -> bytes:
    """The tokenizer's config without code and without names of files, which could be any on this
    machine: the tokenizer finds its own by their names."""
    try:
        config = dict(json.loads(content))
    except (ValueError, TypeError) as error:
        problem = first_line(error)
        raise MMCoTError(Errors.E404.format(received=problem, allowed="a JSON object")) from None
    kept = {k: v for k, v in config.items() if not k.endswith(("_file", "_files", "_path"))}
    return json.dumps(_drop_loading_settings(kept)).encode()

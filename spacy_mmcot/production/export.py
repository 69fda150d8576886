"""A trained pipeline with its encoder moved to ONNX Runtime."""

from __future__ import annotations

from typing import Any

import spacy
from spacy.language import Language

from ..errors import Errors, MMCoTError
from ..model.bridge import torch_shim
from ..model.encoder_bridge import torch_encoder
from .runtime_graph import Precision, layers_graph

ARCHITECTURE = "spacy_mmcot.OnnxTransformer.v1"
REQUIREMENT = "onnxruntime>=1.20"


def exported(nlp: Language, precision: Precision, threads: int = 0) -> Language:
    """The same pipeline with each of its encoders exported; `nlp` stays as it is.

    threads: of ONNX Runtime, in each process; 0 for as many as torch has there.

    Raises MMCoTError where no component has an encoder that can be exported.
    """
    names = [name for name, pipe in nlp.components if torch_encoder(pipe) is not None]
    if not names:
        raise MMCoTError(
            Errors.E780.format(pipeline=nlp.meta["name"], names=", ".join(nlp.component_names))
        )
    config = nlp.config.copy()
    for name in names:
        component = config["components"][name]
        component["model"] = {
            "@architectures": ARCHITECTURE,
            "threads": threads,
            "encoder": component["model"],
        }
    result = spacy.util.load_model_from_config(config)
    result.from_bytes(nlp.to_bytes(exclude=names))
    for name in names:
        _move(nlp.get_pipe(name), result.get_pipe(name), precision)
    requirements = result.meta.setdefault("requirements", [])
    if REQUIREMENT not in requirements:
        requirements.append(REQUIREMENT)
    return result


def _move(source: Any, target: Any, precision: Precision) -> None:
    """Carry the encoder of one `transformer` component over into another's model."""
    module = torch_shim(source.model).module
    graph = layers_graph(module.encoder, precision)
    settings = {**module.settings, "graph": graph}
    shim = torch_shim(target.model)
    built = shim.build(settings)
    kept = built.state_dict().keys()
    built.load_state_dict({k: v for k, v in module.state_dict().items() if k in kept})
    shim.set_module(built, settings)
    for seen, seeing in zip(source.model.layers, target.model.layers, strict=True):
        seeing.from_bytes(seen.to_bytes())
    target.cfg.update(source.cfg)
    target.model.set_dim("nO", source.model.get_dim("nO"), force=True)
    for listener in target.listeners:
        if listener.has_dim("nO") is None:
            listener.set_dim("nO", source.model.get_dim("nO"))

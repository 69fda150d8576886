"""Encoders that run on ONNX Runtime, in the place of the torch ones they were exported from."""

# No postponed annotations here: spaCy reads those of architectures at run time.

import functools
import os
from typing import Any, Self

import torch
from spacy.tokens import Doc
from spacy_transformers.data_classes import FullTransformerBatch
from thinc.api import Model
from torch import Tensor

from ..errors import Errors, MMCoTError
from ..model.bridge import Settings, TorchShim
from ..model.encoder_bridge import build_module
from ..model.prompted_encoder import PromptedEncoder


class OnnxLayers:
    """An encoder's layers as a session of ONNX Runtime (see `spacy_mmcot.model.packed.Layers`).

    The session starts with the first batch of a process: none survives a fork or a pickle.

    graph: what `layers_graph` returned. threads: 0 for as many as torch has.
    """

    def __init__(self, graph: bytes, threads: int):
        self.graph = graph
        self.threads = threads
        self._session: Any = None
        self._process = 0

    def __call__(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Raises MMCoTError where ONNX Runtime is not installed."""
        steps = torch.arange(int(lengths[-1]))
        mask = steps < lengths.unsqueeze(1)
        starts = lengths.cumsum(0) - lengths
        grid = (starts.unsqueeze(1) + steps).where(mask, 0)
        inputs = {
            "states": states,
            "grid": grid,
            "mask": mask.int(),
            "places": mask.flatten().nonzero().squeeze(1),
        }
        arrays = {name: tensor.detach().numpy() for name, tensor in inputs.items()}
        (result,) = self._started().run(None, arrays)
        return torch.from_numpy(result)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None, "_process": 0}

    def _started(self) -> Any:
        if self._process != os.getpid():
            self._session = _start(self.graph, self.threads or torch.get_num_threads())
            self._process = os.getpid()
        return self._session


def _start(graph: bytes, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        purpose = "An exported pipeline"
        raise MMCoTError(Errors.E442.format(purpose=purpose, package="onnxruntime")) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        graph,
        options,
        providers=["CPUExecutionProvider"],
        # Measured: the fused operator takes five times the seconds of its parts.
        disabled_optimizers=["SkipLayerNormFusion"],
    )


class ExportedEncoder(PromptedEncoder):
    """A PromptedEncoder that has embeddings, prompts and what sees pictures, but no layers of its
    own."""

    def train(self, mode: bool = True) -> Self:
        """Raises MMCoTError where it is to learn."""
        if mode:
            raise MMCoTError(Errors.E443)
        return super().train(mode)


def build_exported(settings: Settings, threads: int = 0) -> PromptedEncoder:
    """An ExportedEncoder from settings as PromptedEncoder has them, with the layers' `graph`;
    weights still to be loaded."""
    config = {**settings["config"], "num_hidden_layers": 0}
    module = build_module({**settings, "config": config}, ExportedEncoder).eval()
    module.layers = OnnxLayers(settings["graph"], threads)
    return module


def OnnxTransformer(
    encoder: Model[list[Doc], FullTransformerBatch], threads: int = 0
) -> Model[list[Doc], FullTransformerBatch]:
    """`spacy_mmcot.OnnxTransformer.v1`: what `spacy-mmcot export` puts in the place of a
    `spacy_mmcot.PromptedTransformer.v1`. It cannot be trained.

    encoder: the architecture that was exported.
    threads: of ONNX Runtime, in each process; 0 for as many as torch has there.
    """
    encoder.shims[0] = TorchShim(functools.partial(build_exported, threads=threads))
    encoder.init = _refuse
    return encoder


def _refuse(model: Model, X: Any = None, Y: Any = None) -> None:
    raise MMCoTError(Errors.E443)

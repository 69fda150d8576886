"""Encoders whose layers run on ONNX Runtime, in place of the torch ones that were exported."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from spacy.tokens import Doc
from spacy_transformers.data_classes import FullTransformerBatch
from thinc.api import Model
from torch import Tensor

from ..errors import Errors, MMCoTError
from ..model.bridge import TorchShim
from ..model.encoder import PromptedEncoder
from ..model.encoder_bridge import build_module
from ..model.wordpieces import group_by_length

# No postponed annotations here: spaCy reads those of architectures at run time.


# A part of a batch is one window, or several of at most MAX_PART pieces in all, padded, of which
# the shortest has at least MIN_FILL of the longest's length.
MAX_PART = 128
MIN_FILL = 0.8


class OnnxLayers:
    """An encoder's layers as a session of ONNX Runtime (see `spacy_mmcot.model.encoder.Layers`).

    Windows run in parts of similar length, as many at once as torch has threads, each by one
    thread: its small operators gain nothing from a second. The session starts with the first batch
    of a process, since none survives a fork or a pickle.

    graph: what `build_layers_graph` returned.
    """

    def __init__(self, graph: bytes):
        self.graph = graph
        # Session, threads and process.
        self._started: tuple[Any, ThreadPoolExecutor, int] | None = None

    def __call__(self, states: Tensor, lengths: Tensor) -> Tensor:
        """states: (pieces, width), windows in order of length; lengths: (windows,), ascending.
        Returns (pieces, width). Raises MMCoTError in training, and where ONNX Runtime is not
        installed."""
        if torch.is_grad_enabled():
            raise MMCoTError(Errors.E443)
        if self._started is None or self._started[2] != os.getpid():
            pool = ThreadPoolExecutor(torch.get_num_threads())
            self._started = _start_session(self.graph), pool, os.getpid()
        session, pool, _ = self._started
        pieces, counts = states.numpy(), lengths.numpy()
        ends = counts.cumsum()

        def run(part: list[int]) -> NDArray[numpy.float32]:
            # Counted from the last window.
            first, last = len(counts) - 1 - part[-1], len(counts) - part[0]
            own = pieces[ends[first] - counts[first] : ends[last - 1]]
            lengths = counts[first:last]
            steps = numpy.arange(lengths[-1])
            mask = steps < lengths[:, None]
            starts = lengths.cumsum() - lengths
            # See `build_layers_graph`.
            inputs = {
                "states": own,
                "grid": numpy.where(mask, starts[:, None] + steps, 0),
                "mask": mask.astype("int32"),
                "places": mask.ravel().nonzero()[0],
            }
            (result,) = session.run(None, inputs)
            return result

        # The longest windows first, so that all threads end together.
        parts = group_by_length(counts[::-1].tolist(), MAX_PART, MIN_FILL)
        results = list(pool.map(run, parts))
        return torch.from_numpy(numpy.concatenate(results[::-1]))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_started": None}


def _start_session(graph: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError:
        message = Errors.E442.format(purpose="An exported pipeline", package="onnxruntime")
        raise MMCoTError(message) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # The fused operator takes five times as long as its parts.
    settings = {"disabled_optimizers": ["SkipLayerNormFusion"]}
    return onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"], **settings
    )


def build_exported(graph: bytes, config: Any, **settings: Any) -> PromptedEncoder:
    """A PromptedEncoder whose layers are the graph, weights still to be loaded. config, settings:
    those of `build_module`."""
    config = {**config, "num_hidden_layers": 0}
    module = build_module(config=config, **settings)
    module.layers = OnnxLayers(graph)
    return module


Encoder = Model[list[Doc], FullTransformerBatch]


def OnnxTransformer(encoder: Encoder) -> Encoder:
    """`spacy_mmcot.OnnxTransformer.v1`: what `spacy-mmcot export` replaces a
    `spacy_mmcot.PromptedTransformer.v1` by. It cannot be trained.

    encoder: the architecture that was exported.
    """
    encoder.shims[0] = TorchShim(build_exported)
    encoder.init = _refuse_init
    return encoder


def _refuse_init(model: Model, X: Any = None, Y: Any = None) -> None:
    raise MMCoTError(Errors.E443)

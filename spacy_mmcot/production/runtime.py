"""Encoders that run on ONNX Runtime, in the place of the torch ones they were exported from."""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Self

import numpy
import torch
from numpy.typing import NDArray
from spacy.tokens import Doc
from spacy_transformers.data_classes import FullTransformerBatch
from thinc.api import Model
from torch import Tensor

from ..errors import Errors, MMCoTError
from ..model.bridge import Settings, TorchShim
from ..model.encoder import PromptedEncoder
from ..model.encoder_bridge import build_module

# No postponed annotations here: spaCy reads those of architectures at run time.


# A part of a batch is one window, or several of at most MAX_PART pieces in all, padded, of which
# the shortest has at least MIN_FILL of the longest's length.
MAX_PART = 128
MIN_FILL = 0.8


class OnnxLayers:
    """An encoder's layers as a session of ONNX Runtime (see `spacy_mmcot.model.packed.Layers`).

    Windows run in parts of like length, several parts at once, each by one thread: the many small
    operators of one run gain nothing from a second, which, while it waits, spins on a core that
    torch needs.

    The session starts with the first batch of a process: none survives a fork or a pickle.

    graph: what `layers_graph` returned. threads: how many parts run at once, 0 for as many as torch
    has threads.
    """

    def __init__(self, graph: bytes, threads: int):
        self.graph = graph
        self.threads = threads
        self._started: _Started | None = None

    def __call__(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Raises MMCoTError where ONNX Runtime is not installed."""
        started = self._started
        if started is None or started.process != os.getpid():
            pool = ThreadPoolExecutor(self.threads or torch.get_num_threads())
            started = self._started = _Started(_session(self.graph), pool, os.getpid())
        pieces, counts = states.detach().numpy(), lengths.numpy()
        ends = counts.cumsum()

        def run(part: tuple[int, int]) -> NDArray[numpy.float32]:
            first, last = part
            own = pieces[ends[first] - counts[first] : ends[last - 1]]
            (result,) = started.session.run(None, _inputs(own, counts[first:last]))
            return result

        # The longest windows first, so that all threads end together.
        results = list(started.pool.map(run, reversed(_parts(counts))))
        return torch.from_numpy(numpy.concatenate(results[::-1]))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_started": None}


class _Started(NamedTuple):
    """What a process runs its batches with."""

    session: Any
    pool: ThreadPoolExecutor
    process: int


def _parts(lengths: NDArray[numpy.int64]) -> list[tuple[int, int]]:
    """Windows, in order of length, cut into parts: first, and last exclusive."""
    parts = []
    first = 0
    for i, length in enumerate(lengths):
        alike = lengths[first] >= MIN_FILL * length
        if i > first and not (alike and (i + 1 - first) * length <= MAX_PART):
            parts.append((first, i))
            first = i
    return [*parts, (first, len(lengths))]


def _inputs(states: NDArray[numpy.float32], lengths: NDArray[numpy.int64]) -> dict[str, Any]:
    """What the graph reads (see `layers_graph`)."""
    steps = numpy.arange(lengths[-1])
    mask = steps < lengths[:, None]
    starts = lengths.cumsum() - lengths
    return {
        "states": states,
        "grid": numpy.where(mask, starts[:, None] + steps, 0),
        "mask": mask.astype("int32"),
        "places": mask.ravel().nonzero()[0],
    }


def _session(graph: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError:
        purpose = "An exported pipeline"
        raise MMCoTError(Errors.E442.format(purpose=purpose, package="onnxruntime")) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
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
    module = build_module({**settings, "config": config}, ExportedEncoder)
    module.layers = OnnxLayers(settings["graph"], threads)
    return module


def OnnxTransformer(
    encoder: Model[list[Doc], FullTransformerBatch], threads: int = 0
) -> Model[list[Doc], FullTransformerBatch]:
    """`spacy_mmcot.OnnxTransformer.v1`: what `spacy-mmcot export` puts in the place of a
    `spacy_mmcot.PromptedTransformer.v1`. It cannot be trained.

    encoder: the architecture that was exported.
    threads: how many parts of a batch run at once, in each process; 0 for as many as torch has
    threads there.
    """
    encoder.shims[0] = TorchShim(functools.partial(build_exported, threads=threads))
    encoder.init = _refuse
    return encoder


def _refuse(model: Model, X: Any = None, Y: Any = None) -> None:
    raise MMCoTError(Errors.E443)

"""What connects torch modules to thinc and spaCy: a shim that saves a module whole, and helpers
that the forward passes share.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import safetensors.torch
import srsly
import torch
from spacy.attrs import IDX
from spacy.pipeline.tok2vec import Tok2VecListener
from spacy.tokens import Doc
from spacy_transformers.layers import TransformerListener
from thinc.api import Model, Optimizer, PyTorchShim, torch2xp, xp2torch
from transformers.modeling_utils import no_init_weights

from ..errors import Errors, MMCoTError

# What a module is built from, apart from its weights; msgpack can serialise it.
Settings = dict[str, Any]
Build = Callable[..., torch.nn.Module]

# The process that torch's threads belong to.
_process = os.getpid()


class TorchShim(PyTorchShim):
    """A PyTorchShim around a module that `build(**settings)` can make again, so that a pipeline on
    disk is all that is needed to load it: no hub, no source, no pickle.

    `lr_scales` maps a prefix of a parameter's name to a factor on the optimizer's learning rate;
    other parameters have the factor 1.
    """

    def __init__(self, build: Build, lr_scales: dict[str, float] | None = None):
        super().__init__(
            None,
            serialize_model=_serialize,
            deserialize_model=functools.partial(_deserialize, build),
        )
        self.build = build
        self.lr_scales = lr_scales or {}

    @property
    def module(self) -> Any:
        """The module, None before it is set or loaded."""
        return self._model

    def set_module(self, module: torch.nn.Module, settings: Settings) -> None:
        """settings: those from which `build` makes the module again."""
        module.settings = settings  # type: ignore[assignment]
        self._model = module.to(self.device).eval()

    @property
    def device(self) -> torch.device:
        if self._model is None:
            return torch.device("cpu")
        return super().device

    def finish_update(self, optimizer: Optimizer) -> None:
        for name, parameter in self._model.named_parameters():
            if parameter.grad is None:
                continue
            scale = next((s for p, s in self.lr_scales.items() if name.startswith(p)), 1.0)
            weights, _ = optimizer(
                (self.id, name),
                cast(Any, torch2xp(parameter.data)),
                cast(Any, torch2xp(parameter.grad)),
                lr_scale=scale,
            )
            updated = xp2torch(weights, device=parameter.device)
            # thinc's optimizers work in place. A new tensor a step around the same memory would
            # keep the last one alive, and the chain of them fragments the heap.
            if updated.data_ptr() != parameter.data_ptr():
                parameter.data.copy_(updated)
            parameter.grad.zero_()

    @contextlib.contextmanager
    def use_params(self, params: dict[Any, Any]) -> Iterator[None]:
        """Use other weights meanwhile, such as the optimizer's averages. thinc's own shim looks for
        keys that its optimizers do not make."""
        modules = self._model.named_parameters() if self._model is not None else ()
        changed = [(p, params[self.id, name]) for name, p in modules if (self.id, name) in params]
        kept = [(parameter, parameter.data.clone()) for parameter, _ in changed]
        for parameter, weights in changed:
            parameter.data.copy_(xp2torch(weights))
        try:
            yield
        finally:
            for parameter, weights in kept:
                parameter.data.copy_(weights)


def torch_shim(model: Model) -> TorchShim:
    """The TorchShim of a model that has one."""
    return cast(TorchShim, model.shims[0])


def prepare_module(model: Model, is_train: bool) -> Any:
    """The module in training or evaluation mode, None before it is built; starts each pass."""
    global _process
    if _process != os.getpid():
        # A forked process, such as those of `nlp.pipe(n_process=2)`, computes with one thread:
        # OpenMP's others do not survive a fork, and torch would wait for them forever.
        _process = os.getpid()
        torch.set_num_threads(1)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    module = torch_shim(model).module
    # Setting the mode visits all submodules: a few percent of the time of a single short Doc.
    if module is not None and module.training != is_train:
        module.train(is_train)
    return module


def check_states(model: Model, docs: Iterable[Doc], component: str) -> None:
    """Raise MMCoTError if the model listens to a transformer or a tok2vec that has not run over the
    Docs, where the listener would pass on zeros, or that has read other tokens.

    Of a tok2vec this shows by the number of vectors: where tokens are merged spaCy keeps that of
    the last one, where they are split the others are off."""
    if any(isinstance(node, Tok2VecListener) for node in model.walk()):
        for doc in docs:
            if len(doc.tensor) != len(doc):
                error = Errors.E407 if len(doc.tensor) else Errors.E405
                raise MMCoTError(error.format(component=component, text=doc.text[:60]))
    if any(isinstance(node, TransformerListener) for node in model.walk()):
        for doc in filter(len, docs):
            data = doc._.trf_data
            starts = getattr(data, "token_starts", None)
            is_changed = starts is not None and starts != list_starts(doc)
            if data is None or is_changed or len(data.align.lengths) not in (0, len(doc)):
                error = Errors.E405 if data is None else Errors.E407
                raise MMCoTError(error.format(component=component, text=doc.text[:60]))


def list_starts(doc: Doc) -> bytes:
    """Where the Doc's tokens start, by which other tokens of the same text are told apart."""
    return doc.to_array(IDX).tobytes()


def _serialize(module: Any) -> bytes:
    weights = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    return srsly.msgpack_dumps(
        {"settings": module.settings, "weights": safetensors.torch.save(weights)}
    )


def _deserialize(build: Build, _: Any, data: bytes, device: torch.device) -> torch.nn.Module:
    message = srsly.msgpack_loads(data)
    # Drawing random weights would take half of the time of loading and change torch's random state.
    with no_init_weights():
        module = build(**message["settings"])
    module.settings = message["settings"]
    module.load_state_dict(safetensors.torch.load(message["weights"]))
    return module.to(device).eval()

"""Building a torch module whose weights are about to be loaded.

Torch modules as thinc shims that serialise themselves whole.

Components that read an encoder's states from the Docs, where another component puts them.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import safetensors.torch
import srsly
import torch
from spacy.tokens import Doc
from spacy_transformers.layers import TransformerListener
from thinc.api import Model, Optimizer, PyTorchShim, torch2xp, xp2torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

from ..errors import Errors, MMCoTError

_RANDOM = {
    *(init.normal_, init.uniform_, init.trunc_normal_, init.orthogonal_),
    *(init.kaiming_normal_, init.kaiming_uniform_, init.xavier_normal_, init.xavier_uniform_),
    torch.Tensor.uniform_,
}


class WithoutRandomInit(TorchFunctionMode):
    """Within this context random numbers that would fill a tensor in place are not drawn: for an
    encoder that takes half of the time of loading it, and moves torch's random state. Whatever is
    constant, such as position ids that no file holds, is set as ever."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.normal_:
            return _filled_with_mean(*args, **(kwargs or {}))
        if func in _RANDOM:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _filled_with_mean(
    tensor: torch.Tensor, mean: float = 0.0, std: float = 1.0, **kwargs: Any
) -> torch.Tensor:
    """Not left as it is: torch draws a truncated normal again until all numbers lie within its
    bounds, and what stood in memory before might never do."""
    return tensor.fill_(mean)


Settings = dict[str, Any]


def _settle_fork() -> None:
    """A forked process has none of OpenMP's threads, and waits for them for ever as soon as torch
    or the tokenizer calls on several: what `nlp.pipe(n_process=2)` does after a first document."""
    torch.set_num_threads(1)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_settle_fork)


class TorchShim(PyTorchShim):
    """A PyTorchShim around a module that `build(settings)` can make again, so that what is on
    disk suffices to load it: no hub, no source package, no pickle.

    `settings` must be msgpack-plain. `lr_scales` maps a prefix of a parameter's name to the
    factor on the optimizer's learning rate; parameters without a match have factor 1.
    """

    def __init__(
        self,
        build: Callable[[Settings], torch.nn.Module],
        lr_scales: dict[str, float] | None = None,
    ):
        super().__init__(
            None,
            serialize_model=_serialize,
            deserialize_model=functools.partial(_deserialize, build),
        )
        self.build = build
        self.lr_scales = lr_scales or {}

    @property
    def module(self) -> Any:
        return self._model

    def set_module(self, module: torch.nn.Module, settings: Settings) -> None:
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
            # hold on to the last one, and the chain of them fragments the heap.
            if updated.data_ptr() != parameter.data_ptr():
                parameter.data.copy_(updated)
            parameter.grad.zero_()


def torch_shim(model: Model) -> TorchShim:
    """The TorchShim of a model that has one."""
    return cast(TorchShim, model.shims[0])


def set_mode(module: torch.nn.Module, is_train: bool) -> None:
    """Put a shim's module into training or evaluation mode. Its parts are all in one mode, so that
    nothing is to be done where it has the right one: going through them all costs the prediction of
    a single short doc a few percent of its time."""
    if module.training != is_train:
        module.train(is_train)


def split_by_counts(flat: Any, counts: Sequence[int]) -> list[Any]:
    """The rows of an array, one Doc's after the other's: as many for each as `counts` says."""
    ends = itertools.accumulate(counts)
    return [flat[end - count : end] for end, count in zip(ends, counts, strict=True)]


def _serialize(module: Any) -> bytes:
    weights = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    return srsly.msgpack_dumps(
        {"settings": module.settings, "weights": safetensors.torch.save(weights)}
    )


def _deserialize(
    build: Callable[[Settings], torch.nn.Module], _: Any, data: bytes, device: torch.device
) -> torch.nn.Module:
    message = srsly.msgpack_loads(data)
    with WithoutRandomInit():
        module = build(message["settings"])
    module.settings = message["settings"]
    module.load_state_dict(safetensors.torch.load(message["weights"]))
    return module.to(device).eval()


def check_states(model: Model, docs: Iterable[Doc], component: str) -> None:
    """Raise MMCoTError if the model listens to a transformer that has not run over the Docs:
    spacy-transformers would hand on zeros, and the predictions would be noise."""
    if any(isinstance(node, TransformerListener) for node in model.walk()):
        for doc in docs:
            if len(doc) and doc._.trf_data is None:
                raise MMCoTError(Errors.E405.format(component=component, text=doc.text[:60]))

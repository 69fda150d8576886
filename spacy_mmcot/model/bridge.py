"""Torch modules as thinc shims that serialise themselves whole."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, cast

import safetensors.torch
import srsly
import torch
from thinc.api import Model, Optimizer, PyTorchShim, torch2xp, xp2torch

from .no_init import WithoutRandomInit

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

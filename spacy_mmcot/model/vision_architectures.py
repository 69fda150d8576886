"""The registered vision models: what `PromptedTransformer` may see pictures with."""

from __future__ import annotations

import functools
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel
from transformers.image_processing_base import ImageProcessingMixin

from ..errors import Errors, MMCoTError, first_line
from ..pictures.read import PicturePolicy
from .bridge import Settings
from .sources import resolve_source, without_layer_dropout
from .vision import ConvVision as ConvVisionModule
from .vision import PretrainedVision, VisionModel, vision_model


def ConvVision(
    size: int = 96,
    width: int = 128,
    pictures: PicturePolicy | None = None,
    cache_folder: str | None = None,
    cache_mb: float = 500.0,
    memory_mb: float = 100.0,
) -> VisionModel:
    """`spacy_mmcot.ConvVision.v1`: a small convolutional network, trained from scratch.

    size: pixels of the square that pictures are brought to, a multiple of 16.
    width: features of a patch (16 x 16 pixels), a multiple of 8.
    pictures: which pictures are let in, and what to do about bad ones
        (`spacy_mmcot.Pictures.v1`); None for its defaults.
    cache_folder: where prepared pictures are kept between runs of training; by default
        spacy-mmcot/pictures in the user's cache folder.
    cache_mb: most megabytes on disk; 0 for none.
    memory_mb: most megabytes of prepared pictures in memory.
    """
    for name, value, step in (("size", size, 16), ("width", width, 8)):
        if value < step or value % step:
            allowed = f"a multiple of {step}, as {16 * step // 2} is"
            raise MMCoTError(Errors.E409.format(name=name, received=value, allowed=allowed))
    settings: Settings = {"size": size, "width": width}
    return vision_model(
        "conv_vision",
        load=functools.partial(_make_conv, settings),
        build=_build_conv,
        frozen=False,
        lr_scales={},
        policy=pictures or PicturePolicy(),
        cache_folder=cache_folder,
        cache_mb=cache_mb,
        memory_mb=memory_mb,
    )


def _make_conv(settings: Settings) -> tuple[ConvVisionModule, Settings]:
    return _build_conv(settings), settings


def _build_conv(settings: Settings) -> ConvVisionModule:
    return ConvVisionModule(**settings)


def HFVision(
    source: str,
    frozen: bool = True,
    pictures: PicturePolicy | None = None,
    cache_folder: str | None = None,
    cache_mb: float = 2000.0,
    memory_mb: float = 200.0,
    encoder_lr_scale: float = 0.1,
) -> VisionModel:
    """`spacy_mmcot.HFVision.v1`: any Hugging Face model that sees: CLIP and SigLIP (their picture
    side), DINOv2, ViT, or a convolutional one.

    source: a hub name, a folder, or `package:NAME`; read at `initialize` only.
    frozen: leave its weights as they are; each distinct picture then goes through it once.
    encoder_lr_scale: its learning rate over that of new weights, where it is not frozen.
    The other arguments are those of `ConvVision`.
    """
    return vision_model(
        "hf_vision",
        load=functools.partial(_load_pretrained, source, frozen=frozen),
        build=_build_pretrained,
        frozen=frozen,
        lr_scales={"encoder.": encoder_lr_scale},
        policy=pictures or PicturePolicy(),
        cache_folder=cache_folder,
        cache_mb=cache_mb,
        memory_mb=memory_mb,
    )


def _load_pretrained(source: str, *, frozen: bool) -> tuple[torch.nn.Module, Settings]:
    path = resolve_source(source)
    try:
        config = AutoConfig.from_pretrained(path)
        # Models of text and pictures keep their picture side's config inside.
        config = without_layer_dropout(getattr(config, "vision_config", config))
        encoder = AutoModel.from_pretrained(path, config=config).eval()
        mean, std = _normalisation(path)
        module = PretrainedVision(encoder, mean, std, frozen=frozen)
    # Beside what hinders loading: a model that takes no pictures.
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError, TypeError) as error:
        reason = first_line(error).rstrip(".")
        raise MMCoTError(Errors.E408.format(source=source, reason=reason)) from error
    except AttributeError as error:
        reason = f"it is no model of pictures ({first_line(error)})"
        raise MMCoTError(Errors.E408.format(source=source, reason=reason)) from error
    settings = {"config": config.to_dict(), "mean": mean, "std": std, "frozen": frozen}
    return module, settings


def _build_pretrained(settings: Settings) -> torch.nn.Module:
    config = AutoConfig.for_model(**settings["config"])
    encoder = AutoModel.from_config(without_layer_dropout(config)).eval()
    return PretrainedVision(encoder, settings["mean"], settings["std"], frozen=settings["frozen"])


def _normalisation(path: str) -> tuple[list[float], list[float]]:
    """The mean and spread of each channel that a model was pretrained with."""
    try:
        known: dict[str, Any] = ImageProcessingMixin.get_image_processor_dict(path)[0]
    except OSError:
        known = {}
    half = [0.5, 0.5, 0.5]
    return list(known.get("image_mean") or half), list(known.get("image_std") or half)

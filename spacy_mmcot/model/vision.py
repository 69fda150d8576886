"""Torch modules that turn pictures into patch features."""

from __future__ import annotations

import itertools
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

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

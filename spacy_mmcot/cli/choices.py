"""Repeatable options with fixed values: typer takes enums there, not Literals."""

from __future__ import annotations

from enum import Enum

from ..types import AUGMENTATIONS, CHANGES, DIMENSIONS

DimensionChoice = Enum("DimensionChoice", {name: name for name in DIMENSIONS}, type=str)  # type: ignore[misc]
AugmentationChoice = Enum(  # type: ignore[misc]
    "AugmentationChoice", {name: name for name in AUGMENTATIONS}, type=str
)
ChangeChoice = Enum(  # type: ignore[misc]
    "ChangeChoice", {name: name for name in CHANGES}, type=str
)

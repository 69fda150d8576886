"""Heat maps as small translucent pictures."""

from __future__ import annotations

import functools
import io

import numpy
import PIL.Image
from numpy.typing import NDArray

# The smoothed map: pixels a cell, and of its longer side.
_CELL_PIXELS, _MAP_PIXELS = 8, 256

# Share of full heat -> red, green, blue, opacity: ever brighter and ever denser.
_RAMP = (
    (0.0, 240, 110, 20, 0),
    (0.3, 245, 125, 20, 90),
    (0.65, 252, 175, 20, 185),
    (1.0, 255, 245, 150, 245),
)


def heat_png(shares: NDArray[numpy.float64]) -> bytes:
    """A PNG file of shares of full heat, of shape (rows, columns), each between 0 and 1, smoothed;
    where there is no heat, nothing is seen. Its cells are squares, whatever they stand for."""
    rows, columns = shares.shape
    pixels = max(1, min(_CELL_PIXELS, _MAP_PIXELS // max(rows, columns)))
    image = PIL.Image.fromarray(shares.astype("float32"))
    smooth = image.resize((columns * pixels, rows * pixels), PIL.Image.Resampling.BICUBIC)
    levels = (numpy.asarray(smooth).clip(0.0, 1.0) * 255).round().astype("uint8")
    return _indexed_png(levels)


@functools.cache
def ramp_png() -> bytes:
    """A PNG file of all heats, from none to full, one pixel high."""
    return _indexed_png(numpy.arange(256, dtype="uint8")[None])


def _indexed_png(levels: NDArray[numpy.uint8]) -> bytes:
    image = PIL.Image.fromarray(levels)
    at, *channels = zip(*_RAMP, strict=True)
    red, green, blue, opacity = (
        numpy.interp(numpy.linspace(0, 1, 256), at, values).round().astype("uint8")
        for values in channels
    )
    image.putpalette(numpy.stack([red, green, blue], axis=1).tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", transparency=opacity.tobytes(), optimize=True)
    return file.getvalue()

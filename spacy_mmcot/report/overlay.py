"""A Doc's picture as HTML, with the model's attention on it for each mention.

The heat map lies over the picture in grey, so that all colour shown is attention.
"""

from __future__ import annotations

import io
from base64 import b64encode
from typing import Any

import numpy
import PIL.Image
from markupsafe import Markup
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..corpus.extensions import Alignment, get_alignment
from ..pictures.decode import make_thumbnail
from ..pictures.read import BadPicture, PicturePolicy, get_image, read_picture
from .arcs import render_template

# Longest side of a picture on the page, and the one to which smaller pictures are stretched, px.
_LONGEST, _SHORTEST = 448, 320
# The smoothed map: pixels per patch, and pixels of its longer side.
_PATCH_PIXELS, _MAP_PIXELS = 8, 256
# Full heat is at least this many times an even spread, so that noise is not amplified in a map
# without a peak.
_MIN_PEAK = 4.0
# Share of full heat -> red, green, blue, opacity: brighter and denser.
_RAMP = (
    (0.0, 240, 110, 20, 0),
    (0.3, 245, 125, 20, 90),
    (0.65, 252, 175, 20, 185),
    (1.0, 255, 245, 150, 245),
)


def render_picture(doc: Doc, policy: PicturePolicy | None = None) -> Markup:
    """The Doc's picture, `doc._.mmcot_image`, as an HTML fragment; with `doc._.mmcot_alignment`
    also the attention of each entity, the mean over its tokens. Empty for a Doc without a picture;
    where the picture cannot be read, a line that says why.

    policy: which pictures may be read, by default as in PicturePolicy.
    """
    image, policy = get_image(doc), policy or PicturePolicy()
    if image is None:
        return Markup("")
    try:
        jpeg = make_thumbnail(read_picture(image, policy), policy, _LONGEST)
    except BadPicture as problem:
        line = Markup('<p class="mmcot-picture mmcot-none">Picture not shown: it {}</p>\n')
        return line.format(str(problem))
    with PIL.Image.open(io.BytesIO(jpeg)) as opened:
        width, height = opened.size
    longest = max(width, height)
    scale = min(max(longest, _SHORTEST), _LONGEST) / longest
    alignment = get_alignment(doc)
    return render_template(
        "picture.html.jinja",
        text=doc.text,
        picture=_make_data_url("jpeg", jpeg),
        width=width,
        height=height,
        wide=max(round(width * scale), 1),
        gate=None if alignment is None else float(alignment.gate),
        choices=None if alignment is None else _make_choices(doc, alignment),
    )


def _make_choices(doc: Doc, alignment: Alignment) -> list[dict[str, Any]]:
    """What the template needs of each entity."""
    choices = []
    for ent in doc.ents:
        weights = alignment.tokens[ent.start : ent.end].mean(0).astype("float64")
        total, peak = min(float(weights.sum()), 1.0), float(weights.max())
        top = min(max(peak, _MIN_PEAK / weights.size), 1.0)
        choices.append(
            {
                "mention": ent.text,
                "label": ent.label_,
                "heat": _make_heat(weights / top),
                "summary": f"{total:.1%} of its attention on the picture, {peak:.1%} on one patch",
            }
        )
    return choices


def _make_heat(shares: NDArray[numpy.float64]) -> str:
    """shares: (rows, columns), of full heat, 0 to 1. Returns a PNG as a data URL, smoothed, and
    transparent where there is no heat."""
    rows, columns = shares.shape
    pixels = max(1, min(_PATCH_PIXELS, _MAP_PIXELS // max(rows, columns)))
    image = PIL.Image.fromarray(shares.astype("float32"))
    smooth = image.resize((columns * pixels, rows * pixels), PIL.Image.Resampling.BICUBIC)
    levels = (numpy.asarray(smooth).clip(0.0, 1.0) * 255).round().astype("uint8")
    image = PIL.Image.fromarray(levels)
    at, *channels = zip(*_RAMP, strict=True)
    *rgb, opacity = (
        numpy.interp(numpy.linspace(0, 1, 256), at, values).round().astype("uint8")
        for values in channels
    )
    image.putpalette(numpy.stack(rgb, axis=1).tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", transparency=opacity.tobytes(), optimize=True)
    return _make_data_url("png", file.getvalue())


def _make_data_url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"

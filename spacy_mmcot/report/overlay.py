"""Heat maps as small translucent pictures.

A picture with the attention on it, as HTML: for each mention, where the model looked.

The heat lies on the picture without its colours, so that all colour seen is attention; radio inputs
choose the mention, so that it works without a script.
"""

from __future__ import annotations

import functools
import io
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple, Protocol

import numpy
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..docs import get_image
from ..errors import Errors, MMCoTError, first_line
from ..pictures.decode import small_jpeg
from ..pictures.read import BadPicture, PicturePolicy, read_picture
from .arcs import hue

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


# Longest side of a picture on the page, and the one to which smaller pictures are stretched, px.
_LONGEST, _SHORTEST = 448, 320
# Full heat is never less than this many times an even spread, so that a map without a peak stays
# pale instead of blowing up its noise.
_FLOOR = 4.0
# Sums of attention in half precision stray from 1.
_TOLERANCE = 0.01

# A dialog form outside a dialog goes nowhere on Enter, and keeps its radio inputs to itself.
_FORM = """\
<form class="mmcot-picture" method="dialog" lang="en" \
style="--wide: {wide}px; --shape: {width} / {height}; --ramp: url({ramp})">
{gate}<div class="mmcot-view">
<img class="mmcot-base" alt="{alt}" width="{width}" height="{height}" src="{picture}">
{choices}</div>
</form>
"""

_PICTURE = """\
<div class="mmcot-picture" style="--wide: {wide}px; --shape: {width} / {height}">
<div class="mmcot-view">
<img class="mmcot-base" alt="{alt}" width="{width}" height="{height}" src="{picture}">
</div>
</div>
"""

_GATE = '<p class="mmcot-gate"><meter min="0" max="1" value="{gate:.2f}"></meter>{words}</p>\n'

_CHOICES = """\
<fieldset>
<legend>Where the model looked for</legend>
<div class="mmcot-choices">
{choices}<label><input type="radio" name="mention">\
<span class="mmcot-choice mmcot-bare">Picture alone</span></label>
</div>
</fieldset>
"""

_CHOICE = """\
<label><input type="radio" name="mention"{checked}>\
<span class="mmcot-choice" style="--hue: {hue}"><bdi>{mention}</bdi> <small>{label}</small></span>\
<img class="mmcot-map" alt="" src="{heat}">\
<span class="mmcot-detail">\
<bdi class="mmcot-context">{before}<b>{mention}</b>{after}</bdi>\
<span>{summary}</span>\
<span class="mmcot-legend">0%<span class="mmcot-ramp"></span>{top}\
<small>of its attention on a patch ({rows}&nbsp;×&nbsp;{columns} patches)</small></span>\
</span></label>
"""

_NOT_SHOWN = '<p class="mmcot-picture mmcot-none">Picture not shown: it {reason}</p>\n'


class TokenAttention(NamedTuple):
    """Where the model looked for one mention or token of a text."""

    start: int  # character offsets into the text, end exclusive
    end: int
    label: str
    # Rows x columns of the picture's patch grid, the top row first; at least 0, together at most 1,
    # what is missing to 1 having gone to no part of the picture.
    weights: Sequence[Sequence[float]]


class Alignment(Protocol):
    """What `doc._.mmcot_alignment` holds."""

    @property
    def gate(self) -> float: ...

    @property
    def tokens(self) -> NDArray[Any]:
        """Attention of shape (tokens, rows, columns)."""
        ...


def overlay_html(
    picture: bytes,
    gate: float | None,
    attentions: Sequence[TokenAttention],
    text: str,
    *,
    style: bool = True,
) -> str:
    """An HTML fragment that shows the picture and, for the mention that its reader chooses, the
    attention on it. It needs no network and no script; all text is escaped.

    picture: the content of a PNG or JPEG file, which goes into the fragment as it is.
    gate: how far the model holds that the picture bears on the text, 0 to 1; None where unknown.
    attentions: one a mention, in the order of their buttons, all over the same patch grid.
    style: whether the style comes along; a page with many fragments needs it once.

    Raises MMCoTError for another kind of picture, and for a gate, weights or offsets out of range.
    """
    if gate is not None and not 0.0 <= gate <= 1.0:
        raise MMCoTError(Errors.E721.format(gate=gate))
    kind, (width, height) = _measure(picture)
    maps = _maps(attentions, text)
    fragment = _FORM.format(
        gate="" if gate is None else _GATE.format(gate=gate, words=_gate_words(gate)),
        wide=_wide(width, height),
        width=width,
        height=height,
        ramp=_data_url("png", ramp_png()),
        alt=_alt(text),
        picture=_data_url(kind, picture),
        choices=_choices(attentions, maps, text),
    )
    return f"<style>\n{overlay_style()}</style>\n{fragment}" if style else fragment


def doc_overlay(
    doc: Doc, alignment: Alignment, policy: PicturePolicy | None = None, *, style: bool = True
) -> str:
    """The overlay of a Doc's picture, `doc._.mmcot_image`, for each of its entities, whose map is
    the mean over its tokens; where the picture cannot be read, a line that says why.

    alignment: `doc._.mmcot_alignment`. policy: what may be read, by default as PicturePolicy has
    it. style: as in `overlay_html`, which says what else is raised.
    """
    try:
        jpeg = _doc_jpeg(doc, policy)
    except BadPicture as problem:
        return _NOT_SHOWN.format(reason=escape(str(problem)))
    tokens = numpy.asarray(alignment.tokens, dtype="float32")
    attentions = [
        TokenAttention(
            ent.start_char,
            ent.end_char,
            ent.label_,
            tokens[ent.start : ent.end].mean(0).tolist(),
        )
        for ent in doc.ents
    ]
    return overlay_html(jpeg, float(alignment.gate), attentions, doc.text, style=style)


def doc_picture(doc: Doc, policy: PicturePolicy | None = None) -> str:
    """The Doc's picture as it is, in the same style; where it cannot be read, a line that says
    why. policy: as above."""
    try:
        jpeg = _doc_jpeg(doc, policy)
    except BadPicture as problem:
        return _NOT_SHOWN.format(reason=escape(str(problem)))
    kind, (width, height) = _measure(jpeg)
    return _PICTURE.format(
        wide=_wide(width, height),
        width=width,
        height=height,
        alt=_alt(doc.text),
        picture=_data_url(kind, jpeg),
    )


def overlay_style() -> str:
    """The CSS of the fragments."""
    static = files(__package__) / "static"
    return "".join((static / name).read_text("utf-8") for name in ("theme.css", "overlay.css"))


def _doc_jpeg(doc: Doc, policy: PicturePolicy | None) -> bytes:
    """Raises BadPicture for a Doc without a picture that can be read."""
    policy = policy or PicturePolicy()
    image = get_image(doc)
    if image is None:
        raise BadPicture("is not on the doc")
    return small_jpeg(read_picture(image, policy), policy, _LONGEST)


def _wide(width: int, height: int) -> int:
    """The width to show a picture in, px."""
    longest = max(width, height)
    scale = min(max(longest, _SHORTEST), _LONGEST) / longest
    return max(round(width * scale), 1)


def _alt(text: str) -> str:
    return escape(f"Picture of the text: {text[:100]}")


def _measure(picture: bytes) -> tuple[str, tuple[int, int]]:
    """The kind of a picture and its width and height as browsers show it, upright."""
    try:
        with PIL.Image.open(io.BytesIO(picture), formats=("PNG", "JPEG")) as image:
            image.load()
            return str(image.format).lower(), PIL.ImageOps.exif_transpose(image).size
    # Damaged files raise about anything in Pillow's readers.
    except Exception as error:
        known = not isinstance(error, PIL.UnidentifiedImageError)
        reason = (
            first_line(error) if known else f"its {len(picture)} bytes are neither PNG nor JPEG"
        )
        raise MMCoTError(Errors.E720.format(reason=reason)) from None


def _maps(attentions: Sequence[TokenAttention], text: str) -> list[NDArray[numpy.float64]]:
    maps: list[NDArray[numpy.float64]] = []
    for number, (start, end, _, weights) in enumerate(attentions, start=1):
        if not 0 <= start < end <= len(text):
            raise MMCoTError(
                Errors.E723.format(number=number, start=start, end=end, length=len(text))
            )
        try:
            values = numpy.asarray(weights, dtype="float64")
        except (TypeError, ValueError) as error:
            problem = f"are no table of numbers: {first_line(error)}"
        else:
            problem = _fault(values, maps[0].shape if maps else values.shape)
        if problem:
            raise MMCoTError(
                Errors.E722.format(number=number, mention=text[start:end], problem=problem)
            )
        maps.append(values)
    return maps


def _fault(values: NDArray[numpy.float64], grid: tuple[int, ...]) -> str:
    """What is wrong with some weights, empty where nothing is."""
    if values.ndim != 2 or not values.size:
        return f"have the shape {values.shape}"
    if values.shape != grid:
        return f"have the shape {values.shape}, but the first mention's have {grid}"
    if not numpy.isfinite(values).all() or values.min() < 0:
        bad = values[~(values >= 0) | ~numpy.isfinite(values)][0]
        return f"hold {bad}"
    total = float(values.sum())
    return f"sum to {total:.4f}" if total > 1.0 + _TOLERANCE else ""


def _choices(
    attentions: Sequence[TokenAttention], maps: list[NDArray[numpy.float64]], text: str
) -> str:
    if not attentions:
        return '<p class="mmcot-none">No mentions</p>\n'
    choices = []
    for index, ((start, end, label, _), weights) in enumerate(zip(attentions, maps, strict=True)):
        top = min(max(float(weights.max()), _FLOOR / weights.size), 1.0)
        before, after = _context(text, start, end)
        choices.append(
            _CHOICE.format(
                checked="" if index else " checked",
                hue=hue(label),
                mention=escape(text[start:end]),
                label=escape(label),
                heat=_data_url("png", heat_png(weights / top)),
                before=escape(before),
                after=escape(after),
                summary=_summary(weights),
                top=_percent(top),
                rows=weights.shape[0],
                columns=weights.shape[1],
            )
        )
    return _CHOICES.format(choices="".join(choices))


def _gate_words(gate: float) -> str:
    if gate < 1 / 3:
        return f"The model ignored this picture ({gate:.2f})"
    partly = " in part" if gate < 2 / 3 else ""
    return f"The model used this picture{partly} ({gate:.2f})"


def _summary(weights: NDArray[numpy.float64]) -> str:
    """The map in words, for those who cannot see it too."""
    total = min(float(weights.sum()), 1.0)
    words = f"{_percent(total)} of its attention fell on the picture"
    peak = float(weights.max())
    if not peak:
        return f"{words}."
    if peak < 2 * total / weights.size:
        return f"{words}, with no clear peak."
    row, column = numpy.unravel_index(int(weights.argmax()), weights.shape)
    vertical = _third(int(row), weights.shape[0], ("upper", "", "lower"))
    horizontal = _third(int(column), weights.shape[1], ("left", "", "right"))
    place = f"{vertical} {horizontal}".strip() or "middle"
    return f"{words}; its peak, {_percent(peak)} on one patch, is in the {place} part."


def _third(index: int, size: int, names: tuple[str, str, str]) -> str:
    return names[int((index + 0.5) * 3 / size)]


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 or not share else f"{share:.1%}"


def _context(text: str, start: int, end: int, reach: int = 40) -> tuple[str, str]:
    """What stands before and after a mention, cut at `reach` characters: it tells mentions of the
    same words apart."""
    before = text[max(start - reach, 0) : start]
    after = text[end : end + reach]
    return (
        f"…{before}" if start > reach else before,
        f"{after}…" if end + reach < len(text) else after,
    )


def _data_url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"

"""Texts with their entities and relations as HTML, Docs' pictures with the model's attention on
them for each mention, and the templates of the page.

An arc over the text stands for each relation. displaCy is not used: its dependency view draws a
text as one line that never wraps, at a fixed distance per word, and cannot show scores or which
relations are right, wrong and missed; its entity view escapes texts but not labels.

The heat map of the attention lies over the picture in grey: all colour shown is attention.
"""

from __future__ import annotations

import functools
import io
import re
import zlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, Literal, NamedTuple

import jinja2
import numpy
import PIL.Image
from markupsafe import Markup
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..corpus.extensions import Alignment, get_alignment
from ..messages import escape_control
from ..pictures.decode import make_thumbnail
from ..pictures.read import BadPicture, PicturePolicy, get_image, read_picture

# How a mention or a relation compares with gold.
Status = Literal["", "right", "wrong", "missed"]

_SIGNS: dict[Status, str] = {"right": " ✓", "wrong": " ✗", "missed": " missed", "": ""}


class Mention(NamedTuple):
    """A mention by character offsets, end exclusive; `score` is a probability or None."""

    start: int
    end: int
    label: str
    score: float | None = None
    status: Status = ""


class Arc(NamedTuple):
    """A relation between two (start, end) of character offsets; `score` as in Mention."""

    head: tuple[int, int]
    tail: tuple[int, int]
    label: str
    score: float | None = None
    status: Status = ""


def render_text(text: str, mentions: Iterable[Mention], arcs: Sequence[Arc] | None) -> Markup:
    """A text with its mentions and the relations between them, as an HTML fragment.

    Mentions do not overlap. The end of a relation that no mention touches is marked without a
    label. arcs: None where relations are not annotated.
    """
    shown = _add_ends(mentions, arcs or ())
    pieces: list[tuple[str, dict[str, Any] | None, str]] = []
    at = 0
    for mention in shown:
        marked = {**mention._asdict(), "text": text[mention.start : mention.end]}
        # The verdict on what is not right, with the pipeline's score.
        status = "" if mention.status == "right" else _SIGNS[mention.status]
        if status and mention.score is not None:
            status += f" {mention.score:.2f}"
        pieces.append((text[at : mention.start], marked, status))
        at = mention.end
    pieces.append((text[at:], None, ""))
    links = None if arcs is None else [_make_link(text, shown, arc) for arc in arcs]
    return render_template("text.html.jinja", pieces=pieces, links=links)


def _make_link(text: str, mentions: list[Mention], arc: Arc) -> dict[str, Any]:
    head, tail = (_find_mention(mentions, span) for span in (arc.head, arc.tail))
    score = ("" if arc.score is None else f"{arc.score:.2f}") + _SIGNS[arc.status]
    texts = {"head_text": text[slice(*arc.head)], "tail_text": text[slice(*arc.tail)]}
    return {**arc._asdict(), **texts, "head": head, "tail": tail, "score": score.strip()}


def _add_ends(mentions: Iterable[Mention], arcs: Iterable[Arc]) -> list[Mention]:
    """The mentions, and the ends of relations that none of them touches, in text order."""
    found = list(mentions)
    for arc in arcs:
        for start, end in (arc.head, arc.tail):
            if all(end <= other.start or other.end <= start for other in found):
                found.append(Mention(start, end, ""))
    return sorted(found, key=lambda mention: mention[:2])


def _find_mention(mentions: list[Mention], span: tuple[int, int]) -> int:
    """The index of the mention that is the span, or else of the first one that it touches."""
    touched = [i for i, m in enumerate(mentions) if m.start < span[1] and span[0] < m.end]
    return next((i for i in touched if mentions[i][:2] == span), touched[0])


def compute_hue(label: str) -> int:
    """The colour of a label, the same in every process: a hue in degrees, [0, 360)."""
    return zlib.crc32(label.encode()) % 360


def read_asset(name: str) -> str:
    """A file of the folder static."""
    return (files(__package__) / "static" / name).read_text(encoding="utf-8")


def render_template(name: str, **values: Any) -> Markup:
    """A template of the folder static, with all values escaped that are not Markup."""
    return Markup(get_environment().get_template(name).render(**values))


def _escape_value(value: object) -> object:
    """Texts of posts without control characters and marks that change the direction of others."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return escape_control(value, keep="\n\t\u200c\u200d\u2028\u2029")
    return value


@functools.cache
def get_environment() -> jinja2.Environment:
    """The templates of the folder static, with values escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_escape_value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["hue"] = compute_hue
    return environment


# Of a quoted path. A page that is passed on does not tell where its maker's files lie.
_FOLDERS = re.compile(r"(['\"])[^'\"]*[/\\]")
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
        return line.format(_FOLDERS.sub(r"\1", str(problem)))
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

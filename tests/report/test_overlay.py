"""Overlays: every mention has its choice and its own map, nothing is let through, heat can be told
from any picture, and what cannot be drawn is refused by name."""

from __future__ import annotations

import io
import itertools
import re
from base64 import b64decode
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy
import PIL.Image
import pytest
import spacy
from numpy.typing import NDArray
from spacy.tokens import Doc, Span

from spacy_mmcot.corpus.extensions import register_extensions
from spacy_mmcot.pictures.read import PicturePolicy
from spacy_mmcot.report.drawings import read_asset, render_picture
from spacy_mmcot.types import ALIGNMENT_KEY, IMAGE_KEY, digest_text

register_extensions()
DEMO = Path(__file__).parents[2] / "assets" / "demo"
TEXT = "Anna Li of Oslo met Anna Li"
MENTIONS = ((0, 2, "PER"), (3, 4, "LOC"), (5, 7, "PER"))
STYLE = read_asset("theme.css") + read_asset("overlay.css")
VOID = {"img", "input"}


def picture(
    kind: str = "PNG", size: tuple[int, int] = (48, 32), orientation: int | None = None
) -> bytes:
    file = io.BytesIO()
    exif = PIL.Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    PIL.Image.new("RGB", size, (10, 120, 200)).save(file, kind, exif=exif)
    return file.getvalue()


def peak(row: int, column: int, *, share: float = 0.5, grid: tuple[int, int] = (6, 6)) -> Any:
    weights = numpy.zeros(grid)
    weights[row, column] = share
    return weights


EVEN = numpy.full((2, 3), 0.1)


def make_doc(
    image: str | bytes | None = None,
    maps: Sequence[Any] | None = None,
    gate: float = 0.5,
    words: Sequence[str] = tuple(TEXT.split()),
    mentions: Sequence[tuple[int, int, str]] = MENTIONS,
) -> Doc:
    """A Doc whose mentions have these maps, each the same for all of the mention's tokens."""
    doc = Doc(spacy.blank("en").vocab, words=list(words))
    doc.set_ents([Span(doc, *mention) for mention in mentions[: len(maps or mentions)]])
    if image is not None:
        doc.user_data[IMAGE_KEY] = image
    if maps is not None:
        grid = numpy.shape(maps[0]) if maps else (1, 1)
        tokens = numpy.zeros((len(doc), *grid), dtype="float16")
        for (start, end, _), weights in zip(mentions, maps, strict=False):
            tokens[start:end] = weights
        keep(doc, gate, tokens)
    return doc


def keep(doc: Doc, gate: float, tokens: NDArray[Any]) -> Doc:
    """With an alignment as a pipeline leaves it on a Doc. tokens: (tokens, rows, columns)."""
    grid = list(tokens.shape[1:])
    stored = {"gate": gate, "grid": grid, "text": digest_text(doc.text)}
    doc.user_data[ALIGNMENT_KEY] = {**stored, "tokens": tokens.astype("float16").tobytes()}
    return doc


def draw(*maps: Any, gate: float = 0.5, **more: Any) -> Fragment:
    return Fragment(render_picture(make_doc(picture(**more), maps, gate)))


class Fragment(HTMLParser):
    """What a browser would see: balanced elements, sources, choices and the text shown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.names: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.inputs: list[dict[str, str | None]] = []
        self.labels: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.shown = ""
        self.feed(str(html))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.names += [name for name, _ in attrs]
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "form":
            self.attributes = dict(attrs)
        if tag == "input":
            assert "label" in self.open
            self.inputs.append(dict(attrs))
        if tag == "label":
            self.labels.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open or "script" in self.open:
            return
        self.shown += data
        if "label" in self.open:
            self.labels[-1] += data


def pixels(url: str | None) -> NDArray[numpy.uint8]:
    """Of a PNG in a data URL: (rows, columns, RGBA)."""
    assert url is not None
    head, content = url.split(",")
    assert head == "data:image/png;base64"
    return numpy.asarray(PIL.Image.open(io.BytesIO(b64decode(content))).convert("RGBA"))


def heat(fragment: Fragment) -> list[NDArray[numpy.uint8]]:
    return [pixels(image["src"]) for image in fragment.images[1:]]


def test_every_mention_has_its_choice_and_its_map() -> None:
    fragment = draw(peak(0, 0), peak(5, 5), peak(2, 4), gate=0.9)
    assert [i["type"] for i in fragment.inputs] == ["radio"] * 4
    assert len({i["name"] for i in fragment.inputs}) == 1
    assert ["checked" in i for i in fragment.inputs] == [True, False, False, False]
    names = [re.match(r"(.*?)(PER|LOC|$)", label) for label in fragment.labels[:3]]
    assert [(n[1].strip(), n[2]) for n in names if n] == [
        ("Anna Li", "PER"),
        ("Oslo", "LOC"),
        ("Anna Li", "PER"),
    ]
    assert fragment.labels[3] == "Picture alone"
    for image, (row, column) in zip(heat(fragment), [(0, 0), (5, 5), (2, 4)], strict=True):
        patches = image[..., 3].reshape(6, len(image) // 6, 6, -1).mean((1, 3))
        assert numpy.unravel_index(patches.argmax(), patches.shape) == (row, column)
        assert patches[row, column] > 3 * numpy.sort(patches.ravel())[-2]


def test_sideways_pictures_are_shown_upright() -> None:
    image = draw(EVEN, kind="JPEG", orientation=6).images[0]
    assert (image["width"], image["height"]) == ("32", "48")


@pytest.mark.parametrize(
    ("size", "shown", "wide"),
    [
        ((48, 32), (48, 32), 320),
        ((1, 1), (1, 1), 320),
        ((400, 100), (400, 100), 400),
        ((2000, 1000), (448, 224), 448),
        ((1000, 2000), (224, 448), 224),
        ((9, 4000), (1, 448), 1),
    ],
)
@pytest.mark.parametrize("maps", [(EVEN,), None])
def test_pictures_of_any_size(
    size: tuple[int, int], shown: tuple[int, int], wide: int, maps: Any
) -> None:
    html = render_picture(make_doc(picture(size=size), maps))
    image = Fragment(html).images[0]
    head, content = (image["src"] or "").split(",")
    assert head == "data:image/jpeg;base64"
    assert PIL.Image.open(io.BytesIO(b64decode(content))).size == shown
    assert (image["width"], image["height"]) == tuple(map(str, shown))
    assert f"--wide: {wide}px;" in html
    assert ("<form" in html) == (maps is not None)


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        (0.93, "The model used this picture (0.93)"),
        (0.5, "The model used this picture in part (0.50)"),
        (0.08, "The model ignored this picture (0.08)"),
        (0, "The model ignored this picture (0.00)"),
        (1, "The model used this picture (1.00)"),
    ],
)
def test_the_gate_in_words(gate: float, words: str) -> None:
    fragment = draw(EVEN, gate=gate)
    assert words in fragment.shown
    assert "meter" in fragment.tags


def test_without_mentions_and_without_attention() -> None:
    fragment = Fragment(render_picture(make_doc(picture(), [], mentions=[])))
    assert "No mentions" in fragment.shown
    assert fragment.inputs == [] and len(fragment.images) == 1
    plain = Fragment(render_picture(make_doc(picture())))
    assert plain.shown.strip() == "" and plain.inputs == []
    assert plain.images[0]["alt"] == f"Picture of the text: {TEXT} "
    assert render_picture(make_doc(None, [EVEN])) == ""


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (EVEN, "60.0% of its attention on the picture, 10.0% on one patch"),
        (peak(2, 2, share=0.031), "3.1% on one patch"),
        (peak(0, 0, share=0.0), "0.0% of its attention"),
        # Sums of attention in half precision are not exactly 1.
        (numpy.full((7, 7), 1.004 / 49), "100.0% of its attention"),
    ],
)
def test_the_map_in_words(weights: Any, words: str) -> None:
    assert words in draw(weights).labels[0]


def test_the_scale_ends_at_the_peak_and_keeps_even_maps_pale() -> None:
    even, sharp = numpy.full((10, 10), 0.01), peak(4, 4, share=0.3, grid=(10, 10))
    fragment = draw(even, sharp)
    pale, hot = heat(fragment)
    assert numpy.unique(pale[..., 3]).size == 1
    assert 0 < pale[0, 0, 3] < hot[..., 3].max() / 2


@pytest.mark.parametrize("grid", [(1, 1), (1, 9), (16, 16), (37, 37), (300, 2)])
def test_grids_of_any_size(grid: tuple[int, int]) -> None:
    (image,) = heat(draw(numpy.full(grid, 1 / (grid[0] * grid[1]))))
    assert image.shape[0] * grid[1] == image.shape[1] * grid[0]


def test_a_mention_has_the_mean_over_its_tokens() -> None:
    tokens = numpy.zeros((7, 6, 6))
    tokens[0, 0, 0], tokens[1, 5, 5], tokens[2, 3, 3], tokens[3, 0, 5] = 0.5, 0.25, 1.0, 0.75
    doc = keep(make_doc(str(DEMO / "images" / "sports-001.png")), 0.8, tokens)
    fragment = Fragment(render_picture(doc))
    assert "37.5% of its attention on the picture, 25.0%" in fragment.labels[0]
    assert "75.0% of its attention on the picture, 75.0%" in fragment.labels[1]
    patches = heat(fragment)[0][..., 3].reshape(6, -1, 6, len(heat(fragment)[0]) // 6)
    anna = patches.mean((1, 3))
    assert anna[0, 0] > anna[5, 5] > 2 * anna[3, 3]


HOSTILE = [
    '<script>alert("1")</script>',
    "<img/src=x/onerror=alert(2)>",
    "a\"b'c&amp;{text}{{7*7}}",
    "</form></label>",
    "x\"; background: url('http://example.com')",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_stays_text(hostile: str) -> None:
    """As mention, around it, and as label."""

    def fragment(words: str) -> Fragment:
        doc = make_doc(picture(), [EVEN], words=[words] * 3, mentions=[(1, 2, words)])
        return Fragment(render_picture(doc))

    found, expected = fragment(hostile), fragment("x")
    assert (found.tags, found.names) == (expected.tags, expected.names)
    assert found.images[0]["alt"] == f"Picture of the text: {hostile} {hostile} {hostile} "[:121]
    # Choice and label.
    assert found.labels[0].startswith(f"{hostile} {hostile}")


def test_no_network_and_no_script() -> None:
    html = STYLE + str(render_picture(make_doc(picture(), [EVEN])))
    words = r"https?:|//|@import|<script|javascript:|\son\w+="
    assert re.findall(words, re.sub(r"base64,[^\")]*", "", html)) == []
    sources = re.findall(r"""(?:src|href|action)=["']?([^"'\s>]*)|url\(([^)]*)\)""", html)
    assert len(sources) == 2
    assert all("".join(source).startswith("data:image/") for source in sources)


def test_every_class_has_a_style() -> None:
    html = render_picture(make_doc(picture(), [EVEN]))
    for name in " ".join(re.findall(r'class="([^"]+)"', html)).split():
        assert f".{name}" in STYLE


def composite(colour: NDArray[numpy.uint8], grey: float) -> float:
    """Relative luminance (WCAG 2) of a translucent colour on a grey between 0 and 1."""
    share = colour[3] / 255
    channels = colour[:3] / 255 * share + grey * (1 - share)
    linear = numpy.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("white", [0.0, 1.0])
def test_heat_can_be_told_from_black_and_white_pictures(white: float) -> None:
    """The peak at 3:1 (WCAG AA for graphics); what is hotter is brighter; and it has a colour,
    which the picture under it has not."""
    (contrast, brightness) = map(
        float,
        re.findall(r"\n  backdrop-filter: grayscale\(1\) contrast\((.+?)\) brightness\((.+?)\);",
                   STYLE)[0],
    )  # fmt: skip
    grey = ((white - 0.5) * contrast + 0.5) * brightness
    (hot,) = heat(draw(peak(0, 0, grid=(8, 8))))
    ramp = numpy.unique(hot.reshape(-1, 4), axis=0)
    ramp = ramp[ramp[:, 3].argsort(kind="stable")]
    luminances = [composite(colour, grey) for colour in ramp]
    assert ramp[0, 3] == 0
    assert (luminances[-1] + 0.05) / (luminances[0] + 0.05) >= 3
    upper = luminances[len(ramp) // 4 :]
    assert all(a <= b for a, b in itertools.pairwise(upper))
    dense = ramp[ramp[:, 3] > 75].astype(int)
    assert ((dense[:, 0] - dense[:, 2]) * (dense[:, 3] / 255) > 40).all()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("/home/ada/<no>such.png", "no such file: '<no>such.png'"),
        (b"not a picture", ""),
        (b"", "it has zero bytes"),
    ],
)
def test_a_bad_picture_is_said(image: str | bytes, reason: str) -> None:
    for maps in (None, [EVEN]):
        fragment = Fragment(render_picture(make_doc(image, maps)))
        assert fragment.tags == ["p"]
        assert fragment.shown.startswith("Picture not shown: it ")
        assert reason in fragment.shown and "ada" not in fragment.shown


def test_pictures_are_read_by_the_policy(tmp_path: Path) -> None:
    policy = PicturePolicy(root=str(tmp_path))
    (tmp_path / "inside.png").write_bytes(picture())
    inside, outside = tmp_path / "inside.png", DEMO / "images" / "sports-001.png"
    assert "<form" in render_picture(make_doc(str(inside), [EVEN]), policy)
    line = render_picture(make_doc(str(outside), [EVEN]), policy)
    assert "Picture not shown: it lies outside the folder" in line
    assert tmp_path.name in line and str(tmp_path) not in line

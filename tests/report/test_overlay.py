"""Overlays: every mention has its choice and its own map, nothing is let through, heat can be told
from any picture, and what cannot be drawn is refused by name."""

from __future__ import annotations

import io
import itertools
import re
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import PIL.Image
import pytest
import spacy
from numpy.typing import NDArray
from spacy.tokens import Doc, Span

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.pictures.read import PicturePolicy
from spacy_mmcot.report.overlay import (
    TokenAttention,
    doc_overlay,
    doc_picture,
    overlay_html,
    overlay_style,
)
from spacy_mmcot.types import IMAGE_KEY

DEMO = Path(__file__).parents[2] / "assets" / "demo"
TEXT = "Anna Li of Oslo met Anna Li"
EVEN = [[0.1, 0.1, 0.1], [0.1, 0.1, 0.1]]
VOID = {"img", "input"}


class Seen(NamedTuple):
    """An alignment, as a pipeline leaves it on a Doc."""

    gate: float
    grid: tuple[int, int]
    tokens: NDArray[Any]


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
    return weights.tolist()


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
        self.feed(html)
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
    attentions = [
        TokenAttention(0, 7, "PER", peak(0, 0)),
        TokenAttention(11, 15, "LOC", peak(5, 5)),
        TokenAttention(20, 27, "PER", peak(2, 4)),
    ]
    fragment = Fragment(overlay_html(picture(), 0.9, attentions, TEXT))
    assert [i["type"] for i in fragment.inputs] == ["radio"] * 4
    assert len({i["name"] for i in fragment.inputs}) == 1
    assert ["checked" in i for i in fragment.inputs] == [True, False, False, False]
    names = [re.match(r"(.*?)(PER|LOC|$)", label) for label in fragment.labels[:3]]
    assert [(n[1].strip(), n[2]) for n in names if n] == [
        ("Anna Li", "PER"),
        ("Oslo", "LOC"),
        ("Anna Li", "PER"),
    ]
    # The two of the same words are told apart by where they stand.
    assert "Anna Li of Oslo met Anna Li50%" in fragment.labels[0]
    assert fragment.labels[3] == "Picture alone"
    for image, (row, column) in zip(heat(fragment), [(0, 0), (5, 5), (2, 4)], strict=True):
        patches = image[..., 3].reshape(6, len(image) // 6, 6, -1).mean((1, 3))
        assert numpy.unravel_index(patches.argmax(), patches.shape) == (row, column)
        assert patches[row, column] > 3 * numpy.sort(patches.ravel())[-2]


def test_the_picture_goes_in_as_it_is() -> None:
    for kind in ("PNG", "JPEG"):
        data = picture(kind)
        fragment = Fragment(overlay_html(data, None, [], TEXT))
        head, content = (fragment.images[0]["src"] or "").split(",")
        assert head == f"data:image/{kind.lower()};base64"
        assert b64decode(content) == data
        assert fragment.images[0]["alt"] == f"Picture of the text: {TEXT}"


def test_sideways_pictures_get_the_place_that_they_take_upright() -> None:
    image = Fragment(overlay_html(picture("JPEG", orientation=6), None, [], TEXT)).images[0]
    assert (image["width"], image["height"]) == ("32", "48")


@pytest.mark.parametrize(
    ("size", "wide"),
    [((48, 32), 320), ((1, 1), 320), ((400, 100), 400), ((1000, 2000), 224), ((3000, 1), 448)],
)
def test_pictures_of_any_size_have_a_size_to_be_looked_at(size: tuple[int, int], wide: int) -> None:
    style = Fragment(overlay_html(picture(size=size), None, [], TEXT)).attributes["style"] or ""
    assert f"--wide: {wide}px;" in style


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
    fragment = Fragment(overlay_html(picture(), gate, [], TEXT))
    assert words in fragment.shown
    assert "meter" in fragment.tags


def test_without_gate_and_mentions() -> None:
    fragment = Fragment(overlay_html(picture(), None, [], TEXT))
    assert "The model" not in fragment.shown
    assert "No mentions" in fragment.shown
    assert fragment.inputs == []
    assert len(fragment.images) == 1


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (EVEN, "60% of its attention fell on the picture, with no clear peak."),
        (peak(0, 5), "50% on one patch, is in the upper right part."),
        (peak(3, 0), "50% on one patch, is in the left part."),
        (peak(2, 2, share=0.031), "3.1% on one patch, is in the middle part."),
        (peak(0, 0, share=0.0), "0% of its attention fell on the picture."),
        ([[1.0]], "100% of its attention fell on the picture, with no clear peak."),
    ],
)
def test_the_map_in_words(weights: Any, words: str) -> None:
    attentions = [TokenAttention(0, 7, "PER", weights)]
    assert words in Fragment(overlay_html(picture(), 0.5, attentions, TEXT)).labels[0]


def test_the_scale_ends_at_the_peak_and_keeps_even_maps_pale() -> None:
    even, sharp = numpy.full((10, 10), 0.01), peak(4, 4, share=0.3, grid=(10, 10))
    attentions = [TokenAttention(0, 7, "A", even.tolist()), TokenAttention(11, 15, "B", sharp)]
    fragment = Fragment(overlay_html(picture(), 0.5, attentions, TEXT))
    pale, hot = heat(fragment)
    assert numpy.unique(pale[..., 3]).size == 1
    assert 0 < pale[0, 0, 3] < hot[..., 3].max() / 2
    assert "0%4.0%of its attention on a patch (10\xa0×\xa010 patches)" in fragment.labels[0]
    assert "0%30%of its attention on a patch" in fragment.labels[1]


@pytest.mark.parametrize("grid", [(1, 1), (1, 9), (16, 16), (37, 37), (300, 2)])
def test_grids_of_any_size(grid: tuple[int, int]) -> None:
    weights = numpy.full(grid, 1 / (grid[0] * grid[1])).tolist()
    attentions = [TokenAttention(0, 4, "PER", weights)]
    (image,) = heat(Fragment(overlay_html(picture(), 0.5, attentions, TEXT)))
    assert image.shape[0] * grid[1] == image.shape[1] * grid[0]


HOSTILE = [
    '<script>alert("1")</script>',
    "<img/src=x/onerror=alert(2)>",
    "a\"b'c&amp;{text}",
    "</form></label>",
    "x\"; background: url('http://example.com')",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_stays_text(hostile: str) -> None:
    """As mention, around it, and as label."""

    def fragment(words: str) -> Fragment:
        text = f"{words} {words} {words}"
        start = len(words) + 1
        attentions = [TokenAttention(start, start + len(words), words, EVEN)]
        return Fragment(overlay_html(picture(), 0.5, attentions, text))

    found, expected = fragment(hostile), fragment("x")
    assert (found.tags, found.names) == (expected.tags, expected.names)
    assert found.images[0]["alt"] == f"Picture of the text: {hostile} {hostile} {hostile}"[:121]
    # Choice and label, then the mention where it stands.
    assert found.labels[0].startswith(f"{hostile} {hostile}")
    assert f"{hostile} {hostile} {hostile}"[:60] in found.labels[0]


def test_no_network_and_no_script() -> None:
    attentions = [TokenAttention(0, 7, "PER", EVEN)]
    html = overlay_html(picture(), 0.5, attentions, TEXT)
    assert (
        re.findall(r"https?:|//|@import|<script|javascript:|\son\w+=", html.split("base64")[0])
        == []
    )
    sources = re.findall(r"""(?:src|href|action)=["']?([^"'\s>]*)|url\(([^)]*)\)""", html)
    assert len(sources) == 3
    assert all("".join(source).startswith("data:image/png;base64,") for source in sources)
    assert "http" not in overlay_style()


def test_the_style_comes_along_or_not() -> None:
    html = overlay_html(picture(), 0.5, [], TEXT)
    bare = overlay_html(picture(), 0.5, [], TEXT, style=False)
    assert html == f"<style>\n{overlay_style()}</style>\n{bare}"
    used = set(
        re.findall(
            r'class="([^"]+)"',
            overlay_html(picture(), 0.5, [TokenAttention(0, 7, "PER", EVEN)], TEXT, style=False),
        )
    )
    for name in " ".join(used).split():
        assert f".{name}" in overlay_style()


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
                   overlay_style())[0],
    )  # fmt: skip
    grey = ((white - 0.5) * contrast + 0.5) * brightness
    html = overlay_html(picture(), None, [], TEXT)
    ramp = pixels((re.search(r"--ramp: url\((.*?)\)", html) or [""])[1])[0]
    luminances = [composite(colour, grey) for colour in ramp]
    assert ramp[0, 3] == 0
    assert (luminances[-1] + 0.05) / (luminances[0] + 0.05) >= 3
    upper = luminances[64:]
    assert all(a <= b for a, b in itertools.pairwise(upper))
    red, blue = ramp[64:, 0].astype(int), ramp[64:, 2].astype(int)
    assert ((red - blue) * (ramp[64:, 3] / 255) > 40).all()


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        ([], "have the shape (0,)"),
        ([[]], "have the shape (1, 0)"),
        ([0.1, 0.2], "have the shape (2,)"),
        ([[[0.1]]], "have the shape (1, 1, 1)"),
        ([[0.1, 0.2], [0.1]], "are no table of numbers"),
        ([["much"]], "are no table of numbers"),
        ([[object()]], "are no table of numbers"),
        ([[0.1, -0.2]], "hold -0.2"),
        ([[0.1, float("nan")]], "hold nan"),
        ([[float("inf"), 0.1]], "hold inf"),
        ([[None]], "hold nan"),
        ([[0.6, 0.6]], "sum to 1.2000"),
        ([[3.2, -4.0]], "hold -4.0"),
    ],
)
def test_weights_that_cannot_be_drawn(weights: Any, problem: str) -> None:
    attentions = [TokenAttention(11, 15, "LOC", weights)]
    with pytest.raises(MMCoTError, match=r"^\[E722\]") as caught:
        overlay_html(picture(), 0.5, attentions, TEXT)
    assert "mention 1, 'Oslo'" in str(caught.value)
    assert problem in str(caught.value)


def test_all_maps_have_the_picture_s_grid() -> None:
    attentions = [TokenAttention(0, 7, "PER", EVEN), TokenAttention(11, 15, "LOC", peak(0, 0))]
    with pytest.raises(MMCoTError, match=r"\[E722\].*mention 2.*\(6, 6\).*\(2, 3\)"):
        overlay_html(picture(), 0.5, attentions, TEXT)


def test_sums_a_little_over_one_are_rounding() -> None:
    weights = numpy.full((7, 7), 1 / 49, dtype="float16")
    attentions = [TokenAttention(0, 7, "PER", (weights * 1.004).tolist())]
    fragment = Fragment(overlay_html(picture(), 0.5, attentions, TEXT))
    assert "100% of its attention" in fragment.labels[0]


@pytest.mark.parametrize("gate", [-0.1, 1.01, float("nan"), float("inf")])
def test_gates_out_of_range(gate: float) -> None:
    with pytest.raises(MMCoTError, match=r"^\[E721\]"):
        overlay_html(picture(), gate, [], TEXT)


@pytest.mark.parametrize(
    ("start", "end"), [(-1, 3), (3, 3), (5, 4), (0, len(TEXT) + 1), (len(TEXT), len(TEXT) + 4)]
)
def test_mentions_outside_the_text(start: int, end: int) -> None:
    with pytest.raises(MMCoTError, match=r"^\[E723\] Mention 1 .* 27 characters"):
        overlay_html(picture(), 0.5, [TokenAttention(start, end, "PER", EVEN)], TEXT)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes are neither"),
        (b"<svg onload='alert(1)'/>", "24 bytes are neither"),
        (picture("GIF"), "neither PNG nor JPEG"),
        (picture("JPEG", (200, 200))[:-100], "truncated"),
        (picture("PNG", (200, 200))[:60], ""),
    ],
)
def test_what_is_no_picture_for_a_page(data: bytes, reason: str) -> None:
    with pytest.raises(MMCoTError, match=r"^\[E720\]") as caught:
        overlay_html(data, 0.5, [], TEXT)
    assert reason in str(caught.value)


def make_doc(image: str | bytes | None) -> Doc:
    doc = Doc(spacy.blank("en").vocab, words=["Anna", "Li", "of", "Oslo"])
    doc.set_ents([Span(doc, 0, 2, "PER"), Span(doc, 3, 4, "LOC")])
    if image is not None:
        doc.user_data[IMAGE_KEY] = image
    return doc


def test_a_doc_s_mentions_show_the_mean_over_their_tokens() -> None:
    tokens = numpy.zeros((4, 6, 6), dtype="float16")
    tokens[0, 0, 0], tokens[1, 5, 5], tokens[2, 3, 3], tokens[3, 0, 5] = 0.5, 0.25, 1.0, 0.75
    image = DEMO / "images" / "sports-001.png"
    fragment = Fragment(doc_overlay(make_doc(str(image)), Seen(0.8, (6, 6), tokens)))
    assert "The model used this picture (0.80)" in fragment.shown
    assert [label.split(" ")[0] for label in fragment.labels] == ["Anna", "Oslo", "Picture"]
    assert "38% of its attention fell on the picture; its peak, 25%" in fragment.labels[0]
    assert "75% of its attention fell on the picture; its peak, 75%" in fragment.labels[1]
    anna, _ = heat(fragment)
    patches = anna[..., 3].reshape(6, len(anna) // 6, 6, -1).mean((1, 3))
    assert patches[0, 0] > patches[5, 5] > 2 * patches[3, 3]


def test_a_doc_s_picture_is_made_small() -> None:
    seen = Seen(0.8, (1, 1), numpy.full((4, 1, 1), 0.5))
    for size, shown in (((2000, 1000), (448, 224)), ((100, 60), (100, 60)), ((9, 4000), (1, 448))):
        html = doc_overlay(make_doc(picture(size=size)), seen, style=False)
        source = Fragment(html).images[0]["src"] or ""
        assert source.startswith("data:image/jpeg;base64,")
        assert PIL.Image.open(io.BytesIO(b64decode(source.split(",")[1]))).size == shown


@pytest.mark.parametrize(
    ("image", "reason"),
    [("<no>/such.png", ""), (b"not a picture", ""), (b"", "it has zero bytes"), (None, "")],
)
def test_a_doc_s_bad_picture_is_said(image: str | bytes | None, reason: str) -> None:
    html = doc_overlay(make_doc(image), Seen(0.8, (1, 1), numpy.full((4, 1, 1), 0.5)))
    fragment = Fragment(html)
    assert fragment.tags == ["p"]
    assert fragment.shown.startswith("Picture not shown: it ")
    assert reason in fragment.shown


def test_a_doc_s_picture_is_read_by_the_policy(tmp_path: Path) -> None:
    policy = PicturePolicy(root=str(tmp_path))
    seen = Seen(0.8, (1, 1), numpy.full((4, 1, 1), 0.5))
    (tmp_path / "inside.png").write_bytes(picture())
    inside, outside = tmp_path / "inside.png", DEMO / "images" / "sports-001.png"
    assert "<form" in doc_overlay(make_doc(str(inside)), seen, policy)
    assert "Picture not shown" in doc_overlay(make_doc(str(outside)), seen, policy)


def test_a_doc_s_picture_as_it_is() -> None:
    fragment = Fragment(doc_picture(make_doc(picture(size=(2000, 1000)))))
    source = fragment.images[0]["src"] or ""
    assert PIL.Image.open(io.BytesIO(b64decode(source.split(",")[1]))).size == (448, 224)
    assert fragment.images[0]["alt"] == "Picture of the text: Anna Li of Oslo "
    assert fragment.inputs == []
    assert "No mentions" not in fragment.shown
    assert "Picture not shown: it " in Fragment(doc_picture(make_doc(b"no"))).shown

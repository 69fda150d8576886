"""Pages of relations: everything is shown, nothing is let through, every label can be read."""

from __future__ import annotations

import colorsys
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import spacy
from spacy.tokens import Doc, Span

from spacy_mmcot.corpus.docs import make_doc
from spacy_mmcot.corpus.extensions import list_relations, register_extensions
from spacy_mmcot.report.drawings import Arc, Mention, compute_hue, read_asset, render_text
from spacy_mmcot.types import Post, Relation

register_extensions()
NLP = spacy.blank("en")
DEMO = Path(__file__).parents[2] / "assets" / "demo"
VOID = {"meta", "br"}
ASSETS = "".join(map(read_asset, ("theme.css", "relations.css", "relations.js")))
Entity = tuple[int, int, str]


def make(
    words: list[str],
    entities: list[Entity],
    relations: list[tuple[int, int, str, float]] | None,
    spaces: list[bool] | None = None,
) -> Doc:
    doc = Doc(NLP.vocab, words=words, spaces=spaces)
    spans = [Span(doc, start, end, label=label) for start, end, label in entities]
    doc.set_ents(spans, default="outside")
    if relations is not None:
        doc._.mmcot_rel = [Relation(spans[h], spans[t], *rest) for h, t, *rest in relations]
    return doc


def render(doc: Doc) -> str:
    """A Doc's text with its entities and relations."""
    mentions = [Mention(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]
    stored = list_relations(doc)
    if stored is None:
        return str(render_text(doc.text, mentions, None))
    arcs = [Arc((h0, h1), (t0, t1), *rest) for h0, h1, t0, t1, *rest in stored]
    return str(render_text(doc.text, mentions, arcs))


class Page(HTMLParser):
    """What a browser would see: balanced elements, marks, connectors, and the text shown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.tags: list[str] = []
        self.marks: list[str] = []
        self.connectors: list[dict[str, str | None]] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.shown = ""
        self.text = ""
        self.feed(str(html))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "mark":
            self.marks.append("")
        if tag == "li":
            self.connectors.append(dict(attrs))
        if tag == "br":
            self.handle_data("\n")
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        names = [tag for tag, _ in self.open]
        if "style" in names or "script" in names:
            return
        self.shown += data
        classes = [attributes.get("class") for _, attributes in self.open]
        if "mmcot-text" not in classes:
            return
        if names[-1] == "mark":
            self.marks[-1] += data
        # The chip of a mention's label is no part of the text.
        if names[-1] != "span":
            self.text += data


def ends(page: Page) -> list[tuple[int, int]]:
    return [(int(c["data-head"] or -1), int(c["data-tail"] or -1)) for c in page.connectors]


def test_mentions_and_relations_are_shown() -> None:
    doc = make(
        ["Anna", "Li", "of", "Oslo", "met", "Ben"],
        [(0, 2, "PER"), (3, 4, "LOC"), (5, 6, "PER")],
        [(0, 1, "lives_in", 0.931), (2, 0, "peer", 0.5)],
    )
    page = Page(render(doc))
    assert page.text == doc.text
    assert page.marks == ["Anna Li", "Oslo", "Ben"]
    assert ends(page) == [(0, 1), (2, 0)]
    tips = [connector["title"] for connector in page.connectors]
    assert tips == ["Anna Li → Oslo: lives_in, 0.93", "Ben → Anna Li: peer, 0.50"]
    assert page.shown.count("LOC") == 1
    assert "Anna Li → Oslo: lives_in 0.93" in page.shown


def test_none_and_not_annotated_are_told_apart() -> None:
    assert "No relations" in Page(render(make(["Hi"], [], []))).shown
    assert "Relations not annotated" in Page(render(make(["Hi"], [], None))).shown
    assert Page(render(Doc(NLP.vocab))).text == ""


HOSTILE = [
    '<script>alert("1")</script>',
    "<img/src=x/onerror=alert(2)>",
    "a\"b'c&amp;{text}",
    "</li>",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_stays_text(hostile: str) -> None:
    """In the text, as mention, as entity label and as relation label."""
    doc = make(
        [hostile, "met", hostile],
        [(0, 1, hostile), (2, 3, "PER")],
        [(0, 1, hostile, 0.5)],
    )
    harmless = make(["x", "met", "x"], [(0, 1, "x"), (2, 3, "PER")], [(0, 1, "x", 0.5)])
    page = Page(render(doc))
    expected = Page(render(harmless))
    assert page.tags == expected.tags
    assert [name for name, _ in page.attributes] == [name for name, _ in expected.attributes]
    assert page.text == doc.text
    # Twice in the text, entity label, relation label, and both ends of the connector.
    assert page.shown.count(hostile) == 6


def test_the_text_keeps_its_white_space() -> None:
    words = ["Anna", "\n\n", "  ", "met", "\t", "Ben", "\n"]
    doc = make(
        words,
        [(0, 1, "PER"), (5, 6, "PER")],
        [(0, 1, "peer", 0.5)],
        [False, False, True] + [True] * 4,
    )
    assert Page(render(doc)).text == doc.text


def test_neighbours_without_space_and_both_directions() -> None:
    doc = make(
        ["Anna", "Ben"],
        [(0, 1, "PER"), (1, 2, "PER")],
        [(0, 1, "peer", 0.9), (1, 0, "peer", 0.8)],
        [False, False],
    )
    page = Page(render(doc))
    assert (page.text, page.marks, ends(page)) == ("AnnaBen", ["Anna", "Ben"], [(0, 1), (1, 0)])


def test_mentions_that_are_no_entities() -> None:
    doc = make(["Anna", "Li", "met", "Ben", "Okri"], [(0, 2, "PER")], [])
    doc._.mmcot_rel = [
        Relation(doc[0:1], doc[3:5], "peer", 0.5),  # a part of an entity, and no entity
        Relation(doc[3:5], doc[0:2], "peer", 0.5),
    ]
    page = Page(render(doc))
    assert page.text == doc.text
    assert page.marks == ["Anna Li", "Ben Okri"]
    assert ends(page) == [(0, 1), (1, 0)]
    assert page.connectors[0]["title"] == "Anna → Ben Okri: peer, 0.50"


def test_many_relations() -> None:
    n = 40
    doc = make(
        [f"n{i}" for i in range(n)],
        [(i, i + 1, "PER") for i in range(n)],
        [(i, j, "peer", 0.5) for i in range(n) for j in range(n) if i != j],
    )
    page = Page(render(doc))
    assert len(page.marks) == n
    assert ends(page) == [(i, j) for i in range(n) for j in range(n) if i != j]


def test_browsers_find_the_direction_of_the_text() -> None:
    html = render(make(["محمد", "في", "القاهرة"], [(0, 1, "PER")], []))
    assert '<div class="mmcot-text" dir="auto">' in html
    assert Page(html).text == "محمد في القاهرة "


def test_what_is_said_beside_gold() -> None:
    mentions = [
        Mention(0, 4, "PER", 0.9, "right"),
        Mention(5, 8, "LOC", 0.62, "wrong"),
        Mention(9, 13, "LOC", None, "missed"),
    ]
    anna, ben, oslo = ((m.start, m.end) for m in mentions)
    arcs = [
        Arc(anna, ben, "peer", 0.9, "right"),
        Arc(ben, oslo, "of", 0.8, "wrong"),
        Arc(anna, oslo, "in", None, "missed"),
        Arc(oslo, anna, "in", 0.6),
    ]
    page = Page(render_text("Anna Ben Oslo", mentions, arcs))
    assert page.marks == ["Anna", "Ben", "Oslo"]
    assert "AnnaPER" in page.shown
    assert "BenLOC ✗ 0.62" in page.shown
    assert "OsloLOC missed" in page.shown
    classes = [connector["class"] for connector in page.connectors]
    assert classes == ["mmcot-right", "mmcot-wrong", "mmcot-missed", ""]
    assert [connector["title"] for connector in page.connectors] == [
        "Anna → Ben: peer, 0.90 ✓",
        "Ben → Oslo: of, 0.80 ✗",
        "Anna → Oslo: in, missed",
        "Oslo → Anna: in, 0.60",
    ]


def test_the_demo_posts() -> None:
    lines = (DEMO / "posts.jsonl").read_text("utf-8").splitlines()
    docs = [make_doc(NLP, Post.model_validate_json(line)) for line in lines if line.strip()]
    page = Page("".join(map(render, docs)))
    assert len(page.connectors) == sum(len(doc._.mmcot_rel) for doc in docs) > 100
    assert len(page.marks) == sum(len(doc.ents) for doc in docs)
    assert page.text == "".join(doc.text for doc in docs)


def test_the_fragments_ask_no_server() -> None:
    html = ASSETS + render(make(["Hi"], [], []))
    assert re.findall(r"(?:src|href)\s*=|@import|url\(|fetch\(|XMLHttp", html) == []
    # The name space of SVG is a name, not an address.
    assert set(re.findall(r"https?://[^\"' ]+", html)) == {"http://www.w3.org/2000/svg"}


def test_a_label_has_one_colour_in_every_process() -> None:
    assert [compute_hue(label) for label in ("PER", "é", "")] == [202, 326, 0]


def rgb(hue_degrees: int, saturation_lightness: str) -> tuple[float, float, float]:
    saturation, lightness = (float(part.rstrip("%")) / 100 for part in saturation_lightness.split())
    return colorsys.hls_to_rgb(hue_degrees / 360, lightness, saturation)


def luminance(colour: tuple[float, float, float]) -> float:
    """Relative luminance as in WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_hue_can_be_read(scheme: int) -> None:
    """Mentions at 7:1 (WCAG AAA for text), arcs at 3:1 (AA for graphics)."""
    style = read_asset("theme.css")
    values = {
        name: re.findall(rf"--{name}: ([^;]+);", style)[scheme]
        for name in ("fill", "ink", "edge", "paper")
    }
    code = values["paper"].lstrip("#")
    code = "".join(c * 2 for c in code) if len(code) == 3 else code
    red, green, blue = (int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))
    for degrees in range(360):
        assert contrast(rgb(degrees, values["ink"]), rgb(degrees, values["fill"])) >= 7
        assert contrast(rgb(degrees, values["edge"]), (red, green, blue)) >= 3


def test_control_characters_and_marks_of_direction_are_shown_as_escapes() -> None:
    text = "a\x1b[31m\x9b2J\u202egpj.exe\u2066\x07\ud800 \u0627\u0644\u200d\n\tb"
    page = str(render_text(text, [Mention(0, 1, "L\x1bX\u202e")], None))
    for hidden in "\x1b\x9b\u202e\u2066\x07\ud800":
        assert hidden not in page
    for shown in ("\\x1b[31m", "\\x9b2J", "\\u202egpj.exe", "\\ud800", "\u0627\u0644\u200d\n\tb"):
        assert shown in page

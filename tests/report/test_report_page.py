"""The report as a page: complete, closed to every server, and true whatever the texts hold."""

from __future__ import annotations

import functools
import json
import re
from base64 import b64encode
from hashlib import sha256

import pytest
from report_docs import ANNA, OSLO, TEXT, Page, doc_of, predicted, three

from spacy_mmcot.report.build import Item, make_articles, render_page
from spacy_mmcot.report.tables import Pipeline, make_verdict

HOSTILE = [
    '<script>alert("1")</script>',
    "<img/src=x/onerror=alert(2)>",
    "a\"b'c&amp;{text}{{ 7*7 }}{% if %}",
    "</template></article></script>",
    "\u2028$x^2$--><!--",
]
# What matplotlib draws with, in the parser's lower case.
SVG = {"svg", "defs", "style", "g", "path", "use", "text", "tspan", "clippath", "rect"}


def test_errors_come_first_and_views_hold_what_differs() -> None:
    pipelines, items = three()
    articles = make_articles([p.name for p in pipelines], items)
    # Wrong and missing mentions and relations: 3 of the third doc, 2 + 2 of the second.
    assert [(a.id, a.errors) for a in articles] == [("label", 4), ("none", 3), ("right", 0)]
    assert [a.place for a in articles] == [1, 2, 0]
    label, none, right = articles
    every = ["LOC", "PER", "at"]
    assert label.views == [every, every, every]
    assert none.views == [every, every, []]
    assert right.views == [every, [], []]
    assert label.tallies == [("student", 2, 2), ("baseline", 0, 0)]


def test_what_is_the_same_is_drawn_once() -> None:
    pipelines, items = three()
    articles = {a.id: a for a in make_articles([p.name for p in pipelines], items)}
    blocks = {name: [names for names, _ in article.blocks] for name, article in articles.items()}
    assert blocks["right"] == [["Gold", "student", "baseline"]]
    assert blocks["label"] == [["Gold", "baseline"], ["student"]]
    assert blocks["none"] == [["Gold"], ["student", "baseline"]]


def test_a_relation_between_mislabelled_mentions_is_wrong_as_the_scores_have_it() -> None:
    _, items = three()
    (article,) = make_articles(["student", "baseline"], items[1:2])
    assert "at, 0.88 ✗" in article.blocks[1][1]
    assert "at, missed" in article.blocks[0][1]


def test_the_verdict_comes_first_and_says_what_is_no_difference() -> None:
    pipelines, items = three()
    html = render_page("T", "S", pipelines, items)
    first, second, *_ = make_verdict(pipelines)
    assert re.fullmatch(
        r"student finds entities with F1 \d+\.\d \(95% interval \d+\.\d to \d+\.\d, 3 labelled "
        r"texts\)\.",
        first,
    )
    assert (
        second.startswith("It is ") and " baseline (" in second and "so it may be chance" in second
    )
    shown = Page(html).shown
    assert shown.index(first) < shown.index("Entities F1")
    timed = pipelines[0]._replace(metrics={"words_per_second": 900, "model_mb": 95.4})
    costs = make_verdict([timed])[-1]
    assert re.search(r"95 MB, reads 900 words/s here \(.+, \d+ cores?; one run\)", costs)
    hidden = {"gold": None, "gold_relations": None}
    bare = timed._replace(found=[doc.model_copy(update=hidden) for doc in timed.found])
    assert make_verdict([bare])[0].startswith("No text is labelled")


def test_nothing_is_held_against_docs_without_labels() -> None:
    found = predicted(TEXT, [], [ANNA]).model_copy(update={"gold": None, "gold_relations": None})
    (article,) = make_articles(["student"], [Item(doc_of(TEXT), [found])])
    assert article.errors == 0
    assert article.views == [["PER"], []]
    assert [names for names, _ in article.blocks] == [["student"]]
    assert "✗" not in article.blocks[0][1]


@pytest.fixture(scope="module")
def html() -> str:
    return render_page("T", "S", *three())


def test_the_knowledge_stands_beside_what_was_found_without_it(html: str) -> None:
    page = Page(html)
    text = " ".join(page.articles[2].split())
    assert "Oslo citywhere she sings" in text
    assert "A concert is announced." in text
    assert "What the LLM said" not in page.articles[0]


def test_scores_are_those_of_the_counts(html: str) -> None:
    shown = " ".join(Page(html).shown.split())
    # Of 6 gold mentions the student has 3 among 4, the baseline 4 among 4.
    assert "student60.0075.0050.0040.001,0001260" in shown
    assert "baseline80.00100.0066.6780.001,0001260" in shown


def test_the_page_is_closed_to_every_server(html: str) -> None:
    page = Page(html)
    assert "link" not in page.tags
    for tag, name, value in page.attributes:
        if name in ("src", "href", "action", "xlink:href"):
            assert value.startswith(("data:", "#")), (tag, name, value[:80])
        assert not name.startswith("on")
    assert re.findall(r"@import|fetch\(|XMLHttp|innerHTML|eval\(", html) == []
    assert set(re.findall(r"url\((?!data:|#)[^)]*", html)) <= {"url(${"}
    # A name space, not an address.
    assert set(re.findall(r"https?://[^\"' ]+", html)) == {"http://www.w3.org/2000/svg"}
    (policy,) = (v for t, n, v in page.attributes if t == "meta" and "default-src" in v)
    assert policy.startswith("default-src 'none'; img-src data:;")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        assert b64encode(sha256(script.encode()).digest()).decode() in policy


def test_ids_are_there_once_and_are_found(html: str) -> None:
    page = Page(html)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for _, name, value in page.attributes:
        if name == "href":
            assert value.removeprefix("#") in ids


@functools.cache
def render_words(words: str) -> str:
    """A page in which everything that a user names is these words."""
    text = f"{words} met {words}"
    start = len(words) + 5
    gold = [(0, len(words), words), (start, start + len(words), words)]
    knowledge = {
        "noun": [{"mention": words, "kind": words, "explanation": words}],
        "sentence": words,
        "multimodality": words,
    }
    found = [predicted(text, gold, gold[1:], words, words)]
    pipelines = [Pipeline(words, found, {"rel_confusion": {words: {words: 1}}})]
    item = Item(doc_of(text, knowledge), found)
    return render_page(words, words, pipelines, [item])


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_stays_text(hostile: str) -> None:
    """In texts, labels, relations, ids, knowledge, names of pipelines, and the title."""
    html = render_words(hostile)
    # A plot's ticks depend on the room that its words take.
    plots = re.compile(r'<svg role="img".*?</svg>', re.DOTALL)
    assert len(plots.findall(html)) == 2
    for plot in plots.findall(html):
        assert set(Page(plot).tags) <= SVG
    found, expected = Page(plots.sub("", html)), Page(plots.sub("", render_words("x")))
    assert found.tags == expected.tags
    names, wanted = ([(t, n) for t, n, _ in p.attributes] for p in (found, expected))
    assert names == wanted
    assert found.shown.count(hostile) >= 18
    (template,) = found.templates
    assert hostile.lower() in template["data-search"]
    assert json.loads(template["data-views"]) == [[hostile], [hostile]]


def test_plots_without_data_are_left_out(html: str) -> None:
    pipelines, items = three()
    assert html.count('class="plot"') == 2
    bare = [
        p._replace(
            metrics={},
            found=[
                d.model_copy(
                    update={
                        "confidence": None,
                        "entities": [e.model_copy(update={"score": None}) for e in d.entities],
                    }
                )
                for d in p.found
            ],
        )
        for p in pipelines
    ]
    assert 'class="plot"' not in render_page("T", "S", bare, items)


def test_every_relation_side_counts_for_pipelines_that_are_given_the_entities() -> None:
    """Without gold entities in its records a pipeline has no entity score and no entity errors."""
    found = predicted(TEXT, [ANNA, OSLO], [ANNA, OSLO], "at")
    given = found.model_copy(update={"gold": None, "entities": []})
    page = Page(
        render_page("T", "S", [Pipeline("rel", [given], {})], [Item(doc_of(TEXT), [given])])
    )
    assert "Entities F1" not in page.shown
    assert "Relations F1, end to end" in page.shown
    assert "rel ✓" in " ".join(page.articles[0].split())

"""What a person gets to correct, and what `convert` makes of it. The page is driven in a browser,
where one is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import spacy
from click.testing import Result

from spacy_mmcot.corpus.posts import read_posts
from spacy_mmcot.evaluation.review import Review
from spacy_mmcot.report.review import describe_label_studio, format_reviews
from spacy_mmcot.scheme import RelationLabel, Scheme
from spacy_mmcot.types import Entity, Post, PostRelation

Command = Callable[..., Result]

# The first name and its emoji are two code units a character in JavaScript.
TEXT = "🎤 Ada met Bo in Oslo </script><script>alert(1)</script>"
SCHEME = Scheme(
    entities={"PER": "people", "LOC": "places <b>"},
    relations={
        "lives_in": RelationLabel(definition="lives", head=["PER"], tail=["LOC"]),
        "knows": RelationLabel(definition="knows", head=["PER"], tail=["PER"]),
    },
)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), "")


def place(mention: str, label: str) -> Entity:
    start = TEXT.index(mention)
    return Entity(start=start, end=start + len(mention), label=label)


@pytest.fixture
def reviews() -> list[Review]:
    nlp = spacy.blank("en")
    posts = [
        Post(
            id="a",
            text=TEXT,
            entities=[place("Ada", "PER"), place("Oslo", "PER")],
            relations=[PostRelation(head=0, tail=1, label="knows")],
        ),
        Post(id="b", text="nobody is here", entities=[], relations=[], split="dev"),
    ]
    return [Review(post, nlp(post.text), ["LLM"] * 2, {"PER": 1.0, "": 0.2}) for post in posts]


@pytest.mark.parametrize(
    ("format", "name"),
    [("prodigy", "t.jsonl"), ("doccano", "t.jsonl"), ("label-studio", "t.json")],
)
def test_tasks_come_back_as_they_went(
    reviews: list[Review], format: Any, name: str, tmp_path: Path, command: Command
) -> None:
    path = tmp_path / name
    text = format_reviews(reviews, format, SCHEME, tmp_path)
    if format == "label-studio":
        # A person submits the predictions as they are.
        tasks = json.loads(text)
        for task in tasks:
            task["annotations"] = [{"result": task.pop("predictions")[0]["result"]}]
        text = json.dumps(tasks)
    path.write_text(text, "utf-8")
    out = tmp_path / "out.jsonl"
    done = command("convert", path, "-o", out)
    assert done.exit_code == 0, done.output
    first, second = read_posts(out)
    assert first.entities == reviews[0].post.entities
    assert first.relations == reviews[0].post.relations
    assert (first.text, first.id, second.id, second.entities) == (TEXT, "a", "b", [])


def test_doccano_gets_relations_where_there_are_any(reviews: list[Review], tmp_path: Path) -> None:
    for kept, key in ((reviews, "entities"), (reviews[1:], "label")):
        posts = [x.post.model_copy(update={"relations": x.post.relations or None}) for x in kept]
        bare = [replace(x, post=post) for x, post in zip(kept, posts, strict=True)]
        rows = format_reviews(bare, "doccano", SCHEME, tmp_path).splitlines()
        assert all(key in json.loads(row) for row in rows)
        # A row with an empty list would come back as labelled, without relations.
        related = [post.relations is not None for post in posts]
        assert ["relations" in json.loads(row) for row in rows] == related


def test_label_studio_gets_its_interface() -> None:
    shown = describe_label_studio(SCHEME)
    assert '<Label value="PER"/>' in shown and '<Relation value="knows"/>' in shown
    assert shown.index("<Relations>") < shown.index("<Labels")
    assert "Relations" not in describe_label_studio(Scheme(entities={"A&B": "c"}))
    assert 'value="A&amp;B"' in describe_label_studio(Scheme(entities={"A&B": "c"}))


def test_no_text_of_the_page_becomes_markup(reviews: list[Review], tmp_path: Path) -> None:
    page = format_reviews(reviews, "html", SCHEME, tmp_path)
    assert len(re.findall("<script", page)) == 2
    assert "alert(1)" in page


# Presses keys and buttons as a person would, then saves; what the file holds goes into the page.
DRIVER = """
<script>
window.addEventListener("load", async () => {
  const text = document.getElementById("text");
  const press = (key, more) => text.dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));
  const word = (name) => [...text.querySelectorAll(".token")].find((t) => t.textContent === name);
  const point = (kind, name) => word(name).dispatchEvent(
    new PointerEvent(kind, { bubbles: true }));
  const click = (name) => { point("pointerdown", name); point("pointerup", name); };
  let blob;
  URL.createObjectURL = (made) => { blob = made; return "data:,"; };
  HTMLAnchorElement.prototype.click = () => {};  // no download
  %s
  document.body.dataset.shown = document.getElementById("place").textContent;
  document.body.dataset.saved = blob ? await blob.text() : "";
});
</script>
"""


def drive(
    page: Path, reviews: list[Review], steps: str, scheme: Scheme = SCHEME
) -> tuple[list[Post], str]:
    """The posts that the page saves after some steps, and its state in words."""
    html = format_reviews(reviews, "html", scheme, page.parent)
    # The page's policy would forbid the driver.
    html = re.sub(r"<meta http-equiv[^>]*>", "", html).replace("</body>", DRIVER % steps)
    page.write_text(html, "utf-8")
    done = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000"),
            *("--enable-logging=stderr", "--v=0", "--dump-dom", page.as_uri()),
            f"--user-data-dir={page.parent / 'profile'}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Uncaught" not in done.stderr, done.stderr
    saved = re.search(r'data-saved="([^"]*)"', done.stdout)
    shown = re.search(r'data-shown="([^"]*)"', done.stdout)
    assert saved is not None and shown is not None, done.stdout[-2000:]
    lines = saved[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">")
    path = page.with_suffix(".jsonl")
    path.write_text(lines.replace("&amp;", "&"), "utf-8")
    return (read_posts(path) if lines else []), shown[1]


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")
def test_a_person_corrects_labels_with_mouse_and_keyboard(
    reviews: list[Review], tmp_path: Path
) -> None:
    page = tmp_path / "review.html"
    by_mouse = """
    click("Oslo");                       // chosen, then another label: the relation is impossible
    document.querySelectorAll("#labels button")[1].click();
    press("Escape");
    document.querySelectorAll("#labels button")[0].click();
    click("Bo");                         // a new person
    click("Ada"); press("r"); click("Oslo");
    document.getElementById("accept").click();
    document.getElementById("save").click();
    """
    posts, shown = drive(page, reviews, by_mouse)
    assert shown == "2 of 2: 1 correct, 0 left out"
    (post,) = posts
    assert post.entities == [place("Ada", "PER"), place("Bo", "PER"), place("Oslo", "LOC")]
    assert post.relations == [PostRelation(head=0, tail=2, label="lives_in")]
    assert (post.id, post.text, post.split) == ("a", TEXT, "train")

    by_keys = """
    press("Tab"); press("Delete");       // Ada goes, and her relation with her
    press("Enter");
    press("ArrowRight"); press("ArrowRight", { shiftKey: true }); press("2");
    press("u"); press("1");              // undone, then one word
    press("Enter"); press("s");
    """
    shutil.rmtree(tmp_path / "profile")
    posts, shown = drive(page, reviews, by_keys)
    assert shown == "2 of 2: 2 correct, 0 left out"
    first, second = posts
    assert first.entities == [place("Oslo", "PER")] and first.relations == []
    (entity,) = second.entities or ()
    assert (second.split, second.text[entity.start : entity.end], entity.label) == (
        "dev",
        "here",
        "PER",
    )


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")
def test_relations_stay_where_none_are_asked_for(reviews: list[Review], tmp_path: Path) -> None:
    steps = """
    click("Oslo");
    document.querySelectorAll("#labels button")[1].click();
    press("Escape");
    document.querySelectorAll("#labels button")[0].click();
    click("Bo");
    press("Enter"); press("Enter"); press("s");
    """
    scheme = Scheme(entities=SCHEME.entities)
    (first, second), _ = drive(tmp_path / "review.html", reviews, steps, scheme)
    assert [e.label for e in first.entities or ()] == ["PER", "PER", "LOC"]
    assert first.relations == [PostRelation(head=0, tail=2, label="knows")]
    assert second.relations == []


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")
def test_work_is_still_there_when_the_page_is_opened_again(
    reviews: list[Review], tmp_path: Path
) -> None:
    page = tmp_path / "review.html"
    drive(page, reviews, 'press("Tab"); press("2"); press("x");')
    posts, shown = drive(page, reviews, 'press("PageUp"); press("Enter"); press("s");')
    assert shown == "2 of 2: 1 correct, 0 left out"
    assert [entity.label for entity in posts[0].entities or ()] == ["LOC", "PER"]

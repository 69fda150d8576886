"""The report in a browser, where one is installed: what its script shows and hides."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_docs import ANNA, OSLO, TEXT, doc_of, predicted

from spacy_mmcot.report.build import Item, render_page
from spacy_mmcot.report.tables import Pipeline

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason="no Chromium is installed"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 docs: every tenth lacks Oslo, every fifteenth has Anna as a place."""
    gold = [ANNA, OSLO]
    found = []
    for number in range(60):
        anna = (*ANNA[:2], "LOC") if number % 15 == 7 else ANNA
        entities = [anna] if number % 10 == 3 else [anna, OSLO]
        found.append(predicted(TEXT, gold, entities, "at", f"doc{number}"))
    baseline = [predicted(TEXT, gold, gold, "at", doc.id) for doc in found]
    pipelines = [Pipeline("student", found, {}), Pipeline("baseline", baseline, {})]
    knowledge = {"sentence": "Of sports & </script> alone."}
    items = [
        Item(doc_of(TEXT, knowledge if i == 41 else None), [found[i], baseline[i]])
        for i in range(60)
    ]
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page("Title", "Subtitle", pipelines, items), "utf-8")
    return path


def opened(page: Path, state: str) -> tuple[list[str], str]:
    """The docs shown at an address, and the document as the script left it."""
    done = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000"),
            *("--enable-logging=stderr", "--v=0", "--window-size=1000,800", "--dump-dom"),
            f"{page.as_uri()}#{state}",
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    shown = done.stdout.split('id="list"')[1].split("</main>")[0]
    return re.findall(r'<article[^>]* aria-label="([^"]*)"', shown), done.stdout


def test_errors_first_and_no_more_than_can_be_seen(page: Path) -> None:
    shown, html = opened(page, "")
    wrong = {f"doc{n}" for n in range(60) if n % 10 == 3 or n % 15 == 7}
    assert set(shown[: len(wrong)]) == wrong
    assert len(wrong) == 10 < len(shown) < 60
    assert "60 of 60 docs" in html
    # Its arcs are drawn by the other script.
    assert "mmcot-drawn" in html


@pytest.mark.parametrize(
    ("state", "docs"),
    [
        ("view=1", {3, 13, 23, 33, 43, 53, 7, 22, 37, 52}),
        ("view=1&label=PER", {7, 22, 37, 52}),
        ("view=2&label=PER", {7, 22, 37, 52}),
        ("text=SPORTS", {41}),
        ("view=1&text=doc5", {52, 53}),
        ("view=1&label=no-such-label&text=doc5", {52, 53}),
        ("text=%3Cscript%3E", set()),
    ],
)
def test_docs_are_chosen_by_the_address(page: Path, state: str, docs: set[int]) -> None:
    shown, html = opened(page, state)
    assert set(shown) == {f"doc{number}" for number in docs}
    assert len(shown) == len(docs)
    assert f"{len(docs)} of 60 docs" in html


def test_the_data_s_own_order_and_the_scheme(page: Path) -> None:
    shown, html = opened(page, "order=data&theme=dark")
    assert shown[:5] == [f"doc{number}" for number in range(5)]
    assert '<html lang="en" style="color-scheme: dark;">' in html

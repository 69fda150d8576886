"""The page of the experiments: every run, learning curves and ablations, and no network."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from research.__main__ import app
from research.page import render_page
from research.results import append_result


def make_runs(experiment: str, scores: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        {
            "schema": 1,
            "experiment": experiment,
            "run": run,
            "seed": seed,
            "evaluated_on": "dev",
            "description": {"knowledge": run.startswith("teacher")},
            "metrics": {"ents_f": score, "training": {"seconds": 30.0, "steps": 10}},
            "also_on": {},
            "other_pictures": {},
        }
        for run, values in scores.items()
        for seed, score in enumerate(values, start=1)
    ]


RESULTS = {
    "low_resource": make_runs("low_resource", {"student_5": [0.5, 0.6], "student_25": [0.7, 0.8]}),
    "ablation": make_runs("ablation", {"student": [0.8], "less": [0.7], "teacher": [0.9]}),
}


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.shown = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.shown += data


def test_runs_curves_and_ablations() -> None:
    page = Page(render_page(RESULTS))
    assert "Learning curve: low_resource" in page.shown and "Ablation: ablation" in page.shown
    words = " ".join(page.shown.split())
    assert "student_550.0060.0055.0010.0030" in words  # two seeds, mean, spread, seconds
    assert "5%55.00 25%75.00" in words
    assert "less-10.00-10.00-10.001" in words  # against the student; teachers are no variants
    assert "svg" in page.tags


def test_it_asks_no_server_and_ids_are_unique() -> None:
    html = render_page(RESULTS)
    page = Page(html)
    assert "script" not in page.tags and "link" not in page.tags
    assert re.findall(r"https?://", html) == []
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for name, value in page.attributes:
        if name in ("src", "href"):
            assert value.startswith("#")


@pytest.mark.parametrize("hostile", ['<script>alert("1")</script>', "{{ 7*7 }}$x^2$--><!--"])
def test_hostile_names_stay_text(hostile: str) -> None:
    results = {hostile: make_runs(hostile, {hostile: [0.5]})}
    page = Page(render_page(results))
    assert "script" not in page.tags
    assert page.shown.count(hostile) == 2


def test_the_command(tmp_path: Path) -> None:
    for line in RESULTS["ablation"]:
        append_result(tmp_path / "results.jsonl", line)
    output = tmp_path / "new" / "page.html"
    options = ["page", str(output), "--results", str(tmp_path / "results.jsonl")]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    assert "Ablation: ablation" in output.read_text("utf-8")

"""scripts/draw.py, as the process that it is, with pipelines that see pictures and one that
does not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span

from spacy_mmcot.corpus.extensions import register

REPOSITORY = Path(__file__).parents[2]
PICTURE = REPOSITORY / "assets" / "demo" / "images" / "sports-001.png"
NAMES = {"Anna": "PER", "Oslo": "LOC"}


def save_docs(path: Path, images: list[str | bytes | None]) -> None:
    register()
    vocab = spacy.blank("en").vocab
    docs = []
    for image in images:
        doc = Doc(vocab, words=["Anna", "sings", "in", "Oslo", "tonight"])
        doc.set_ents([Span(doc, 0, 1, "PER"), Span(doc, 3, 4, "LOC")], default="outside")
        doc._.mmcot_image = image
        docs.append(doc)
    DocBin(docs=docs, store_user_data=True).to_disk(path)


def with_ruler(nlp: Language, folder: Path) -> Path:
    ruler: Any = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": label, "pattern": name} for name, label in NAMES.items()])
    nlp.to_disk(folder)
    return folder


def draw(pipeline: Path, data: Path, page: Path, *options: str) -> str:
    script = REPOSITORY / "scripts" / "draw.py"
    done = subprocess.run(
        [sys.executable, script, pipeline, data, page, *options],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return page.read_text("utf-8")


@pytest.mark.slow
def test_a_pipeline_that_sees_shows_where(
    tiny_source: Callable[[str], str], tmp_path: Path
) -> None:
    nlp = spacy.blank("en")
    vision = {"@architectures": "spacy_mmcot.ConvVision.v1", "size": 32, "width": 16}
    model = {
        "@architectures": "spacy_mmcot.PromptedTransformer.v1",
        "source": tiny_source("bert"),
        "vision": vision,
    }
    setter = {"@annotation_setters": "spacy_mmcot.alignment_setter.v1"}
    nlp.add_pipe("transformer", config={"model": model, "set_extra_annotations": setter})
    nlp.initialize()
    pipeline = with_ruler(nlp, tmp_path / "seeing")
    data = tmp_path / "data.spacy"
    save_docs(data, [str(PICTURE), None, PICTURE.read_bytes(), str(tmp_path / "missing.png")])
    articles = draw(pipeline, data, tmp_path / "page.html").split("<article>")[1:]
    assert [article.count("<form") for article in articles] == [1, 0, 1, 0]
    for article in (articles[0], articles[2]):
        assert article.count('type="radio"') == 3
        assert "(2&nbsp;×&nbsp;2 patches)" in article
        assert "The model " in article
    assert "<form" not in draw(pipeline, data, tmp_path / "none.html", "--pictures", "none")


@pytest.mark.slow
def test_a_pipeline_that_sees_nothing_shows_none(tmp_path: Path) -> None:
    pipeline = with_ruler(spacy.blank("en"), tmp_path / "blind")
    data = tmp_path / "data.spacy"
    save_docs(data, [str(PICTURE), None])
    html = draw(pipeline, data, tmp_path / "page.html")
    assert html.count("<article>") == 2
    assert html.count("Anna<span>PER</span>") == 4
    assert "<form" not in html

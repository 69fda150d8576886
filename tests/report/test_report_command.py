"""`report`, with pipelines that see pictures, one that does not, and files of predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
from click.testing import Result
from report_docs import KNOWLEDGE, Page
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from typer.testing import CliRunner

from spacy_mmcot.cli.main import app
from spacy_mmcot.corpus.extensions import register_extensions
from spacy_mmcot.types import ID_KEY, KNOWLEDGE_KEY

PICTURE = Path(__file__).parents[2] / "assets" / "demo" / "images" / "sports-001.png"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def save_docs(path: Path, images: list[str | bytes | None]) -> Path:
    """Docs named d0, d1, ... with Anna and Oslo labelled, the last with an LLM's knowledge."""
    register_extensions()
    vocab = spacy.blank("en").vocab
    docs = []
    for number, image in enumerate(images):
        doc = Doc(vocab, words=["Anna", "sings", "in", "Oslo", "tonight"])
        doc.set_ents([Span(doc, 0, 1, "PER"), Span(doc, 3, 4, "LOC")], default="outside")
        doc._.mmcot_image = image
        doc.user_data[ID_KEY] = f"d{number}"
        docs.append(doc)
    doc.user_data[KNOWLEDGE_KEY] = KNOWLEDGE
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


def with_ruler(nlp: Language, folder: Path, names: dict[str, str]) -> Path:
    ruler: Any = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": label, "pattern": name} for name, label in names.items()])
    nlp.to_disk(folder)
    return folder


@pytest.fixture
def pipelines(tmp_path: Path) -> tuple[Path, Path]:
    """One that finds Anna alone, and one that finds both."""
    return (
        with_ruler(spacy.blank("en"), tmp_path / "half", {"Anna": "PER"}),
        with_ruler(spacy.blank("en"), tmp_path / "both", {"Anna": "PER", "Oslo": "LOC"}),
    )


def test_the_page_shows_what_evaluate_measures(
    pipelines: tuple[Path, Path], tmp_path: Path
) -> None:
    half, both = pipelines
    data = save_docs(tmp_path / "data.spacy", [None, None])
    page = tmp_path / "new" / "page.html"
    done = run(
        *("report", page, "--data", data, "--pipeline", f"half={half}", "--pipeline"),
        *(f"both={both}", "--with-knowledge", "both", "--metrics", tmp_path / "metrics"),
    )
    assert done.exit_code == 0, done.output
    assert "half, both" in done.output
    shown = Page(page.read_text("utf-8")).shown
    for name, folder in (("half", half), ("both", both)):
        assert run("evaluate", folder, data, "-o", tmp_path / "m.json").exit_code == 0
        measured, kept = (
            json.loads(file.read_text("utf-8"))
            for file in (tmp_path / "m.json", tmp_path / "metrics" / f"{name}.json")
        )
        other = {"pictures": "real", "words_per_second": kept["words_per_second"]}
        assert kept == measured | other
        row = "".join(f"{100 * measured[f'ents_{key}']:.2f}" for key in "fpr")
        assert f"{name}{row}" in shown
    assert "the LLM's knowledge read by both" in shown
    assert not (tmp_path / "metrics" / "llm.json").exists()


def test_the_llm_stands_beside_the_pipelines(pipelines: tuple[Path, Path], tmp_path: Path) -> None:
    """Its conclusion on the last of two docs: Anna right, Oslo wrong and not sure of."""
    data = save_docs(tmp_path / "data.spacy", [None, None])
    docs = list(DocBin().from_disk(data).get_docs(spacy.blank("en").vocab))
    anna = {"mention": "Anna", "start": 0, "label": "PER", "sure": "high"}
    oslo = {"mention": "Oslo", "start": 14, "label": "PER", "sure": "low"}
    conclusion = {"reasoning": "Singers are persons.", "entities": [anna, oslo]}
    docs[1]._.mmcot_knowledge = {**KNOWLEDGE, "conclusion": conclusion}
    DocBin(docs=docs, store_user_data=True).to_disk(data)
    page, folder = tmp_path / "page.html", tmp_path / "metrics"
    given = ("--data", data, "--pipeline", f"both={pipelines[1]}", "--metrics", folder)
    done = run("report", page, *given)
    assert done.exit_code == 0, done.output
    scores = json.loads((folder / "llm.json").read_text("utf-8"))
    assert (scores["ents_f"], scores["docs"], scores["docs_with_conclusion"]) == (0.5, 2, 1)
    lines = (folder / "disagreements.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["conclusion"]["mention"] for line in lines] == ["Oslo"]
    read = Page(page.read_text("utf-8"))
    assert "LLM50.0050.0050.00" in read.shown
    asked, other = read.articles
    if "Singers are persons." not in asked:
        asked, other = other, asked
    assert "LLM" not in other
    assert "1 wrong, 1 missed" in asked
    assert "Oslo: PER (low)" in asked


def test_predictions_stand_for_the_run_that_wrote_them(
    pipelines: tuple[Path, Path], tmp_path: Path
) -> None:
    half, _ = pipelines
    data = save_docs(tmp_path / "data.spacy", [None, None, None])
    file = tmp_path / "half.jsonl"
    assert run("evaluate", half, data, "--predictions", file).exit_code == 0
    pages = [tmp_path / "read.html", tmp_path / "run.html"]
    options = [f"--predictions=half={file}", f"--pipeline=half={half}"]
    for page, option in zip(pages, options, strict=True):
        done = run("report", page, "--data", data, option, "--limit", 2)
        assert done.exit_code == 0, done.output
    read, ran = (Page(page.read_text("utf-8")) for page in pages)
    assert [t["data-views"] for t in read.templates] == [t["data-views"] for t in ran.templates]
    assert len(read.templates) == 2
    assert "Words/s" in ran.shown and "Words/s" not in read.shown
    # Docs that the file knows nothing of are another matter.
    (tmp_path / "more").mkdir()
    other = save_docs(tmp_path / "more" / "data.spacy", [None] * 4)
    done = run("report", pages[0], "--data", other, "--predictions", f"half={file}")
    assert done.exit_code == 1
    assert "[E800]" in done.stderr
    assert "'d3'" in done.stderr


def test_a_pipeline_that_sees_shows_where(
    tiny_source: Callable[[str], str], tmp_path: Path
) -> None:
    from tiny import VISION

    nlp = spacy.blank("en")
    model = {
        "@architectures": "spacy_mmcot.PromptedTransformer.v1",
        "source": tiny_source("bert"),
        "vision": VISION,
    }
    nlp.add_pipe("transformer", config={"model": model})
    nlp.initialize()
    seeing = with_ruler(nlp, tmp_path / "seeing", {"Anna": "PER", "Oslo": "LOC"})
    images = [str(PICTURE), None, PICTURE.read_bytes(), str(tmp_path / "missing.png")]
    data = save_docs(tmp_path / "data.spacy", images)
    page = tmp_path / "page.html"
    for pictures, forms in (("real", [1, 0, 1, 0]), ("none", [0, 0, 0, 0])):
        done = run(
            *("report", page, "--data", data, "--pipeline", f"seeing={seeing}"),
            *("--pictures", pictures),
        )
        assert done.exit_code == 0, done.output
        articles = page.read_text("utf-8").split("<article")[1:]
        assert [article.count("<form") for article in articles] == forms
        assert [article.count("data:image/jpeg") for article in articles] == [1, 0, 1, 0]
        assert ["Picture not shown" in article for article in articles] == [False] * 3 + [True]
        assert ("Picture · seeing" in articles[0]) == bool(forms[0])


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], "E727", "--pipeline"),
        (["--pipeline", "model"], "E726", "'model'"),
        (["--pipeline", "=model"], "E726", "'=model'"),
        (["--pipeline", "llm=model"], "E726", "'llm=model'"),
        (["--pipeline", "../a=model"], "E726", "'../a=model'"),
        (["--predictions", "a="], "E726", "'a='"),
        (["--pipeline", "a=x", "--pipeline", "a=y"], "E726", "'a=y'"),
        (["--pipeline", "a=x", "--predictions", "a=y"], "E726", "'a=y'"),
        (["--pipeline", "LLM=x"], "E726", "'LLM=x'"),
        (["--pipeline", "a=x", "--with-knowledge", "b"], "E728", "Allowed: a."),
    ],
)
def test_options_that_cannot_be_used(
    options: list[str], code: str, words: str, tmp_path: Path
) -> None:
    data = save_docs(tmp_path / "data.spacy", [None])
    done = run("report", tmp_path / "page.html", "--data", data, *options)
    assert done.exit_code == 2
    assert f"[{code}]" in done.stderr
    assert words in done.stderr
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--pipeline", "a=absent"], "E700"),
        (["--predictions", "a=absent.jsonl"], "E100"),
        (["--data", "absent.spacy"], "E100"),
    ],
)
def test_files_that_are_not_there(
    options: list[str], code: str, pipelines: tuple[Path, Path], tmp_path: Path
) -> None:
    data = save_docs(tmp_path / "data.spacy", [None])
    given = ["--data", str(data), "--pipeline", f"both={pipelines[1]}", *options]
    done = run("report", tmp_path / "page.html", *given)
    assert done.exit_code == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("✘")]
    assert f"[{code}]" in line

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from spacy_mmcot.elicitation.client import OpenAISettings, OpenAISource
from spacy_mmcot.elicitation.elicit import elicit
from spacy_mmcot.elicitation.prompts import QuestionSettings
from spacy_mmcot.elicitation.store import AnswerStore
from spacy_mmcot.pictures.read import LONGEST_SIDE, find_picture
from spacy_mmcot.scheme import Scheme
from spacy_mmcot.types import DIMENSIONS, Dimension, Post
from tests.llm_server import LLMServer, user_text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    PIL.Image.new("RGB", (1600, 800), (200, 30, 30)).save(tmp_path / "wide.png")
    PIL.Image.new("RGBA", (40, 60)).save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"no picture")
    whole = io.BytesIO()
    PIL.Image.effect_noise((400, 400), 60).save(whole, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[:2000])
    return tmp_path


def decoded(url: str) -> PIL.Image.Image:
    head, _, data = url.partition(",")
    assert head == "data:image/jpeg;base64"
    return PIL.Image.open(io.BytesIO(base64.b64decode(data)))


def test_large_pictures_are_scaled_down_and_small_ones_left(folder: Path) -> None:
    wide, small = find_picture("wide.png", folder), find_picture("small.png", folder)
    assert wide and small
    assert decoded(wide.url).size == (LONGEST_SIDE, LONGEST_SIDE // 2)
    assert decoded(small.url).size == (40, 60)


def test_only_readable_files_are_pictures(folder: Path) -> None:
    for image in (None, "", "none.png", "broken.png", "cut.jpg", "https://example.org/a.png", "\0"):
        assert find_picture(image, folder) is None


def test_a_model_that_sees_gets_the_picture_and_others_the_caption(
    folder: Path, llm_server: LLMServer
) -> None:
    posts = [
        Post(id="a", text="Oslo calls", image="wide.png", caption="a red field"),
        Post(id="b", text="Bern calls", image="broken.png", caption="a bear"),
        Post(id="c", text="Rome calls", image="broken.png"),
    ]
    source = OpenAISource(OpenAISettings("m", base_url=llm_server.url, api_key="sk-test-0815"))
    knowledge: list[Dimension] = ["noun", "sentence", "multimodality", "conclusion"]
    settings = QuestionSettings(
        variants=dict.fromkeys(knowledge, 1),
        pictures=folder,
        scheme=Scheme(entities={"LOC": "places"}),
    )
    with AnswerStore(folder / "a.sqlite") as store:
        report = elicit(posts, store, source, settings).report
        assert report.total().stored == 11
        assert report.counts["multimodality"].not_applicable == 1
        assert report.captions_only == {"b", "c"}
        again = elicit(posts, store, source, settings).report
        assert again.total().asked == 0
        # Another picture under the old name is another question; the caption path is its own too.
        PIL.Image.new("RGB", (50, 50), (0, 0, 90)).save(folder / "wide.png")
        changed = elicit(posts, store, source, settings).report
        assert changed.total().asked == 4
    seen: list[dict[str, Any]] = [
        body for body in llm_server.requests if "Oslo calls" in user_text(body)
    ]
    assert len(seen) == 8
    assert sum("LOC: places" in body["messages"][0]["content"] for body in seen) == 2
    for body in seen:
        text, picture = body["messages"][1]["content"]
        assert "a red field" not in text["text"] and "attached picture" in text["text"]
        assert max(decoded(picture["image_url"]["url"]).size) <= LONGEST_SIDE
    for body in llm_server.requests:
        if "Bern calls" in user_text(body):
            assert isinstance(body["messages"][1]["content"], str) and "a bear" in user_text(body)


def test_without_a_picture_and_a_caption_a_dimension_does_not_apply(folder: Path) -> None:
    seen = Post(id="a", text="Oslo calls", image="small.png")
    applies = {d for d in DIMENSIONS if QuestionSettings(pictures=folder).render(seen, d)}
    assert applies == {"noun", "sentence", "multimodality", "style", "image"}
    blind = {d for d in DIMENSIONS if QuestionSettings().render(seen, d)}
    assert blind == {"noun", "sentence", "style"}


def test_the_demo_pictures_can_all_be_sent(demo: Path) -> None:
    paths = sorted((demo / "images").iterdir())[:40]
    assert paths
    for path in paths:
        picture = find_picture(path.name, path.parent)
        assert picture and len(picture.url) < 200_000

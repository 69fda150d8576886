from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from spacy_mmcot.elicitation.elicit import elicit
from spacy_mmcot.elicitation.prompts import QuestionSettings
from spacy_mmcot.elicitation.store import AnswerStore, RecordedSource, read_answers
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import Post


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "b", "noun": [{"mention": "x"}]}', r"line 3: field noun\[0\]\.kind is missing"),
        (b'{"id": "b", "nuon": []}', "line 3: field nuon is unknown"),
        (b'{"id": "b", "style": ""}', "line 3: field style is ''"),
        (b'{"id": "a"}', "line 3: id 'a' occurs in line 1 too"),
        (b'{"id": "b"', "line 3: not JSON"),
        (b"[]", "line 3"),
        (b'{"id": "\xff"}', "line 3: byte 9 of the line, 0xff, is not UTF-8"),
        (b"[" * 100_000, "line 3: the JSON is nested too deeply"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = write(tmp_path / "answers.jsonl", b'{"id": "a"}', b"", line)
    with pytest.raises(MMCoTError, match=message) as caught:
        read_answers(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(MMCoTError, match="E100"):
        RecordedSource(tmp_path / "none.jsonl")
    with pytest.raises(MMCoTError, match="E102"):
        RecordedSource(tmp_path)


def test_unusual_but_right_files(tmp_path: Path) -> None:
    row = json.dumps({"id": "a", "style": "one\u2028two\u0085three"}, ensure_ascii=False)
    path = write(tmp_path / "answers.jsonl", b"\xef\xbb\xbf" + row.encode() + b"\r", b"  ")
    assert read_answers(path)["a"].style == "one\u2028two\u0085three"


def demo_posts(demo: Path) -> list[Post]:
    lines = (demo / "posts.jsonl").open(encoding="utf-8")
    return [Post.model_validate(json.loads(line)) for line in lines]


def test_the_demo_corpus_comes_through_whole(demo: Path, tmp_path: Path) -> None:
    posts = demo_posts(demo)
    recorded = read_answers(demo / "answers.jsonl")
    path = tmp_path / "answers.sqlite"
    with AnswerStore(path) as store:
        report = elicit(posts, store, RecordedSource(demo / "answers.jsonl")).report
        answers = store.answers()
    total = report.total()
    assert total.rejected == total.missing == total.dropped == 0
    assert total.stored + total.not_applicable == 6 * 360
    for dimension in ("noun", "sentence", "multimodality"):
        assert report.counts[dimension].stored == 360  # type: ignore[index]
    for post in posts:
        for dimension in QuestionSettings().variants:
            value = getattr(answers[post.id], dimension)
            assert value in (None, getattr(recorded[post.id], dimension))
            assert (
                value is not None
                or post.split in ("unlabelled", "dev", "test")
                or (dimension == "entity" and not post.entities)
            )

    before = path.read_bytes()
    with AnswerStore(path) as store:
        again = elicit(posts, store, RecordedSource(demo / "answers.jsonl")).report.total()
    assert (again.asked, again.stored, again.already_there) == (0, 0, total.stored)
    assert path.read_bytes() == before


def test_missing_answers_are_counted_and_asked_for_again(posts: list[Post], tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"id": "p1", "sentence": "One."}')
    with AnswerStore(tmp_path / "a.sqlite") as store:
        counts = elicit(
            posts[:3], store, RecordedSource(path), settings=QuestionSettings.of("sentence")
        ).report.total()
        assert (counts.asked, counts.stored, counts.missing) == (3, 1, 2)
        write(path, b'{"id": "p1", "sentence": "One."}', b'{"id": "p0", "sentence": "Zero."}')
        counts = elicit(
            posts[:3], store, RecordedSource(path), settings=QuestionSettings.of("sentence")
        ).report.total()
        assert (counts.stored, counts.already_there, counts.missing) == (1, 1, 1)
        assert set(store.answers()) == {"p0", "p1"}


def test_posts_with_equal_text_keep_their_own_recorded_answers(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", b'{"id": "x", "sentence": "X."}', b'{"id": "y", "sentence": "Y."}'
    )
    twins = [Post(id=i, text="the same words") for i in ("x", "y", "z")]
    with AnswerStore(tmp_path / "a.sqlite") as store:
        counts = elicit(
            twins, store, RecordedSource(path), settings=QuestionSettings.of("sentence")
        ).report.total()
        assert (counts.stored, counts.missing) == (2, 1)
        assert {i: a.sentence for i, a in store.answers().items()} == {"x": "X.", "y": "Y."}


def test_a_corrected_file_replaces_the_answer_and_so_does_going_back(tmp_path: Path) -> None:
    post = Post(id="x", text="some words")
    path = tmp_path / "a.jsonl"
    with AnswerStore(tmp_path / "a.sqlite") as store:
        for text in ("First.", "Second.", "First."):
            write(path, json.dumps({"id": "x", "sentence": text}).encode())
            elicit([post], store, RecordedSource(path), settings=QuestionSettings.of("sentence"))
            assert store.answers()["x"].sentence == text


def test_a_recorded_answer_that_breaks_its_promise_is_rejected(
    posts: list[Post], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", b'{"id": "p0", "style": "somebody sings"}')
    with AnswerStore(tmp_path / "a.sqlite") as store:
        counts = elicit(
            posts[:1], store, RecordedSource(path), settings=QuestionSettings.of("style")
        ).report.total()
        assert counts.rejected == 1
        assert "'Anna0'" in (store.rejected()[0].reason or "")
        assert store.answers() == {}


def test_recorded_source_can_be_asked_directly(demo: Path) -> None:
    source = RecordedSource(demo / "answers.jsonl")

    prompt = QuestionSettings().render(demo_posts(demo)[0], "noun")
    assert prompt is not None
    raw = asyncio.run(source.ask(prompt))
    assert raw is not None and json.loads(raw.text)[0]["mention"] == "Anfield"

"""Posts files: what comes back, and what is said about a broken row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spacy_mmcot.corpus.posts import Findings, iter_posts, read_posts, write_posts
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import Entity, Post, PostRelation

GOOD = {"id": "a", "text": "Anna sings in Oslo"}


def entity(start: object, end: object, label: object = "PER") -> dict:
    return {"start": start, "end": end, "label": label}


BROKEN = {
    "invalid JSON": (b'{"id": "b", "text"', "not JSON", "one JSON object"),
    "bad UTF-8": (b'{"id": "b", "text": "caf\xe9"}', "byte 25 of the line, 0xe9", "UTF-8"),
    "half a surrogate pair": (b'{"id": "b", "text": "\\ud83d"}', "surrogate", "one JSON object"),
    "a list": (["b"], "the row is ['b']", "an object"),
    "a number": (3, "the row is 3", "an object"),
    "missing field": ({"text": "Oslo"}, "field id is missing", "that field"),
    "unknown field": (
        {**GOOD, "id": "b", "txt": 1},
        "field txt is unknown",
        "fields of the format",
    ),
    "wrong type of id": ({**GOOD, "id": 7}, "field id is 7", "a text"),
    "empty id": ({**GOOD, "id": ""}, "field id is ''", "not empty"),
    "wrong type of entities": ({**GOOD, "id": "b", "entities": {}}, "field entities is", "a list"),
    "wrong type of start": (
        {**GOOD, "id": "b", "entities": [entity("0", 4)]},
        "field entities[0].start is '0'",
        "a whole number",
    ),
    "fraction as end": (
        {**GOOD, "id": "b", "entities": [entity(0, 4.0)]},
        "field entities[0].end is 4.0",
        "a whole number",
    ),
    "negative start": (
        {**GOOD, "id": "b", "entities": [entity(-1, 4)]},
        "field entities[0].start is -1",
        "at least 0",
    ),
    "entity past the end": (
        {**GOOD, "id": "b", "entities": [entity(14, 99)]},
        "ends past the text's 18 characters",
        "agree",
    ),
    "reversed entity": ({**GOOD, "id": "b", "entities": [entity(4, 2)]}, "reversed", "agree"),
    "overlap": ({**GOOD, "id": "b", "entities": [entity(0, 4), entity(2, 6)]}, "overlap", "agree"),
    "white space entity": ({**GOOD, "id": "b", "entities": [entity(4, 5)]}, "white space", "agree"),
    "relation to no entity": (
        {**GOOD, "id": "b", "relations": [{"head": 0, "tail": 1, "label": "x"}]},
        "relations[0].head is 0",
        "agree",
    ),
    "empty text": ({"id": "b", "text": " \n"}, "text is empty", "agree"),
    "unknown split": ({**GOOD, "id": "b", "split": "eval"}, "field split is 'eval'", "'train'"),
    "repeated id": (GOOD, "field id is 'a'", "a unique id"),
    "deep nesting": (b"[" * 100_000, "nested too deeply", "one JSON object"),
}


@pytest.fixture(params=BROKEN.values(), ids=BROKEN.keys())
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str, str]:
    """A file with a broken row in line 3, between good ones."""
    row, problem, expected = request.param
    raw = row if isinstance(row, bytes) else json.dumps(row).encode()
    last = json.dumps({**GOOD, "id": "z"}).encode()
    path = tmp_path / "posts.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\n" + raw + b"\n" + last + b"\n")
    return path, problem, expected


def test_a_broken_row_ends_in_one_clear_error(broken: tuple[Path, str, str]) -> None:
    path, problem, expected = broken
    with pytest.raises(MMCoTError) as caught:
        read_posts(path)
    message = str(caught.value)
    assert message.startswith(f"[E101] {path}, line 3: ")
    assert problem in message
    assert expected in message.split("Expected: ")[1]
    assert "\n" not in message


def test_a_broken_row_can_be_skipped_and_is_listed(broken: tuple[Path, str, str]) -> None:
    path, problem, _ = broken
    findings = Findings(skip_invalid=True)
    assert [post.id for post in iter_posts(path, findings)] == ["a", "z"]
    assert len(findings.skipped) == 1
    assert "line 3" in findings.skipped[0]
    assert problem in findings.skipped[0]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MMCoTError, match="no such file"):
        read_posts(tmp_path / "none.jsonl")
    with pytest.raises(MMCoTError, match="cannot be read"):
        read_posts(tmp_path)


def test_posts_come_back_as_they_were_written(tmp_path: Path) -> None:
    posts = [
        Post(id="1", text="line\u2028separator \x85 and \U0001f600\u200d", entities=[]),
        Post(id="2", text="not labelled", split="unlabelled"),
        Post(
            id="é/3",
            text="Anna in Oslo",
            entities=[Entity(start=0, end=4, label="PER"), Entity(start=8, end=12, label="LOC")],
            relations=[PostRelation(head=0, tail=1, label="/per/loc/in")],
            image="images/3.png",
            caption="a fjord",
            split="dev",
            domain="music",
        ),
    ]
    path = tmp_path / "deep" / "posts.jsonl"
    assert write_posts(path, posts) == 3
    assert read_posts(path) == posts
    first = path.read_bytes()
    write_posts(path, read_posts(path))
    assert path.read_bytes() == first


def test_line_ends_and_byte_order_mark_of_other_systems(tmp_path: Path) -> None:
    path = tmp_path / "posts.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n")
    assert [post.id for post in read_posts(path)] == ["a"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "posts.jsonl"
    write_posts(path, [Post(id="1", text="old")])

    def failing():  # type: ignore[no-untyped-def]
        yield Post(id="2", text="new")
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        write_posts(path, failing())
    assert [post.text for post in read_posts(path)] == ["old"]
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(MMCoTError, match="cannot be written"):
        write_posts(path / "below_a_file.jsonl", [])

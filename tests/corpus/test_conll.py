from __future__ import annotations

from pathlib import Path

import pytest

from spacy_mmcot.corpus.conll import read_rows
from spacy_mmcot.corpus.formats import read_corpus
from spacy_mmcot.corpus.posts import Findings, ReadSettings
from spacy_mmcot.errors import MMCoTError

GOOD = b"IMGID:1\nAnna\tB-PER\nBerg\tI-PER\nin\tO\nOslo\tB-LOC\n"

NAMED = "posts whose picture the file names; give its folder with --pictures"

BROKEN = {
    "I- after O": (b"IMGID:2\nin\tO\nOslo\tI-LOC\n", 8, "the tag I-LOC follows the tag O"),
    "I- first": (b"IMGID:2\nOslo\tI-LOC\n", 7, "the tag I-LOC follows the tag O"),
    "I- after another label": (
        b"IMGID:2\nAnna\tB-PER\nOslo\tI-LOC\n",
        8,
        "the tag I-LOC follows the tag B-PER",
    ),
    "no IMGID": (b"Oslo\tB-LOC\n", 6, "the post begins with 'Oslo\\tB-LOC'"),
    "empty IMGID": (b"IMGID:\nOslo\tB-LOC\n", 6, "the post begins with 'IMGID:'"),
    "no tokens": (b"IMGID:2\n", 6, "text is empty"),
    "white space tokens only": ("IMGID:2\n\xa0\tO\n".encode(), 6, "text is empty"),
    "no tag": (b"IMGID:2\nOslo\n", 7, "the line is 'Oslo'"),
    "no token": (b"IMGID:2\nin\tO\n\tO\n", 8, "the line is '\\tO'"),
    "five columns": (b"IMGID:2\na\tb\tc\td\tB-LOC\n", 7, "the line is 'a\\tb\\tc\\td\\tB-LOC'"),
    "unknown tag": (b"IMGID:2\nOslo\tX-LOC\n", 7, "the tag is 'X-LOC'"),
    "I- after S-": (b"IMGID:2\nOslo\tS-LOC\nFjord\tI-LOC\n", 8, "the tag I-LOC follows the tag O"),
    "I- after E-": (b"IMGID:2\na\tB-L\nb\tE-L\nc\tI-L\n", 9, "the tag I-L follows the tag O"),
    "tag without label": (b"IMGID:2\nOslo\tB-\n", 7, "the tag is 'B-'"),
    "bad UTF-8": (b"IMGID:2\nin\tO\nOsl\xf8\tB-LOC\n", 8, "byte 4 of the line, 0xf8, is not UTF-8"),
    "white space entity": (
        "IMGID:2\n\xa0\tB-LOC\nx\tO\n".encode(),
        6,
        "entities[0] (0, 1, LOC)",
    ),
}


@pytest.mark.parametrize(("block", "line", "problem"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_posts(tmp_path: Path, block: bytes, line: int, problem: str) -> None:
    # Line 5 is blank: the broken post begins in line 6.
    path = tmp_path / "train.txt"
    path.write_bytes(GOOD.replace(b"in\tO\n", b"") + b"\n" + block + b"\n" + b"IMGID:3\nBye\tO")
    with pytest.raises(MMCoTError) as caught:
        list(read_rows(path, Findings(), ReadSettings()))
    assert str(caught.value).startswith(f"[E101] {path}, line {line}: {problem}")

    findings = Findings(skip_invalid=True)
    rows = list(read_rows(path, findings, ReadSettings()))
    assert [(row.number, row.post.id) for row in rows] == [(0, "1"), (2, "3")]
    assert len(findings.skipped) == 1


def read(path: Path, raw: bytes, **options: bool):  # type: ignore[no-untyped-def]
    path.write_bytes(raw)
    findings = Findings()
    settings = ReadSettings("conll", **options)
    return [row.post for row in read_corpus([path], findings, settings)], findings


def test_text_and_entities(tmp_path: Path) -> None:
    (post,), findings = read(tmp_path / "valid.txt", GOOD)
    assert post.text == "Anna Berg in Oslo"
    assert [(post.text[e.start : e.end], e.label) for e in post.entities] == [
        ("Anna Berg", "PER"),
        ("Oslo", "LOC"),
    ]
    assert (post.id, post.split) == ("1", "dev")
    assert list(findings.changed) == [NAMED]


def test_neighbours_of_one_label_stay_two(tmp_path: Path) -> None:
    (post,), _ = read(tmp_path / "train.txt", b"IMGID:1\nOslo\tB-LOC\nBergen\tB-LOC\n")
    assert [(e.start, e.end) for e in post.entities] == [(0, 4), (5, 11)]


def test_tokens_without_a_visible_character_survive(tmp_path: Path) -> None:
    tokens = ["\u200b", "\u200d", "\x92", "\xa0", "\x85", "\u2028", "\ufeff", "\U0001f3f4", "x"]
    lines = "".join(f"{token}\tO\n" for token in tokens)
    (post,), _ = read(tmp_path / "train.txt", f"IMGID:1\n{lines}".encode())
    assert post.text.split(" ") == tokens


def test_a_space_inside_a_token_does_not_break_it(tmp_path: Path) -> None:
    (post,), findings = read(tmp_path / "train.txt", b"IMGID:1\nNew York\tB-LOC\nrocks\tO\n")
    assert post.text.split(" ") == ["New\xa0York", "rocks"]
    assert (post.entities[0].start, post.entities[0].end) == (0, 8)
    assert any("no-break space" in line for line in findings.describe())


def test_repair_bio_reads_an_orphan_as_a_beginning(tmp_path: Path) -> None:
    raw = b"IMGID:1\nSt\tO\nLouis\tI-LOC\nMo\tI-LOC\nCards\tI-ORG\n\nIMGID:2\nA\tB-X\n"
    (post, _), findings = read(tmp_path / "train.txt", raw, repair_bio=True)
    assert [(post.text[e.start : e.end], e.label) for e in post.entities] == [
        ("Louis Mo", "LOC"),
        ("Cards", "ORG"),
    ]
    assert len(findings.changed["I- tags that continued no entity, read as B-"]) == 2


def test_repeated_ids_are_numbered(tmp_path: Path) -> None:
    raw = b"IMGID:1\na\tO\n\nIMGID:1-2\nb\tO\n\nIMGID:1\nc\tO\nIMGID:1\nd\tO\n"
    posts, findings = read(tmp_path / "train.txt", raw)
    assert [post.id for post in posts] == ["1", "1-2", "1-3", "1-4"]
    assert len(findings.changed["repeated ids, numbered"]) == 2


def test_windows_line_ends_and_many_blank_lines(tmp_path: Path) -> None:
    raw = b"\r\n\r\n" + GOOD.replace(b"\n", b"\r\n") + b"\r\n \r\n\r\nIMGID:2\r\nBye\tO\r\n"
    posts, _ = read(tmp_path / "train.txt", raw)
    assert [post.text for post in posts] == ["Anna Berg in Oslo", "Bye"]

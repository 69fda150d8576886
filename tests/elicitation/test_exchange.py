from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spacy_mmcot.elicitation.store import AnswerStore, StoredAnswer, export_answers, import_answers
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import EntityVariant, NounItem, Post

NOUN = StoredAnswer(
    key="k1",
    post_id="p1",
    task="ner",
    dimension="noun",
    template="ner/noun.v1",
    source="openai",
    model="m",
    raw="[...]",
    value=[NounItem(mention="Oslo", kind="city", explanation="höyt ☃ \u2028")],
)
VARIANT = EntityVariant(text="Bergen calls", swaps=[("Oslo", "Bergen")], possible=False)
ANSWERS = [
    NOUN,
    replace(NOUN, key="k2", dimension="entity", value=VARIANT),
    replace(NOUN, key="k3", dimension="style", value="Oslo!", variant=1),
    replace(NOUN, key="k4", post_id="p0", value=None, reason="no JSON", raw="half of it\n"),
    replace(NOUN, key="k5", task="rel", post_id="p0", value=[]),
]


def fill(path: Path, answers: list[StoredAnswer]) -> Path:
    with AnswerStore(path) as store:
        for answer in answers:
            store.put(answer)
    return path


def test_an_export_comes_back_whole(tmp_path: Path) -> None:
    file = tmp_path / "sub" / "export.jsonl"
    with AnswerStore(fill(tmp_path / "a.sqlite", ANSWERS), read_only=True) as store:
        assert export_answers(store, file) == 5
        expected = list(store.iter_all())
    assert sorted(map(repr, expected)) == sorted(map(repr, ANSWERS))
    with AnswerStore(tmp_path / "b.sqlite") as other:
        assert import_answers(other, file) == 5
        assert list(other.iter_all()) == expected
        assert import_answers(other, file) == 0


def test_the_examples_of_conclusions_come_along_where_there_are_none(tmp_path: Path) -> None:
    first, second = ({name: Post(id=name, text="Hi Bo", entities=[])} for name in "ab")
    file = tmp_path / "export.jsonl"
    with AnswerStore(fill(tmp_path / "a.sqlite", ANSWERS)) as store:
        store.keep_examples(first)
        assert export_answers(store, file) == 5
    for kept, expected in ((None, first), (second, second)):
        with AnswerStore(tmp_path / f"{kept is None}.sqlite") as other:
            if kept is not None:
                other.keep_examples(kept)
            assert import_answers(other, file) == 5
            assert other.read_examples() == expected


def test_a_good_answer_takes_the_place_of_a_rejected_one(tmp_path: Path) -> None:
    export = tmp_path / "export.jsonl"
    bad = replace(NOUN, value=None, reason="no JSON", raw="half of it")
    for kept, added, n_added in ((bad, NOUN, 1), (NOUN, bad, 0)):
        (tmp_path / "a.sqlite").unlink(missing_ok=True)
        (tmp_path / "b.sqlite").unlink(missing_ok=True)
        with AnswerStore(fill(tmp_path / "a.sqlite", [added]), read_only=True) as store:
            export_answers(store, export)
        with AnswerStore(fill(tmp_path / "b.sqlite", [kept])) as store:
            assert import_answers(store, export) == n_added
            assert list(store.iter_all()) == [NOUN] and store.rejected() == []


def test_exports_do_not_depend_on_when_answers_came(tmp_path: Path) -> None:
    files = []
    for name, answers in (("a", ANSWERS), ("b", ANSWERS[::-1])):
        with AnswerStore(fill(tmp_path / f"{name}.sqlite", answers)) as store:
            files.append(tmp_path / f"{name}.jsonl")
            export_answers(store, files[-1])
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": [{"mention": "x"}]}, r"line 2: field noun\[0\]\.kind is missing"),
        ({"dimension": "colour"}, "line 2: field dimension is 'colour'"),
        ({"key": ""}, "line 2: field key is ''"),
        ({"price": 3}, "line 2: field price is unknown"),
        ({"variant": -1}, "line 2: field variant is -1"),
    ],
)
def test_a_broken_row_is_named_and_nothing_is_imported(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    file = tmp_path / "export.jsonl"
    with AnswerStore(fill(tmp_path / "a.sqlite", [NOUN])) as store:
        export_answers(store, file)
    good = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps(good) + "\n" + json.dumps({**good, "post_id": "p9"} | change))
    with AnswerStore(tmp_path / "b.sqlite") as other:
        with pytest.raises(MMCoTError, match=message):
            import_answers(other, file)
        assert list(other.iter_all()) == []


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with AnswerStore(fill(tmp_path / "a.sqlite", [NOUN])) as store:
        with pytest.raises(MMCoTError, match="E100"):
            import_answers(store, tmp_path / "none.jsonl")
        with pytest.raises(MMCoTError, match="E103"):
            export_answers(store, tmp_path / "a.sqlite" / "x.jsonl")
        broken = tmp_path / "broken.jsonl"
        broken.write_bytes(b"\xff{}\n")
        with pytest.raises(MMCoTError, match="line 1"):
            import_answers(store, broken)

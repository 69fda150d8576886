from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from spacy_mmcot.elicitation.prompts import Prompt
from spacy_mmcot.elicitation.store import AnswerStore, StoredAnswer, answer_key, load_answers
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import Answers, EntityVariant, NounItem

NOUN = StoredAnswer(
    key="k1",
    post_id="p1",
    task="ner",
    dimension="noun",
    template="ner/noun.v1",
    source="openai",
    model="m",
    raw="[...]",
    value=[NounItem(mention="Oslo", kind="city", explanation="höyt ☃")],
)
SENTENCE = replace(NOUN, key="k2", dimension="sentence", value="It calls.", raw="It calls.")
VARIANT = EntityVariant(text="Bergen calls", swaps=[("Oslo", "Bergen")], possible=False)
ENTITY = replace(NOUN, key="k3", dimension="entity", value=VARIANT)
BAD = replace(NOUN, key="k4", post_id="p2", value=None, reason="no JSON", raw="half \ud83d of it")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.sqlite"


@pytest.fixture
def filled(path: Path) -> Path:
    with AnswerStore(path) as store:
        for answer in (NOUN, SENTENCE, ENTITY, BAD, replace(SENTENCE, key="k5", task="rel")):
            assert store.put(answer)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_answers_come_back_by_post_and_task(filled: Path) -> None:
    expected = Answers(id="p1", noun=NOUN.value, sentence="It calls.", entity=VARIANT)
    assert load_answers(filled) == {"p1": expected}
    assert load_answers(filled, "rel") == {"p1": Answers(id="p1", sentence="It calls.")}


def test_rejections_keep_reason_and_raw_text(filled: Path) -> None:
    with AnswerStore(filled, read_only=True) as store:
        (bad,) = store.rejected()
    assert (bad.post_id, bad.reason, bad.value) == ("p2", "no JSON", None)
    assert bad.raw == "half ? of it"


def test_an_answer_is_kept_once(filled: Path) -> None:
    with AnswerStore(filled) as store:
        assert not store.put(replace(NOUN, value=[]))
        assert store.answers()["p1"].noun == NOUN.value


def test_the_same_question_about_another_post_shares_the_answer(filled: Path) -> None:
    with AnswerStore(filled) as store:
        assert store.reuse("k1", "p7") and store.reuse("k1", "p7")
        assert store.has_answer("k1") and not store.has_answer("k9")
        assert not store.reuse("k9", "p7")
        assert store.answers()["p7"] == Answers(id="p7", noun=NOUN.value)


def test_the_last_answer_stands_and_an_older_one_can_be_renewed(filled: Path) -> None:
    with AnswerStore(filled) as store:
        store.put(replace(SENTENCE, key="k6", model="other", value="Newer."))
        store.put(replace(SENTENCE, key="k7", model="third", value=None, reason="useless"))
        assert store.answers()["p1"].sentence == "Newer."
        assert store.reuse("k2", "p1")
        assert store.answers()["p1"].sentence == "It calls."
        assert store.answers("rel")["p1"].sentence == "It calls."


@pytest.mark.slow
def test_each_answer_is_on_disk_when_put_returns(path: Path) -> None:
    script = f"""
import os
from pathlib import Path
from spacy_mmcot.elicitation.store import AnswerStore, StoredAnswer
store = AnswerStore(Path({str(path)!r}))
for i in range(5):
    store.put(StoredAnswer(f"k{{i}}", f"p{{i}}", "ner", "sentence", "t", "s", "m", "raw", "text"))
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    log = path.with_name("answers.sqlite-wal")
    assert log.stat().st_size > 0
    before = digest(path), digest(log)
    # A read-only opening sees what is still in the log, and leaves both files alone.
    assert set(load_answers(path)) == {f"p{i}" for i in range(5)}
    assert (digest(path), digest(log)) == before
    with AnswerStore(path) as store:
        assert len(store.answers()) == 5
    assert not log.exists()


def test_closing_leaves_one_complete_file_and_idle_runs_leave_its_bytes(filled: Path) -> None:
    assert [p.name for p in filled.parent.iterdir()] == ["answers.sqlite"]
    before, time = digest(filled), filled.stat().st_mtime_ns
    with AnswerStore(filled) as store:
        assert not store.put(NOUN)
        store.reuse("k1", "p1")
    load_answers(filled)
    assert (digest(filled), filled.stat().st_mtime_ns) == (before, time)
    assert [p.name for p in filled.parent.iterdir()] == ["answers.sqlite"]
    copy = filled.with_name("copy.sqlite")
    copy.write_bytes(filled.read_bytes())
    assert load_answers(copy) == load_answers(filled)


def test_a_read_only_store_takes_no_answers(filled: Path) -> None:
    with (
        AnswerStore(filled, read_only=True) as store,
        pytest.raises(MMCoTError, match=r"E301.+readonly"),
    ):
        store.put(replace(NOUN, key="k8"))


def test_processes_share_a_store_from_its_first_moment(path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from spacy_mmcot.elicitation.store import AnswerStore, StoredAnswer
who = sys.argv[1]
with AnswerStore(Path({str(path)!r})) as store:
    for i in range(100):
        row = ("ner", "sentence", "t", who, "m", "raw", "text")
        store.put(StoredAnswer(f"own-{{who}}-{{i}}", f"{{who}}-{{i}}", *row))
        store.put(StoredAnswer(f"common-{{i}}", f"common-{{i}}", *row))
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(who)], stderr=subprocess.PIPE)
        for who in range(2)
    ]
    for process in processes:
        assert process.communicate()[1] == b"" and process.returncode == 0
    assert len(load_answers(path)) == 300
    assert [p.name for p in path.parent.iterdir()] == ["answers.sqlite"]


def test_other_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.sqlite"
    text.write_text("not a database, but long enough to have a header of one hundred bytes" * 3)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE answers (x)")
    connection.close()
    for file, reason in ((text, "not a database"), (other, "another kind of database")):
        before = digest(file)
        for read_only in (False, True):
            with pytest.raises(MMCoTError, match=f"E300.*{file.name}.*{reason}"):
                AnswerStore(file, read_only=read_only)
        assert digest(file) == before
    with pytest.raises(MMCoTError, match="E301"):
        AnswerStore(tmp_path)
    with pytest.raises(MMCoTError, match=r"E301.*notes\.sqlite"):
        AnswerStore(text / "below.sqlite")


def test_a_transaction_is_kept_whole_or_not_at_all(path: Path) -> None:
    with AnswerStore(path) as store:
        with pytest.raises(ZeroDivisionError), store.transaction():
            store.put(NOUN)
            with store.transaction():
                store.put(SENTENCE)
            raise ZeroDivisionError
        assert list(store.iter_all()) == []
        with store.transaction():
            store.put(NOUN)
        assert list(store.iter_all()) == [NOUN]


@pytest.mark.parametrize("version", [3, 5])
def test_another_layout_is_refused(filled: Path, version: int) -> None:
    with sqlite3.connect(filled) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    with pytest.raises(MMCoTError, match=f"version {version}, this program knows 4"):
        AnswerStore(filled)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [("value", "{", "Expecting"), ("value", "3", "sentence is 3"), ("dimension", "id", "unknown")],
)
def test_a_damaged_row_is_named(filled: Path, column: str, value: str, reason: str) -> None:
    with sqlite3.connect(filled) as connection:
        connection.execute(f"UPDATE answers SET {column} = ? WHERE key = 'k2'", (value,))
    connection.close()
    with pytest.raises(MMCoTError, match=f"E302.*'p1'.*{reason}"):
        load_answers(filled)


def test_a_missing_file_is_not_made_by_reading(path: Path) -> None:
    with pytest.raises(MMCoTError, match="E100"):
        load_answers(path)
    assert not path.exists()


def test_the_address_covers_all_that_was_asked() -> None:
    prompt = Prompt("ner/noun.v1", [{"role": "user", "content": "Oslo \ud83d?"}], "noun", "p1")
    key = answer_key(prompt, "m", {"temperature": 0.0})
    assert key == answer_key(replace(prompt, post_id="p2"), "m", {"temperature": 0.0})
    others = {
        answer_key(replace(prompt, template="ner/noun.v2"), "m", {"temperature": 0.0}),
        answer_key(replace(prompt, messages=[]), "m", {"temperature": 0.0}),
        answer_key(prompt, "m2", {"temperature": 0.0}),
        answer_key(prompt, "m", {"temperature": 0.5}),
        answer_key(prompt, "m", {}),
    }
    assert len(others) == 5 and key not in others


def test_recorded_files_load_too(demo: Path) -> None:
    answers = load_answers(demo / "answers.jsonl")
    assert len(answers) == 360
    first = json.loads((demo / "answers.jsonl").open(encoding="utf-8").readline())
    assert answers[first["id"]].style == first["style"]

"""The convert command, on real files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from click.testing import Result
from spacy.tokens import Doc, DocBin

from spacy_mmcot.corpus.docbin import read_docs
from spacy_mmcot.corpus.posts import make_text_id, read_posts
from spacy_mmcot.types import ID_KEY, Post

Command = Callable[..., Result]
Jsonl = Callable[..., Path]

ANNA = {"id": "a", "text": "Anna in Oslo", "entities": [{"start": 0, "end": 4, "label": "PER"}]}
CONLL = "IMGID:7\nAnna\tB-PER\nin\tO\nOslo\tB-LOC\n\nIMGID:8\nOslo\tB-LOC\n\nIMGID:9\nBye\tO\n"


def docs(path: Path) -> list[Doc]:
    return list(read_docs(path, spacy.blank("en").vocab))


def labelled(post: Post) -> Post:
    """The post as it comes back from a Doc."""
    hide = {"entities": None, "relations": None} if post.split == "unlabelled" else {}
    return post.model_copy(update={"domain": None, **hide})


def test_an_earlier_runs_file_of_a_split_goes_where_its_posts_are_in_others(
    command: Command, jsonl: Jsonl, tmp_path: Path
) -> None:
    folder, other = tmp_path / "gold", {"text": "Bo in Rome", "entities": []}
    rows = [{**ANNA, "split": "dev"}, {**other, "id": "b"}, {**other, "id": "c", "split": "test"}]
    assert command("convert", jsonl("posts.jsonl", *rows), "-o", folder).exit_code == 0
    again = command("convert", jsonl("posts.jsonl", ANNA, rows[1]), "-o", folder)
    assert sorted(path.name for path in folder.iterdir()) == ["test.spacy", "train.spacy"]
    assert "dev.spacy is of an earlier run: its posts are in other splits now" in again.stdout
    assert "test.spacy is of an earlier run: it stays" in again.stdout


def test_two_outputs_that_are_one_file_are_refused(
    command: Command, demo: Path, tmp_path: Path
) -> None:
    store = tmp_path / "a.jsonl"
    store.write_bytes((demo / "answers.jsonl").read_bytes())
    (tmp_path / "link.jsonl").symlink_to(store)
    given = ("convert", demo / "posts.jsonl", "--answers", store)
    for options in (
        ("-o", tmp_path / "o.jsonl", "--answers-out", tmp_path / "x" / ".." / "o.jsonl"),
        ("-o", tmp_path / "o.jsonl", "--answers-out", tmp_path / "link.jsonl"),
    ):
        done = command(*given, *options)
        assert (done.exit_code, "[E749]" in done.stderr) == (2, True)
    assert store.read_bytes() == (demo / "answers.jsonl").read_bytes()
    assert not (tmp_path / "o.jsonl").exists()


def test_what_a_review_adds_and_leaves_out_is_said(
    command: Command, jsonl: Jsonl, tmp_path: Path
) -> None:
    ends = [{"start": 0, "end": 4, "label": "PER"}, {"start": 8, "end": 12, "label": "LOC"}]
    related = {**ANNA, "entities": ends, "relations": [{"head": 0, "tail": 1, "label": "in"}]}
    twice = [{"id": name, "text": "Bo", "entities": []} for name in "bc"]
    person = {"text": "Bo", "entities": [{"start": 0, "end": 2, "label": "PER"}]}
    reviewed = jsonl(
        "reviewed.jsonl",
        *({**ANNA, "entities": ends}, {"id": "d", "text": "Cy"}, {**person, "id": "r1"}),
        *({**person, "id": "r2"}, {"id": "new", "text": "Di", "entities": []}),
    )
    given = (jsonl("posts.jsonl", related, *twice), "-o", tmp_path / "o.jsonl")
    done = command("convert", *given, "--reviewed", reviewed)
    posts = read_posts(tmp_path / "o.jsonl")
    assert [post.id for post in posts] == ["a", "b", "c", "new"]
    assert [len(post.entities or ()) for post in posts] == [2, 1, 1, 0]
    lines = done.stdout.splitlines()
    for words, name in (
        ("posts whose relations are gone", "a"),
        ("posts without labels among the reviewed ones", "d"),
        ("reviewed posts that are none of the others, added", "new"),
    ):
        (at,) = (i for i, line in enumerate(lines) if line.startswith(words))
        assert lines[at].endswith(": 1") and lines[at + 1].strip() == name


def test_answers_that_a_posts_file_cannot_hold_are_said(
    command: Command, jsonl: Jsonl, tmp_path: Path
) -> None:
    answers = jsonl("answers.jsonl", {"id": "a", "sentence": "Anna is in Oslo."})
    folder = tmp_path / "gold"
    command("convert", jsonl("posts.jsonl", ANNA), "--answers", answers, "-o", folder)
    back = ("convert", folder / "train.spacy", "-o", tmp_path / "back.jsonl")
    words = "posts whose answers --answers-out would keep: 1"
    assert words in command(*back).stdout
    assert words not in command(*back, "--answers-out", tmp_path / "out.jsonl").stdout


def test_conclusions_that_do_not_fit_and_labels_that_a_scheme_lacks_are_said(
    command: Command, jsonl: Jsonl, tmp_path: Path
) -> None:
    said = [("Anna", "PER"), ("Oslo", "LOC"), ("Rome", "LOC")]
    items = [{"mention": name, "label": label, "sure": "high"} for name, label in said]
    answers = jsonl("answers.jsonl", {"id": "a", "conclusion": {"entities": items}})
    posts, folder = jsonl("posts.jsonl", {"id": "a", "text": ANNA["text"]}), tmp_path / "gold"
    done = command("convert", posts, "--answers", answers, "-o", folder)
    assert "items of conclusions that do not fit their text: 1" in done.stdout
    assert "a: the mention 'Rome' is not in the text" in done.stdout
    (folder / "other.csv").touch()
    done = command("convert", folder, jsonl("none.jsonl"), "-o", tmp_path / "back.jsonl")
    assert "files without a post: 1" in done.stdout and "none.jsonl" in done.stdout
    assert "files in folders that are not read: 1" in done.stdout and "other.csv" in done.stdout
    (tmp_path / "scheme.yml").write_text("entities: {PER: people}")
    options = ("--from", "conclusions", "--scheme", tmp_path / "scheme.yml")
    done = command("teach", folder, "-o", tmp_path / "t.spacy", *options)
    assert "scheme.yml lacks these labels, left out: LOC." in done.stdout


def test_the_demo_and_back(command: Command, demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    arguments = ("convert", demo / "posts.jsonl", "--answers", demo / "answers.jsonl")
    result = command(*arguments, "-o", folder)
    assert result.exit_code == 0, result.output
    names = {"train": 126, "unlabelled": 90, "dev": 54, "test": 90}
    assert {path.name for path in folder.iterdir()} == {f"{name}.spacy" for name in names}
    first = {path.name: path.read_bytes() for path in folder.iterdir()}

    source = {post.id: post for post in read_posts(demo / "posts.jsonl")}
    answers = {
        row["id"]: row for row in map(json.loads, (demo / "answers.jsonl").open(encoding="utf-8"))
    }
    for name, count in names.items():
        found = docs(folder / f"{name}.spacy")
        assert len(found) == count
        for doc in found:
            post = source[doc.user_data[ID_KEY]]
            assert post.split == name
            assert Path(doc._.mmcot_image).is_file()
            knowledge = doc._.mmcot_knowledge
            assert knowledge["caption"] == post.caption
            assert knowledge["sentence"] == answers[post.id]["sentence"]
            assert list(knowledge["noun"]) == answers[post.id]["noun"]
            assert "style" not in knowledge

    back = tmp_path / "back.jsonl"
    result = command("convert", folder, "-o", back, "--answers-out", tmp_path / "answers.jsonl")
    assert result.exit_code == 0, result.output
    posts = {post.id: post for post in read_posts(back)}
    assert posts.keys() == source.keys()
    for name, post in posts.items():
        assert (back.parent / str(post.image)).resolve() == (demo / source[name].image).resolve()
        assert post.model_copy(update={"image": source[name].image}) == labelled(source[name])
    assert len((tmp_path / "answers.jsonl").read_text("utf-8").splitlines()) == 360

    command(*arguments, "-o", folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_one_file_of_docs(command: Command, jsonl: Jsonl, tmp_path: Path) -> None:
    path = jsonl("posts.jsonl", ANNA, {"id": "b", "text": "Bye", "split": "dev"})
    result = command("convert", path, "-o", tmp_path / "all.spacy", "--split", "test")
    assert result.exit_code == 0, result.output
    found = docs(tmp_path / "all.spacy")
    assert [doc.user_data[ID_KEY] for doc in found] == ["a", "b"]
    assert [doc.has_annotation("ENT_IOB") for doc in found] == [True, False]
    command("convert", tmp_path / "all.spacy", "-o", tmp_path / "back.jsonl", "--split", "test")
    back = read_posts(tmp_path / "back.jsonl")
    assert [post.split for post in back] == ["test", "test"]
    assert [post.entities is None for post in back] == [False, True]


def test_changes_and_losses_are_reported_by_id(
    command: Command, jsonl: Jsonl, tmp_path: Path
) -> None:
    path = jsonl(
        "posts.jsonl",
        {"id": "x", "text": "Oslofjord", "entities": [{"start": 0, "end": 4, "label": "LOC"}]},
        {"id": "y", "text": "in Oslo ", "entities": [{"start": 2, "end": 8, "label": "LOC"}]},
        {"id": "z", "text": "no picture", "image": "images/none.png"},
    )
    result = command("convert", path, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "x: 'Oslo' (0, 4, LOC) in the token 'Oslofjord'" in result.output
    assert "y: ' Oslo ' (2, 8, LOC)" in result.output
    assert "posts whose picture is not there: 1" in result.output
    found = docs(tmp_path / "out" / "train.spacy")
    assert [ent.text for doc in found for ent in doc.ents] == ["Oslo", "Oslo"]


def test_formats_are_told_by_name_and_first_row(
    command: Command, jsonl: Jsonl, tmp_path: Path
) -> None:
    prodigy = jsonl(
        "anna.jsonl", {"text": "Anna", "spans": [{"start": 0, "end": 4, "label": "PER"}]}
    )
    posts = jsonl("posts.jsonl", ANNA)
    (tmp_path / "dev.txt").write_text(CONLL, encoding="utf-8")
    out = tmp_path / "out.jsonl"
    result = command("convert", posts, prodigy, tmp_path / "dev.txt", "-o", out)
    assert result.exit_code == 0, result.output
    read = [(post.id, post.split) for post in read_posts(out)]
    assert read == [
        ("a", "train"),
        (make_text_id("Anna"), "train"),
        *((name, "dev") for name in ("7", "8", "9")),
    ]
    other = tmp_path / "corpus.dat"
    other.write_text(CONLL, encoding="utf-8")
    result = command("convert", other, "-o", out)
    assert result.exit_code == 1
    assert "Allowed: posts, text, table, conll, prodigy" in result.output
    assert command("convert", other, "-o", out, "--format", "conll").exit_code == 0


def test_user_errors_end_in_one_line(command: Command, jsonl: Jsonl, tmp_path: Path) -> None:
    posts, out = jsonl("posts.jsonl", ANNA), tmp_path / "out"
    empty = jsonl("empty.jsonl")
    foreign = tmp_path / "foreign.spacy"
    foreign.write_bytes(b"no DocBin")
    cases = {
        ("convert", tmp_path / "none.jsonl", "-o", out): "no such file",
        ("convert", empty, "-o", out): "no post is left to convert",
        ("convert", foreign, "-o", out): "not a readable .spacy file",
        ("convert", posts, posts, "-o", out): "field id is 'a', which an earlier post has",
        ("convert", posts, "-o", out, "--lang", "xx-none"): "--lang xx-none",
        ("convert", posts, "-o", posts / "below"): "cannot be written",
        ("convert", posts, "-o", out, "--answers", tmp_path / "no.jsonl"): "no such file",
    }
    for arguments, message in cases.items():
        result = command(*arguments)
        assert result.exit_code == 1, arguments
        assert message in result.output, arguments
        assert "Traceback" not in result.output
    assert not out.exists()


def test_answers_about_other_posts_are_noticed(
    command: Command, jsonl: Jsonl, tmp_path: Path
) -> None:
    posts = jsonl("posts.jsonl", ANNA)
    answers = jsonl("answers.jsonl", {"id": "other", "sentence": "What?"})
    result = command("convert", posts, "-o", tmp_path / "out", "--answers", answers)
    assert result.exit_code == 0, result.output
    assert "answers files about none of the posts: 1" in result.output
    store = tmp_path / "a.sqlite"
    command("elicit", posts, store, "--recorded", jsonl("a.jsonl", {"id": "a", "sentence": "Hi."}))
    other = ("--answers", store, "--task", "rel")
    result = command("convert", posts, "-o", tmp_path / "out", *other)
    assert "a.sqlite: of the task rel, on 0 other posts" in result.output


def test_later_answers_win(command: Command, jsonl: Jsonl, tmp_path: Path) -> None:
    posts = jsonl("posts.jsonl", ANNA)
    first = jsonl("1.jsonl", {"id": "a", "sentence": "old", "multimodality": "kept"})
    second = jsonl("2.jsonl", {"id": "a", "sentence": "new"})
    out = tmp_path / "all.spacy"
    command("convert", posts, "-o", out, "--answers", first, "--answers", second)
    (doc,) = docs(out)
    assert doc._.mmcot_knowledge == {"sentence": "new", "multimodality": "kept"}


def test_answers_of_a_store(command: Command, jsonl: Jsonl, tmp_path: Path) -> None:
    posts = jsonl("posts.jsonl", ANNA)
    recorded = jsonl(
        "answers.jsonl",
        {"id": "a", "noun": [{"mention": "Anna", "kind": "person"}], "sentence": "A walk."},
    )
    store, out = tmp_path / "answers.sqlite", tmp_path / "all.spacy"
    result = command("elicit", posts, store, "--recorded", recorded)
    assert result.exit_code == 0, result.output
    result = command("convert", posts, "-o", out, "--answers", store)
    assert result.exit_code == 0, result.output
    (doc,) = docs(out)
    assert doc._.mmcot_knowledge["sentence"] == "A walk."


def test_documents_of_other_tools(command: Command, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    first, second = nlp("Anna in Oslo"), nlp("not labelled")
    first.set_ents([first.char_span(8, 12, "LOC")])
    DocBin(docs=[first, second]).to_disk(tmp_path / "dev.spacy")
    out = tmp_path / "posts.jsonl"
    result = command("convert", tmp_path / "dev.spacy", "-o", out)
    assert result.exit_code == 0, result.output
    assert read_posts(out) == [
        Post(
            id=make_text_id("Anna in Oslo"),
            text="Anna in Oslo",
            entities=[{"start": 8, "end": 12, "label": "LOC"}],
            split="dev",
        ),
        Post(id=make_text_id("not labelled"), text="not labelled", split="dev"),
    ]


def test_a_broken_row_is_named(command: Command, jsonl: Jsonl, tmp_path: Path) -> None:
    broken = jsonl("posts.jsonl", {**ANNA, "text": ""})
    done = command("convert", broken, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"✘ [E101] {broken}, line 1: text is empty")


def test_options_that_cannot_be_meant(command: Command, jsonl: Jsonl, tmp_path: Path) -> None:
    posts = jsonl("posts.jsonl", ANNA)
    for name in ("posts.json", "posts.csv", "v1.2"):
        result = command("convert", posts, "-o", tmp_path / name)
        assert (result.exit_code, result.stderr[:9]) == (2, "✘ [E719] ")
        assert not (tmp_path / name).exists()
    shares = ("--dev", "0.5", "--test", "0.5")
    result = command("convert", posts, "-o", tmp_path / "out", *shares)
    assert (result.exit_code, result.stderr[:9]) == (2, "✘ [E715] ")
    (tmp_path / "v1.2").mkdir()
    assert command("convert", posts, "-o", tmp_path / "v1.2").exit_code == 0
    assert (tmp_path / "v1.2" / "train.spacy").is_file()


def test_a_text_that_no_doc_can_hold(command: Command, jsonl: Jsonl, tmp_path: Path) -> None:
    long = {"id": "long", "text": "a " * 500_001}
    arguments = ("convert", jsonl("posts.jsonl", ANNA, long), "-o", tmp_path / "a.spacy")
    assert "[E206] Post long: " in command(*arguments).stderr
    result = command(*arguments, "--skip-invalid")
    assert "1 invalid rows skipped:\n  [E206] Post long: " in result.output
    assert len(docs(tmp_path / "a.spacy")) == 1


def test_a_folder_whose_name_is_not_utf8(command: Command, jsonl: Jsonl, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    posts = jsonl("posts.jsonl", {**ANNA, "image": "a.png"}).rename(folder / "posts.jsonl")
    line = command("convert", posts, "-o", tmp_path / "out.jsonl").stderr
    assert "[E101]" in line and "is not UTF-8" in line
    assert command("convert", posts, "-o", tmp_path / "a.jsonl", "--skip-invalid").exit_code == 1


def test_a_missing_split_is_an_error_where_it_is_required(
    command: Command, fails: Callable[..., str], jsonl: Jsonl, tmp_path: Path
) -> None:
    posts = jsonl("posts.jsonl", ANNA)
    out = tmp_path / "made.jsonl"
    line = fails("E713", "convert", posts, "-o", out, "--require", "train", "--require", "dev")
    assert "split dev" in line
    assert not out.exists()
    assert command("convert", posts, "-o", out, "--require", "train").exit_code == 0


def test_reviewed_posts_replace_labels_and_keep_their_split(
    command: Command, jsonl: Jsonl, tmp_path: Path
) -> None:
    bare = {"text": "Anna in Oslo", "image": "a.png"}
    splits = ("train", "unlabelled", "dev")
    posts = jsonl("posts.jsonl", *({**bare, "id": s, "split": s} for s in splits), ANNA)
    labels = [{"start": 8, "end": 12, "label": "LOC"}]
    mine = [{"id": name, "text": "Anna in Oslo", "entities": labels} for name in splits]
    mine.append({"id": "new", "text": "Back in Oslo", "entities": labels})
    out = tmp_path / "made.jsonl"
    result = command("convert", posts, "--reviewed", jsonl("mine.jsonl", *mine), "-o", out)
    assert result.exit_code == 0, result.output
    found = {post.id: post for post in read_posts(out)}
    assert {name: post.split for name, post in found.items()} == {
        **{"train": "train", "unlabelled": "train", "dev": "dev", "a": "train", "new": "train"}
    }
    assert {name for name, post in found.items() if post.entities[0].label == "LOC"} == {
        *(*splits, "new")
    }
    assert found["dev"].image == "a.png"
    other = jsonl("other.jsonl", {"id": "7", "text": "Anna in Oslo", "entities": labels})
    assert command("convert", posts, "--reviewed", other, "-o", out).exit_code == 0
    assert [post.id for post in read_posts(out) if post.entities] == ["train", "a"]
    # A project begins with an empty file, and tools export tasks that nobody has come to.
    tasks = tmp_path / "tasks.json"
    tasks.write_text(json.dumps([{"data": ANNA, "annotations": []}]))
    assert command("convert", posts, "--reviewed", tasks, "-o", out).exit_code == 0
    assert [post.id for post in read_posts(out) if post.entities] == ["a"]
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert command("convert", posts, "--reviewed", empty, "-o", out).exit_code == 0
    assert found["a"] == next(post for post in read_posts(out) if post.id == "a")


def test_a_file_is_added_to_itself(command: Command, jsonl: Jsonl) -> None:
    """docs/RECIPES.md, "Correct and retrain"."""
    kept, new = jsonl("kept.jsonl", ANNA), jsonl("new.jsonl", {**ANNA, "id": "b"})
    result = command("convert", kept, new, "-o", kept)
    assert result.exit_code == 0, result.output
    assert [post.id for post in read_posts(kept)] == ["a", "b"]

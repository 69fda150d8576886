"""`python -m research convert`: the files beside a corpus name its rows by number."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from research.__main__ import app
from spacy_mmcot.corpus.augment import augment
from spacy_mmcot.corpus.posts import read_posts
from spacy_mmcot.types import Answers, Post

Jsonl = Callable[..., Path]
Convert = Callable[..., Result]

CONLL = "IMGID:7\nAnna\tB-PER\nin\tO\nOslo\tB-LOC\n\nIMGID:8\nOslo\tB-LOC\n\nIMGID:9\nBye\tO\n"
TOKENS = ["Anna", "Lind", "sings", "in", "Oslo", ",", "Norway"]
ANNA, OSLO, NORWAY = (0, 2), (4, 5), (6, 7)
POST = {
    "id": "a",
    "text": "Anna and Bo sing in Oslo",
    "entities": [
        {"start": 20, "end": 24, "label": "LOC"},
        {"start": 0, "end": 4, "label": "PER"},
        {"start": 9, "end": 11, "label": "PER"},
    ],
}
AUGMENTATION: dict[str, Any] = {
    "n": 1,
    "style": "wow , Anna and Bo sing in Oslo",
    "entity": "Cy and Bo sing in Rome",
    "swaps": ["Cy", "Bo", "Rome"],
    "possible": False,
    "image": "a stage",
}


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """Run the command in this process; posts go to out.jsonl and answers to answers.jsonl."""

    def run(*arguments: object) -> Result:
        files = ("-o", tmp_path / "out.jsonl", "--answers-out", tmp_path / "answers.jsonl")
        words = map(str, ("convert", *arguments, *files))
        return CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})

    return run


@pytest.fixture
def train(tmp_path: Path) -> Path:
    path = tmp_path / "train.txt"
    path.write_text(CONLL, encoding="utf-8")
    return path


@pytest.fixture
def mnre(tmp_path: Path) -> Path:
    rows = [
        (ANNA, OSLO, "/sings_in"),
        (OSLO, NORWAY, "/in"),
        (ANNA, NORWAY, "None"),
        (NORWAY, OSLO, "None"),
    ]

    def mention(pos: tuple[int, int]) -> dict[str, Any]:
        return {"name": " ".join(TOKENS[slice(*pos)]), "pos": list(pos)}

    lines = [
        repr(
            {
                **{"token": TOKENS, "h": mention(head), "t": mention(tail)},
                **{"img_id": "7.jpg", "relation": label},
            }
        )
        for head, tail, label in rows
    ]
    path = tmp_path / "train.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read_answers(folder: Path) -> list[Answers]:
    lines = (folder / "answers.jsonl").read_text("utf-8").splitlines()
    return [Answers.model_validate_json(line) for line in lines]


def list_splits(folder: Path) -> dict[str, str]:
    return {post.id: post.split for post in read_posts(folder / "out.jsonl")}


def list_pairs(post: Post) -> list[tuple[str, str]]:
    surfaces = [post.text[e.start : e.end] for e in post.entities or []]
    return [(surfaces[head], surfaces[tail]) for head, tail in post.pairs or []]


def test_low_resource_protocol_with_recorded_knowledge(
    convert: Convert, train: Path, jsonl: Jsonl, tmp_path: Path
) -> None:
    low = tmp_path / "low.json"
    low.write_text('{\n "posts": [0, 2],\n "note": "the labelled ones"\n}', encoding="utf-8")
    knowledge = jsonl(
        "train.knowledge.jsonl",
        {
            "n": 1,
            "image_id": "8",
            "caption": "a fjord",
            "knowledge": "Named entities:1. Oslo (city)2. Norway (country)Reasoning: A capital.",
        },
        {"n": 2, "image_id": "9", "caption": "a door", "knowledge": None},
    )
    known = jsonl(
        "known.jsonl",
        {"id": "8", "sentence": "It names a capital."},
        {"id": "7", "multimodality": "No picture."},
    )
    done = convert(train, "--labelled", low, "--knowledge", knowledge, "--answers", known)
    assert done.exit_code == 0, done.output
    posts = {post.id: post for post in read_posts(tmp_path / "out.jsonl")}
    splits = {name: post.split for name, post in posts.items()}
    assert splits == {"7": "train", "8": "unlabelled", "9": "train"}
    assert [posts[name].caption for name in "789"] == [None, "a fjord", "a door"]
    assert len(posts["7"].entities or []) == 2
    first, second = read_answers(tmp_path)
    assert first == Answers(id="7", multimodality="No picture.")
    assert second.id == "8" and second.sentence == "It names a capital."
    assert [item.mention for item in second.noun or []] == ["Oslo", "Norway"]


def test_knowledge_of_another_file_is_refused(convert: Convert, train: Path, jsonl: Jsonl) -> None:
    row = {"n": 1, "image_id": "9", "caption": "a fjord", "knowledge": "None."}
    done = convert(train, "--knowledge", jsonl("wrong.jsonl", row))
    assert done.exit_code == 1
    assert "line 1: row 1 speaks of the picture '9', but the input's row 1 is '8'" in done.output


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"n": 0}, "fields image_id, noun and sentence are missing"),
        ({"n": 0, "image_id": "7", "noun": "x"}, "image_id stands beside noun"),
    ],
)
def test_knowledge_of_neither_form(
    record: dict[str, Any], problem: str, convert: Convert, train: Path, jsonl: Jsonl
) -> None:
    knowledge = jsonl("knowledge.jsonl", record)
    done = convert(train, "--knowledge", knowledge)
    assert done.exit_code == 1
    assert f"{knowledge}, line 1: {problem}" in done.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"posts": [0, 3]}', "1 numbers are no rows of the input (3)"),
        ('{"posts": [-1]}', "numbers from 0 to 2"),
        ('{"posts": ["0"]}', "field posts[0] is '0'. Expected: a whole number"),
        ('{"rows": [0]}', "field posts is missing"),
        ('{"posts": [0], "unlabelled": [1]}', "by posts and by labelled or unlabelled"),
        ('{"labelled": [0], "unlabelled": [1, 0]}', "row 0 is named as labelled and as unlabelled"),
        ('{"labelled": [0], "unlabelled": [1, 7]}', "1 numbers are no rows of the input (7)"),
        ("[0]", "the row is [0]. Expected: an object"),
        ("posts: 0", "not JSON"),
    ],
)
def test_broken_lists_of_labelled_rows(
    convert: Convert, train: Path, tmp_path: Path, content: str, message: str
) -> None:
    low = tmp_path / "low.json"
    low.write_text(content, encoding="utf-8")
    done = convert(train, "--labelled", low)
    assert done.exit_code == 1
    assert str(low) in done.output
    assert message in done.output
    assert not (tmp_path / "out.jsonl").exists()


def test_skipped_rows_keep_the_numbers_of_the_others(
    convert: Convert, train: Path, tmp_path: Path
) -> None:
    low = tmp_path / "low.json"
    train.write_text(CONLL.replace("IMGID:8\nOslo\tB-LOC", "IMGID:8\nOslo\tI-LOC"), "utf-8")
    low.write_text('{"posts": [1, 2]}', encoding="utf-8")
    done = convert(train, "--labelled", low)
    assert done.exit_code == 1
    assert "line 7: the tag I-LOC follows the tag O" in done.output
    done = convert(train, "--labelled", low, "--skip-invalid")
    assert done.exit_code == 0, done.output
    assert "1 invalid rows skipped" in done.output
    assert "rows that low.json names, but that were left out or do not exist: 1" in done.output
    assert list_splits(tmp_path) == {"7": "unlabelled", "9": "train"}
    done = convert(train, "--labelled", low, "--repair-bio")
    assert done.exit_code == 0, done.output
    assert "I- tags that continued no entity, read as B-: 1" in done.output


def test_rows_of_a_list_come_first_in_its_order(
    convert: Convert, jsonl: Jsonl, tmp_path: Path
) -> None:
    rows = [
        {"id": str(i), "text": "x", "split": "dev" if i == 21 else "train"}
        | ({"split": "unlabelled"} if i == 20 else {})
        for i in range(22)
    ]
    posts, named = jsonl("posts.jsonl", *rows), jsonl("low.json", {"posts": [7, 3, 20, 5]})

    def train_at(fraction: float) -> set[str]:
        done = convert(posts, "--labelled", named, "--fraction", fraction)
        assert done.exit_code == 0, done.output
        return {name for name, split in list_splits(tmp_path).items() if split == "train"}

    # 21 posts: those of train and the one that is named.
    assert train_at(0.05) == {"7"}
    assert train_at(0.1) == {"7", "3"}
    assert train_at(0.19) == {"7", "3", "20", "5"}
    assert train_at(0.3) > {"7", "3", "20", "5"}


def test_numbers_are_those_of_mnre_rows_before_they_are_joined(
    convert: Convert, mnre: Path, jsonl: Jsonl, tmp_path: Path
) -> None:
    low = tmp_path / "low.json"
    low.write_text('{"labelled": [0, 2], "unlabelled": [1], "note": "?"}', encoding="utf-8")
    knowledge = jsonl(
        "knowledge.jsonl",
        {
            "n": 0,
            "noun": "Anna Lind is a singer; Oslo is the capital of Norway, a city.",
            "sentence": "She sings there.",
        },
        {"n": 1, "noun": "Oslo is a city; nobody knows the other.", "sentence": "It lies there."},
        {"n": 2, "sentence": "She sings there."},
    )
    done = convert(mnre, "--labelled", low, "--knowledge", knowledge)
    assert done.exit_code == 0, done.output
    train, unlabelled = read_posts(tmp_path / "out.jsonl")
    assert (train.split, unlabelled.split) == ("train", "unlabelled")
    assert list_pairs(train) == [("Anna Lind", "Oslo"), ("Anna Lind", "Norway")]
    assert [(r.head, r.tail, r.label) for r in train.relations or []] == [(0, 1, "/sings_in")]
    assert (unlabelled.id, list_pairs(unlabelled)) == ("7.jpg-2", [("Oslo", "Norway")])
    assert "rows that low.json does not name, left out: 1" in done.output
    assert "mentions that their noun answer does not name: 1" in done.output
    first, second = read_answers(tmp_path)
    assert first.sentence == "She sings there."
    assert [(item.mention, item.kind) for item in first.noun or []] == [
        ("Anna Lind", "singer"),
        ("Oslo", "capital of Norway"),
    ]
    assert (second.id, second.sentence) == ("7.jpg-2", "It lies there.")


def test_augmentations_join_what_is_known(convert: Convert, jsonl: Jsonl, tmp_path: Path) -> None:
    """Swaps stand for the entities in text order."""
    posts = jsonl("posts.jsonl", {"id": "first", "text": "nothing here"}, POST)
    known = jsonl("known.jsonl", {"id": "a", "sentence": "A concert."})
    done = convert(
        posts, "--augmentations", jsonl("augmentations.jsonl", AUGMENTATION), "--answers", known
    )
    assert done.exit_code == 0, done.output
    (line,) = (tmp_path / "answers.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line) == {
        "id": "a",
        "sentence": "A concert.",
        "style": AUGMENTATION["style"],
        "entity": {
            "text": AUGMENTATION["entity"],
            "swaps": [["Anna", "Cy"], ["Oslo", "Rome"]],
            "possible": False,
        },
        "image": "a stage",
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"swaps": ["Cy"]}, "1 swaps for row 1, 'a'"),
        ({"swaps": ["Cy", "", "Rome"]}, "swaps[1]"),
        ({"stile": "x"}, "stile"),
        ({"n": "1"}, "field n"),
    ],
)
def test_broken_augmentations_are_named_or_skipped(
    change: dict[str, Any], words: str, convert: Convert, jsonl: Jsonl
) -> None:
    posts = jsonl("posts.jsonl", {"id": "first", "text": "nothing here"}, POST)
    arguments = (posts, "--augmentations", jsonl("augmentations.jsonl", AUGMENTATION | change))
    done = convert(*arguments)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert "[E101]" in line and "augmentations.jsonl, line 1" in line and words in line
    done = convert(*arguments, "--skip-invalid")
    assert done.exit_code == 0 and "1 invalid rows skipped" in done.output


def test_augmentations_of_absent_rows_are_listed(convert: Convert, jsonl: Jsonl) -> None:
    posts = jsonl("posts.jsonl", POST)
    done = convert(posts, "--augmentations", jsonl("augmentations.jsonl", AUGMENTATION | {"n": 9}))
    assert done.exit_code == 0 and "row 9" in done.output


@pytest.mark.parametrize(
    ("name", "posts"),
    [
        ("twitter2017/train", 3373),
        ("twitter2017/valid", 723),
        ("twitter2015/train", 4000),
        ("twitter2015/valid", 1000),
    ],
)
def test_knowledge_of_every_twitter_post(
    name: str, posts: int, convert: Convert, shared: Path, tmp_path: Path
) -> None:
    path = shared / f"{name}.txt"
    knowledge = path.with_suffix(".knowledge.jsonl")
    done = convert(path, "--repair-bio", "--knowledge", knowledge)
    assert done.exit_code == 0, done.output
    found = read_posts(tmp_path / "out.jsonl")
    known = {answers.id for answers in read_answers(tmp_path)}
    assert len(found) == posts
    assert sum(post.id in known or bool(post.caption) for post in found) >= posts - 1


def test_low_resource_split_of_twitter2017(convert: Convert, shared: Path, tmp_path: Path) -> None:
    """--labelled alone, and with a fraction that is just as large, give the same posts; the
    recorded augmentations make new posts."""
    folder = shared / "twitter2017"
    arguments = (folder / "train.txt", "--labelled", folder / "low_resource.json")
    augmentations = ("--augmentations", folder / "augmentations.jsonl")
    done = convert(*arguments, *augmentations)
    assert done.exit_code == 0, done.output
    assert re.search(r"train\s+850\b", done.output)
    assert re.search(r"unlabelled\s+2523\b", done.output)
    answers = {known.id: known for known in read_answers(tmp_path)}
    _, tallies = augment(read_posts(tmp_path / "out.jsonl"), answers, ["style", "entity", "image"])
    made = {name: tally.made for name, tally in tallies.items()}
    assert made == {"style": 447, "entity": 413, "image": 447}
    first = (tmp_path / "out.jsonl").read_bytes()
    done = convert(*arguments, "--fraction", 0.252)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out.jsonl").read_bytes() == first


def test_low_resource_split_of_mnre(convert: Convert, shared: Path, tmp_path: Path) -> None:
    folder = shared / "mnre"
    done = convert(
        *(folder / "train.txt", "--labelled", folder / "low_resource.json"),
        *("--knowledge", folder / "knowledge.jsonl"),
    )
    assert done.exit_code == 0, done.output
    assert re.search(r"train\s+749\s+1547\s+794\s+288\b", done.output)
    found = read_answers(tmp_path)
    assert len(found) == 749 + 1440
    # Of the 4,585 mentions that the 2,385 rows name.
    assert sum(len(known.noun or []) for known in found) > 0.98 * 4585

"""Counts on the public benchmarks: nothing in the files gets lost on the way to a DocBin."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from click.testing import Result

from spacy_mmcot.corpus.docbin import read_docs
from spacy_mmcot.corpus.extensions import get_pairs
from spacy_mmcot.types import Answers

Command = Callable[..., Result]


@pytest.mark.parametrize(
    ("name", "split", "posts", "orphans"),
    [
        ("twitter2017/train", "train", 3373, 0),
        ("twitter2017/valid", "dev", 723, 0),
        ("twitter2015/train", "train", 4000, 186),
        ("twitter2015/valid", "dev", 1000, 53),
    ],
)
def test_every_post_token_and_entity_arrives(
    command: Command, shared: Path, tmp_path: Path, name: str, split: str, posts: int, orphans: int
) -> None:
    path = shared / f"{name}.txt"
    result = command(
        *("convert", path, "-o", tmp_path, "--tokenizer", "whitespace", "--repair-bio"),
        *("--knowledge", path.with_suffix(".knowledge.jsonl")),
    )
    assert result.exit_code == 0, result.output
    docs = list(read_docs(tmp_path / f"{split}.spacy", spacy.blank("en").vocab))
    assert len(docs) == posts
    lines = [line for line in path.read_text("utf-8").split("\n") if "\t" in line]
    assert [token.text for doc in docs for token in doc] == [line.split("\t")[0] for line in lines]
    beginnings = sum("\tB-" in line for line in lines)
    assert sum(len(doc.ents) for doc in docs) == beginnings + orphans
    iob = [f"{t.ent_iob_}-{t.ent_type_}".rstrip("-") for doc in docs for t in doc]
    assert sum(tag != line.split("\t")[1] for tag, line in zip(iob, lines, strict=True)) == orphans
    assert sum(bool(doc._.mmcot_knowledge) for doc in docs) >= posts - 1


def test_low_resource_split(command: Command, shared: Path, tmp_path: Path) -> None:
    folder = shared / "twitter2017"
    result = command(
        *("convert", folder / "train.txt", "-o", tmp_path, "--tokenizer", "whitespace"),
        *("--labelled", folder / "low_resource.json"),
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"train\s+850\b", result.output)
    assert re.search(r"unlabelled\s+2523\b", result.output)
    vocab = spacy.blank("en").vocab
    assert not any(doc.ents for doc in read_docs(tmp_path / "unlabelled.spacy", vocab))


@pytest.mark.parametrize(
    ("name", "split", "rows", "nested", "posts", "relations"),
    [
        pytest.param("train", "train", 12247, 59, 7353, 4472, marks=pytest.mark.slow),
        ("valid", "dev", 1624, 3, 930, 623),
    ],
)
def test_every_judged_pair_arrives(
    command: Command,
    shared: Path,
    tmp_path: Path,
    name: str,
    split: str,
    rows: int,
    nested: int,
    posts: int,
    relations: int,
) -> None:
    path = shared / "mnre" / f"{name}.txt"
    result = command("convert", path, "-o", tmp_path, "--split", split, "--tokenizer", "whitespace")
    assert result.exit_code == 0, result.output
    docs = list(read_docs(tmp_path / f"{split}.spacy", spacy.blank("en").vocab))
    assert len(docs) == posts
    judged = Counter(
        (doc.text, head.text, tail.text) for doc in docs for head, tail in get_pairs(doc) or []
    )
    source = [ast.literal_eval(line) for line in path.read_text("utf-8").splitlines()]
    assert len(source) == rows
    wanted = Counter((" ".join(row["token"]), row["h"]["name"], row["t"]["name"]) for row in source)
    assert not judged - wanted
    assert (wanted - judged).total() == nested
    assert f"which entities of a Doc cannot: {nested}" in result.output
    assert sum(len(doc._.mmcot_rel) for doc in docs) == relations


def test_low_resource_relations(command: Command, shared: Path, tmp_path: Path) -> None:
    folder, answers = shared / "mnre", tmp_path / "answers.jsonl"
    result = command(
        *("convert", folder / "train.txt", "-o", tmp_path, "--tokenizer", "whitespace"),
        *("--labelled", folder / "low_resource.json", "--knowledge", folder / "knowledge.jsonl"),
        *("--keep-mentions", "--answers-out", answers),
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"train\s+749\s+1547\s+794\s+288\b", result.output)
    assert re.search(r"unlabelled\s+1440\s+3038\s+1591\s+0\b", result.output)
    found = [Answers.model_validate_json(line) for line in answers.open(encoding="utf-8")]
    assert len(found) == 749 + 1440
    # Of the 4,585 mentions that the 2,385 rows name.
    assert sum(len(known.noun or []) for known in found) > 0.98 * 4585

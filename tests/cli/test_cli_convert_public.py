"""Counts on the public benchmarks: nothing in the files gets lost on the way to a DocBin."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from click.testing import Result

from spacy_mmcot.corpus.docbin import read_docs
from spacy_mmcot.corpus.extensions import get_pairs

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


@pytest.mark.parametrize(
    ("name", "split", "rows", "nested", "relations"),
    [
        pytest.param("train", "train", 12247, 59, 4472, marks=pytest.mark.slow),
        ("valid", "dev", 1624, 3, 623),
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
    relations: int,
) -> None:
    path = shared / "mnre" / f"{name}.txt"
    result = command("convert", path, "-o", tmp_path, "--split", split, "--tokenizer", "whitespace")
    assert result.exit_code == 0, result.output
    docs = list(read_docs(tmp_path / f"{split}.spacy", spacy.blank("en").vocab))
    assert len(docs) == rows - nested
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

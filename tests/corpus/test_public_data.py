"""Counts on the public benchmarks: nothing in the files gets lost on the way to a DocBin."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from click.testing import Result

from spacy_mmcot.corpus.docbin import read_docs

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

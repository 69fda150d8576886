"""Parts of a corpus: so much of it labelled, one domain of it, under other labels."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import spacy
from click.testing import Result
from spacy.tokens import Doc

from spacy_mmcot.corpus.docbin import read_docs
from spacy_mmcot.types import ID_KEY

Command = Callable[..., Result]


@pytest.fixture
def posts(jsonl: Callable[..., Path]) -> Path:
    def post(number: int, split: str, domain: str) -> dict[str, Any]:
        entity = {"start": 0, "end": 4, "label": "PER" if number % 2 else "OTHER"}
        text = f"Anna says {number}"
        return {
            **{"id": str(number), "text": text, "entities": [entity]},
            **{"split": split, "domain": domain},
        }

    train = [post(i, "train", "places" if i < 10 else "sports") for i in range(20)]
    return jsonl("posts.jsonl", *train, post(20, "unlabelled", "places"), post(21, "dev", "sports"))


@pytest.fixture
def convert(command: Command, posts: Path, tmp_path: Path) -> Callable[..., dict[str, list[Doc]]]:
    """The Docs of each split that `convert` writes."""

    def run(*options: object) -> dict[str, list[Doc]]:
        folder = tmp_path / "_".join(map(str, options)).replace("/", "_")[-60:]
        done = command("convert", posts, "-o", folder, *options)
        assert done.exit_code == 0, done.output
        vocab = spacy.blank("en").vocab
        return {path.stem: list(read_docs(path, vocab)) for path in folder.iterdir()}

    return run


def ids(docs: list[Doc]) -> set[str]:
    return {doc.user_data[ID_KEY] for doc in docs}


def test_parts_lie_in_one_another(convert: Callable[..., dict[str, list[Doc]]]) -> None:
    parts = [convert("--fraction", f) for f in (0.05, 0.1, 0.5, 1.0)]
    assert [len(part["train"]) for part in parts] == [1, 2, 10, 20]
    for small, large in pairwise(parts):
        assert ids(small["train"]) < ids(large["train"])
    for part in parts:
        labelled, rest = ids(part["train"]), ids(part["unlabelled"])
        assert not labelled & rest and len(labelled | rest) == 21
        assert "20" in rest and ids(part["dev"]) == {"21"}
        assert not any(doc.has_annotation("ENT_IOB") for doc in part["unlabelled"])
        assert all(doc.ents for doc in part["train"])


def test_the_draw_hangs_on_its_seed(convert: Callable[..., dict[str, list[Doc]]]) -> None:
    first = ids(convert("--fraction", 0.5)["train"])
    assert ids(convert("--fraction", 0.5, "--seed", 1)["train"]) == first
    assert ids(convert("--fraction", 0.5, "--seed", 2)["train"]) != first


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, "nan"])
def test_what_is_no_fraction(fraction: object, command: Command, posts: Path) -> None:
    done = command("convert", posts, "-o", posts.parent / "out", "--fraction", fraction)
    assert done.exit_code == 2
    assert done.stderr.startswith("✘ [E714] ") and len(done.stderr.splitlines()) == 1


def test_domains(convert: Callable[..., dict[str, list[Doc]]]) -> None:
    found = convert("--domain", "places")
    assert {name: len(docs) for name, docs in found.items()} == {"train": 10, "unlabelled": 1}
    found = convert("--domain", "places", "--domain", "sports")
    assert sum(map(len, found.values())) == 22


def test_an_unknown_domain(command: Command, posts: Path) -> None:
    done = command("convert", posts, "-o", posts.parent / "out", "--domain", "music")
    assert done.exit_code == 2
    assert "[E716]" in done.stderr and "places, sports" in done.stderr


def test_labels_under_other_names(convert: Callable[..., dict[str, list[Doc]]]) -> None:
    found = convert("--rename-label", "OTHER=MISC")
    labels = [ent.label_ for doc in found["train"] for ent in doc.ents]
    assert sorted(labels) == ["MISC"] * 10 + ["PER"] * 10


@pytest.mark.parametrize(
    ("renaming", "code", "status"),
    [
        (["OTHER"], "E715", 2),
        (["=MISC"], "E715", 2),
        (["OTHER="], "E715", 2),
        (["OTHER=A", "OTHER=B"], "E715", 2),
        (["OHTER=MISC"], "E207", 1),
    ],
)
def test_what_cannot_be_renamed(
    renaming: list[str], code: str, status: int, command: Command, posts: Path
) -> None:
    options = [word for text in renaming for word in ("--rename-label", text)]
    done = command("convert", posts, "-o", posts.parent / "out", *options)
    assert done.exit_code == status
    assert done.stderr.startswith(f"✘ [{code}] ") and len(done.stderr.splitlines()) == 1

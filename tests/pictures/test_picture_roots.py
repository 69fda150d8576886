"""Which files a picture's path reaches."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import spacy
from click.testing import Result
from pictures.odd_pictures import encoded, noise
from spacy.tokens import DocBin

from spacy_mmcot.pictures.read import (
    BadPicture,
    PicturePolicy,
    check_roots,
    find_picture,
    make_local_policy,
    read_picture,
)
from spacy_mmcot.types import IMAGE_KEY

SECRET = encoded(noise(31, 17), "PNG")
OPEN = encoded(noise(8, 8), "PNG")


@contextmanager
def swapping(place: Path, folder: Path, link: Path) -> Iterator[None]:
    """Put a folder and a link in the same place by turns, as fast as possible."""
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for mine in (link, folder):
                os.rename(mine, place)
                os.rename(place, mine)

    thread = threading.Thread(target=swap)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.mark.parametrize("depth", [0, 2])
def test_a_folder_that_becomes_a_link_is_not_followed(tmp_path: Path, depth: int) -> None:
    root, secret, own = tmp_path / "root", tmp_path / "secret", tmp_path / "own"
    below = Path(*"ab"[:depth])
    for folder, content in ((secret, SECRET), (own, OPEN)):
        (folder / below).mkdir(parents=True)
        (folder / below / "x.png").write_bytes(content)
    root.mkdir()
    (tmp_path / "link").symlink_to(secret)
    policy, seen = PicturePolicy(root=str(root)), set()
    with swapping(root / "sub", own, tmp_path / "link"):
        for _ in range(3000):
            try:
                seen.add(read_picture(str(root / "sub" / below / "x.png"), policy))
            except BadPicture as problem:
                assert "secret" not in str(problem)
    assert SECRET not in seen


def test_links_inside_a_root_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x.png").write_bytes(OPEN)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "root").symlink_to(tmp_path)
    policy = PicturePolicy(root=str(tmp_path / "root"))
    assert read_picture(str(tmp_path / "link" / "x.png"), policy) == OPEN


@pytest.mark.parametrize("root", [[], [""], [1], "", 5])
def test_roots_are_folders(root: object) -> None:
    with pytest.raises(ValueError, match="root is"):
        PicturePolicy(root=root)  # type: ignore[arg-type]


def test_several_roots(tmp_path: Path) -> None:
    policy = PicturePolicy(root=[str(tmp_path / "a"), str(tmp_path / "b")])
    assert check_roots(str(tmp_path / "b" / "x.png"), policy)[0] == tmp_path / "b"
    with pytest.raises(BadPicture, match=r"outside the folder '.*/a' or '.*/b'"):
        check_roots(str(tmp_path / "c" / "x.png"), policy)


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a corpus with a picture, beside the working directory and a private picture."""
    for name in ("corpus", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "private.png").write_bytes(SECRET)
    (tmp_path / "corpus" / "x.png").write_bytes(OPEN)
    (tmp_path / "work" / "y.png").write_bytes(OPEN)
    (tmp_path / "corpus" / "link.png").symlink_to(tmp_path / "private.png")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "corpus"


def outside(corpus: Path) -> list[str]:
    private = corpus.parent / "private.png"
    return ["../private.png", "x/../../private.png", str(private), "link.png"]


def test_no_llm_sees_what_lies_outside_the_corpus(corpus: Path) -> None:
    assert find_picture("x.png", corpus) is not None
    for name in outside(corpus):
        assert find_picture(name, corpus) is None


def test_no_report_shows_what_lies_outside(
    corpus: Path, tmp_path: Path, command: Callable[..., Result]
) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler")
    nlp.to_disk(tmp_path / "model")
    docs = DocBin(store_user_data=True)
    for name in ["x.png", *outside(corpus)]:
        doc = nlp.make_doc("Anna sings")
        doc.set_ents([])
        doc.user_data[IMAGE_KEY] = str(corpus / name)
        docs.add(doc)
    docs.to_disk(corpus / "data.spacy")
    page = tmp_path / "page.html"
    run = ("report", page, "--data", corpus / "data.spacy", "--pipeline", f"m={tmp_path / 'model'}")
    assert command(*run).exit_code == 0
    articles = page.read_text("utf-8").split("<article")[1:]
    assert [article.count("data:image/jpeg") for article in articles] == [1, 0, 0, 0, 0]
    assert ["lies outside the folder" in article for article in articles] == [False] + [True] * 4


def test_a_local_policy_knows_the_folder_and_the_working_directory(corpus: Path) -> None:
    policy = make_local_policy(corpus)
    assert [Path(root).resolve() for root in policy.roots] == [corpus, corpus.parent / "work"]

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from spacy.language import Language

import spacy_mmcot
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import ID_KEY, Entity, Post

TEXT = "Anna sings in Oslo"


def test_posts_rows_and_pairs_become_docs(nlp: Language) -> None:
    post = Post(id="p", text=TEXT, image="a.png", entities=[Entity(start=0, end=4, label="PER")])
    row = {"id": 7, "text": "Ben paints", "image": Path("b") / "c.png", "more": object()}
    docs = list(spacy_mmcot.attach(nlp, [post, row, ("Lagos wins", b"data"), ["Oslo", None]]))
    assert [doc.text for doc in docs] == [TEXT, "Ben paints", "Lagos wins", "Oslo"]
    images = [doc._.mmcot_image for doc in docs]
    assert images == ["a.png", str(Path("b") / "c.png"), b"data", None]
    assert [doc.user_data.get(ID_KEY) for doc in docs] == ["p", "7", None, None]
    assert [len(doc) for doc in docs] == [4, 2, 2, 1]
    assert not docs[0].ents and not docs[0].has_annotation("ENT_IOB")


def test_keys_can_be_named(nlp: Language) -> None:
    row = {"tweet": TEXT, "photo": "a.png", "tweet_id": "t1", "text": "no", "image": "no"}
    (doc,) = spacy_mmcot.attach(nlp, [row], text="tweet", image="photo", id="tweet_id")
    assert (doc.text, doc._.mmcot_image, doc.user_data[ID_KEY]) == (TEXT, "a.png", "t1")


@pytest.mark.parametrize("null", [None, "", float("nan")])
def test_null_is_no_picture_and_no_id(nlp: Language, null: Any) -> None:
    (doc,) = spacy_mmcot.attach(nlp, [{"text": TEXT, "image": null, "id": null}])
    assert doc._.mmcot_image is None
    assert not doc.user_data


def test_pictures_may_be_pil_images(nlp: Language) -> None:
    image = PIL.Image.new("RGB", (3, 2), (200, 100, 50))
    (doc,) = spacy_mmcot.attach(nlp, [(TEXT, image)])
    kept = PIL.Image.open(io.BytesIO(doc._.mmcot_image))
    assert (kept.format, kept.tobytes()) == ("PNG", image.tobytes())


def test_records_are_read_as_docs_are_taken(nlp: Language) -> None:
    read = []

    def endless() -> Iterator[tuple[str, str]]:
        for i in itertools.count():
            read.append(i)
            yield f"post {i}", f"{i}.png"

    docs = spacy_mmcot.attach(nlp, endless())
    assert not read
    assert [doc._.mmcot_image for doc in itertools.islice(docs, 3)] == ["0.png", "1.png", "2.png"]
    assert len(read) == 3


@pytest.mark.parametrize("n_process", [1, 2])
def test_pipelines_take_what_is_attached(nlp: Language, n_process: int) -> None:
    rows = [{"id": str(i), "text": f"post {i}", "image": b"%d" % i} for i in range(5)]
    docs = list(nlp.pipe(spacy_mmcot.attach(nlp, rows), n_process=n_process, batch_size=2))
    assert [doc.text for doc in docs] == [row["text"] for row in rows]
    assert [doc._.mmcot_image for doc in docs] == [row["image"] for row in rows]
    assert [doc.user_data[ID_KEY] for doc in docs] == [row["id"] for row in rows]


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ("a text alone", "received 'a text alone' (str)"),
        (None, "received None (NoneType)"),
        (("a", "b", "c"), "received ('a', 'b', 'c') (tuple)"),
        ({}, "the dict has no key 'text' for the text, its keys are none"),
        ({"tweet": TEXT, 3: 4}, "no key 'text' for the text, its keys are 'tweet', 3"),
        ({"text": None}, "the text is None (NoneType)"),
        ((b"bytes", None), "the text is b'bytes' (bytes)"),
        ({"text": TEXT, "image": 7}, "the picture is 7 (int)"),
        ({"text": TEXT, "image": ["a.png"]}, "the picture is ['a.png'] (list)"),
        ((TEXT, PIL.Image.new("RGB", (0, 1))), "the picture is a PIL image that cannot be stored"),
        ({"text": TEXT, "id": 1.5}, "the id is 1.5 (float)"),
        ({"text": TEXT, "id": True}, "the id is True (bool)"),
        ({"text": "a\ud83d b"}, "character 2 of the text is one half of a surrogate pair"),
        ({"text": TEXT, "id": "\udc80"}, "character 1 of the id is one half"),
        ({"text": TEXT, "image": "x\udcff.png"}, "character 2 of the picture's path is one half"),
    ],
)
def test_a_bad_record_is_named(nlp: Language, record: Any, problem: str) -> None:
    docs = spacy_mmcot.attach(nlp, [(TEXT, None), record])
    assert next(docs).text == TEXT
    with pytest.raises(MMCoTError) as caught:
        next(docs)
    message = str(caught.value)
    assert "[E210] spacy_mmcot.attach, record 2: " in message
    assert problem in message
    assert "with the arguments text, image and id" in message


def test_named_keys_are_the_ones_in_the_message(nlp: Language) -> None:
    with pytest.raises(MMCoTError, match="a dict with the keys 'tweet', 'photo', 'key'"):
        next(spacy_mmcot.attach(nlp, [{"text": TEXT}], text="tweet", image="photo", id="key"))


def test_what_cannot_be_gone_through_is_refused(nlp: Language) -> None:
    with pytest.raises(MMCoTError, match=r"\[E212\].* records is 5 \(int\)"):
        next(spacy_mmcot.attach(nlp, 5))  # type: ignore[arg-type]


def test_texts_longer_than_the_tokenizer_takes_are_refused(nlp: Language) -> None:
    with pytest.raises(MMCoTError, match=r"\[E206\].*record 1: the text has 1000001 characters"):
        next(spacy_mmcot.attach(nlp, [("x" * 1_000_001, None)]))


def test_the_others_go_on(nlp: Language) -> None:
    records = [("one", None), ("\udfff", None), 7, ("x" * 1_000_001, None), ("two", None)]
    refused: dict[int, str] = {}
    docs = spacy_mmcot.attach(
        nlp, records, on_error=lambda n, error: refused.update({n: str(error)})
    )
    assert [doc.text for doc in nlp.pipe(docs)] == ["one", "two"]
    assert [message[:6] for message in refused.values()] == ["[E210]", "[E210]", "[E206]"]
    assert list(refused) == [2, 3, 4]


def test_the_demo_corpus_is_attached(nlp: Language, demo: Path) -> None:
    lines = (demo / "posts.jsonl").read_text("utf-8").splitlines()
    posts = [Post.model_validate_json(line) for line in lines]
    docs = list(spacy_mmcot.attach(nlp, posts))
    assert [doc.text for doc in docs] == [post.text for post in posts]
    assert [doc._.mmcot_image for doc in docs] == [post.image for post in posts]
    assert sum(doc._.mmcot_image is not None for doc in docs) > 200


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = (
        "import sys, spacy_mmcot\n"
        "print(sorted({'spacy', 'torch', 'PIL', 'pydantic', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    assert spacy_mmcot.attach.__module__ == "spacy_mmcot.corpus.docs"
    assert not hasattr(spacy_mmcot, "detach")

from __future__ import annotations

import io
from pathlib import Path

import PIL.Image
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin

from spacy_mmcot.corpus.extensions import register_extensions
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import IMAGE_KEY, KNOWLEDGE_KEY, Relation

KNOWLEDGE = {
    "noun": [{"mention": "Anna", "kind": "person", "explanation": "a singer"}],
    "sentence": "Anna sings — 🎤",
    "caption": "a stage",
}


@pytest.fixture
def doc(nlp: Language) -> Doc:
    register_extensions()
    doc = nlp("Anna sings in New York")
    doc.set_ents([doc.char_span(0, 4, "PER"), doc.char_span(14, 22, "LOC")])
    doc._.mmcot_image = "images/1.png"
    doc._.mmcot_knowledge = KNOWLEDGE
    doc._.mmcot_rel = [Relation(doc.ents[0], doc.ents[1], "/per/loc/in", 0.75)]
    doc.ents[1]._.mmcot_score = 0.5
    return doc


def assert_complete(doc: Doc) -> None:
    assert doc._.mmcot_image == "images/1.png"
    knowledge = doc._.mmcot_knowledge
    assert {**knowledge, "noun": list(knowledge["noun"])} == KNOWLEDGE
    (relation,) = doc._.mmcot_rel
    assert relation == Relation(doc.ents[0], doc.ents[1], "/per/loc/in", 0.75)
    assert (relation.head.label_, relation.tail.label_) == ("PER", "LOC")
    assert [ent._.mmcot_score for ent in doc.ents] == [None, 0.5]


def test_defaults(nlp: Language) -> None:
    register_extensions()
    register_extensions()
    doc = nlp("Anna")
    assert doc._.mmcot_image is None
    assert doc._.mmcot_knowledge is None
    assert doc._.mmcot_rel == ()
    assert doc[0:1]._.mmcot_score is None
    assert not doc.user_data


def test_values_lie_under_the_keys_that_other_layers_read(doc: Doc) -> None:
    assert doc.user_data[KNOWLEDGE_KEY] is KNOWLEDGE
    assert doc.user_data[IMAGE_KEY] == "images/1.png"


def test_bytes_carry_everything(nlp: Language, doc: Doc) -> None:
    assert_complete(Doc(nlp.vocab).from_bytes(doc.to_bytes()))


def test_docbin_carries_everything(doc: Doc) -> None:
    data = DocBin(docs=[doc], store_user_data=True).to_bytes()
    (loaded,) = DocBin().from_bytes(data).get_docs(spacy.blank("en").vocab)
    assert_complete(loaded)


def test_processes_carry_everything(nlp: Language, doc: Doc) -> None:
    docs = list(nlp.pipe([doc, doc], n_process=2, batch_size=1))
    assert len(docs) == 2
    for found in docs:
        assert_complete(found)


def test_a_picture_may_be_bytes(nlp: Language, doc: Doc) -> None:
    doc._.mmcot_image = b"\x89PNG\x00"
    assert Doc(nlp.vocab).from_bytes(doc.to_bytes())._.mmcot_image == b"\x89PNG\x00"


def test_relations_outlive_a_retokenisation(doc: Doc) -> None:
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[3:5])
    (relation,) = doc._.mmcot_rel
    assert [span.text for span in relation[:2]] == ["Anna", "New York"]


def test_relations_between_spans_that_are_no_entities(doc: Doc) -> None:
    doc._.mmcot_rel = [Relation(doc[1:2], doc[3:4], "x", 1.0)]
    (relation,) = doc._.mmcot_rel
    assert [span.text for span in relation[:2]] == ["sings", "New"]
    doc._.mmcot_rel = ()
    assert doc._.mmcot_rel == ()


def test_spans_of_another_doc_are_refused(nlp: Language, doc: Doc) -> None:
    other = nlp("Bob in Rome")
    with pytest.raises(MMCoTError, match="belongs to another Doc"):
        doc._.mmcot_rel = [Relation(doc[0:1], other[0:1], "x", 1.0)]
    assert len(doc._.mmcot_rel) == 1


@pytest.mark.parametrize(
    ("image", "stored"),
    [
        ("a b/ä.png", "a b/ä.png"),
        (Path("images") / "1.png", str(Path("images") / "1.png")),
        ("https://example.org/1.png", "https://example.org/1.png"),
        (b"data", b"data"),
        (bytearray(b"data"), b"data"),
        (memoryview(b"-data-")[1:5], b"data"),
    ],
)
def test_pictures_are_stored_plain(nlp: Language, image: object, stored: object) -> None:
    register_extensions()
    doc = nlp("Anna")
    doc._.mmcot_image = image
    assert type(doc.user_data[IMAGE_KEY]) is type(stored)
    assert doc._.mmcot_image == stored
    assert Doc(nlp.vocab).from_bytes(doc.to_bytes())._.mmcot_image == stored
    doc._.mmcot_image = None
    assert doc._.mmcot_image is None and IMAGE_KEY not in doc.user_data


def test_a_pil_image_is_carried_everywhere(nlp: Language) -> None:
    register_extensions()
    image = PIL.Image.effect_noise((20, 10), 80)
    doc = nlp("Anna")
    doc._.mmcot_image = image
    data = DocBin(docs=[doc], store_user_data=True).to_bytes()
    (loaded,) = DocBin().from_bytes(data).get_docs(spacy.blank("en").vocab)
    carried = [*nlp.pipe([doc, doc], n_process=2, batch_size=1), loaded]
    for found in carried:
        kept = PIL.Image.open(io.BytesIO(found._.mmcot_image))
        assert (kept.mode, kept.size, kept.tobytes()) == ("L", (20, 10), image.tobytes())


@pytest.mark.parametrize("image", [7, 1.5, ["a.png"], {"path": "a.png"}, object()])
def test_what_is_no_picture_is_refused(nlp: Language, image: object) -> None:
    register_extensions()
    doc = nlp("Anna")
    doc._.mmcot_image = "a.png"
    with pytest.raises(MMCoTError, match=r"\[E209\].*cannot be set: the picture is .*Allowed: a"):
        doc._.mmcot_image = image
    assert doc._.mmcot_image == "a.png"

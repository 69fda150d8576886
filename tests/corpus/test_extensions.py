from __future__ import annotations

import io
import json
from pathlib import Path

import PIL.Image
import pytest
import spacy
import srsly
from spacy.language import Language
from spacy.tokens import Doc, DocBin

from spacy_mmcot.corpus.extensions import (
    get_pairs,
    list_relations,
    register_extensions,
    set_pairs,
    set_relations,
)
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


def test_a_relation_whose_mention_became_part_of_a_token_is_left_out(doc: Doc) -> None:
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[2:5])
    assert doc._.mmcot_rel == ()


def test_a_part_keeps_the_relations_inside_it(doc: Doc) -> None:
    inside = doc[0:5].as_doc(copy_user_data=True)
    (relation,) = inside._.mmcot_rel
    assert [span.text for span in relation[:2]] == ["Anna", "New York"]
    for part in (doc[1:5], doc[0:4], doc[3:4]):
        copy = part.as_doc(copy_user_data=True)
        assert copy._.mmcot_rel == () and list_relations(copy) == []
    assert doc[1:5].as_doc(copy_user_data=True).ents[0]._.mmcot_score == 0.5
    assert doc[0:5].as_doc(copy_user_data=True)._.mmcot_confidence is None
    assert list_relations(doc[0:5].as_doc()) is None


def test_a_part_from_the_middle(nlp: Language) -> None:
    doc = nlp("Yesterday Carla met Dmitri in Rome and Rome met Carla")
    spans = [doc.char_span(10, 15, "PER"), doc.char_span(20, 26, "PER"), doc.char_span(30, 34, "L")]
    doc.set_ents(spans)
    set_relations(doc, [Relation(spans[0], spans[1], "met", 0.5), Relation(*spans[1:], "in", 1.0)])
    set_pairs(doc, [(spans[0], spans[1]), (spans[0], spans[2])])
    part = doc[1:6].as_doc(copy_user_data=True)
    assert part.text.strip() == "Carla met Dmitri in Rome"
    found = [(r.head.text, r.label, r.tail.text) for r in part._.mmcot_rel]
    assert found == [("Carla", "met", "Dmitri"), ("Dmitri", "in", "Rome")]
    assert [(h.text, t.text) for h, t in get_pairs(part) or ()] == [
        ("Carla", "Dmitri"),
        ("Carla", "Rome"),
        ("Dmitri", "Rome"),
    ]
    again = part[2:5].as_doc(copy_user_data=True)
    assert [(r.head.text, r.label) for r in again._.mmcot_rel] == [("Dmitri", "in")]


def test_user_data_of_another_text_gives_nothing(nlp: Language, doc: Doc) -> None:
    set_pairs(doc, [(doc.ents[1], doc.ents[0])])
    for text in ("Bert sings in New York", "Anna", "", "Well, Anna sings in New York"):
        other = nlp(text)
        other.user_data.update(doc.user_data)
        assert other._.mmcot_rel == ()
        # In a shorter text it may be the data of a whole of which this is a part.
        assert get_pairs(other) == (None if len(text) > 20 else [])
        assert list_relations(other) == (None if len(text) > 20 else [])


def test_joined_docs_keep_their_relations(nlp: Language, doc: Doc) -> None:
    other = nlp("Bo sings in Rome.")
    other.set_ents([other[0:1]])
    set_relations(other, [Relation(other[0:1], other[3:4], "x", 0.5)])
    with pytest.warns(UserWarning, match="W10"):
        joined = Doc.from_docs([doc, other, doc])
    found = [(r.head.start, r.label, r.tail.text) for r in joined._.mmcot_rel]
    assert found == [
        (0, "/per/loc/in", "New York"),
        (5, "x", "Rome"),
        (10, "/per/loc/in", "New York"),
    ]
    # Nobody has judged a pair of mentions of two Docs.
    pairs = [(head.start, tail.start) for head, tail in get_pairs(joined) or ()]
    assert pairs == [(0, 3), (3, 0), (10, 13), (13, 10), (5, 8)]
    assert_complete(doc.copy())
    with pytest.warns(UserWarning, match="W10"):
        half = Doc.from_docs([doc, nlp("Bo met Eve"), nlp(" ")])
    half.set_ents([*half.ents, half[5:6], half[7:8]])
    assert [(head.start, tail.start) for head, tail in get_pairs(half) or ()] == [(0, 3), (3, 0)]


def test_json_carries_relations(nlp: Language, doc: Doc) -> None:
    data = json.loads(json.dumps(doc.to_json(underscore=["mmcot_relations", "mmcot_score"])))
    loaded = Doc(nlp.vocab).from_json(data)
    (relation,) = loaded._.mmcot_rel
    assert (relation.head, relation.label, relation.score) == (loaded.ents[0], "/per/loc/in", 0.75)
    assert loaded.ents[1]._.mmcot_score == 0.5


def test_relations_between_spans_that_are_no_entities(doc: Doc) -> None:
    doc._.mmcot_rel = [Relation(doc[1:2], doc[3:4], "x", 1.0)]
    (relation,) = doc._.mmcot_rel
    assert [span.text for span in relation[:2]] == ["sings", "New"]
    doc._.mmcot_rel = ()
    assert doc._.mmcot_rel == ()


@pytest.mark.parametrize("value", [5, "x", [("a", "b", "c")], [(1, 2, "x", 1.0)]])
def test_what_is_no_list_of_relations_is_refused(doc: Doc, value: object) -> None:
    with pytest.raises(MMCoTError, match=r"E208.+head, tail, label"):
        doc._.mmcot_rel = value
    assert len(doc._.mmcot_rel) == 1
    doc._.mmcot_rel = None
    assert doc._.mmcot_rel == () and list_relations(doc) is None


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


def test_relations_themselves_go_through_json(nlp: Language, doc: Doc) -> None:
    data = doc.to_json(underscore=["mmcot_rel", "mmcot_knowledge", "mmcot_confidence"])
    data = srsly.json_loads(srsly.json_dumps(data))
    assert data["_"]["mmcot_rel"] == [[[0, 4], [14, 22], "/per/loc/in", 0.75]]
    loaded = Doc(nlp.vocab).from_json(data)
    (relation,) = loaded._.mmcot_rel
    assert relation == Relation(loaded.ents[0], loaded.ents[1], "/per/loc/in", 0.75)


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

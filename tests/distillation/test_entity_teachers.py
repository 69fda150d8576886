from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy
import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_mmcot import teach
from spacy_mmcot.distillation.entity_teachers import (
    DEFAULT_SCORE,
    GlinerTeacher,
    read_label_table,
)
from spacy_mmcot.distillation.soft_labels import get_soft_labels, get_soft_tags
from spacy_mmcot.errors import MMCoTError

TABLE = {"PERSON": "PER", "GPE": "LOC", "CITY": "LOC"}
TAGS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
PATTERNS = [
    {"label": "PERSON", "pattern": "Ada Berg"},
    {"label": "CITY", "pattern": "Oslo"},
    {"label": "ORG", "pattern": "Acme"},
]
TEXTS = ["Ada Berg left Oslo with Acme", "", " ", "nobody"]


def ruler_pipeline() -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns(PATTERNS)  # type: ignore[attr-defined]
    return nlp


def make_docs(*texts: str) -> list[Doc]:
    """Docs on a vocab of their own."""
    return list(map(spacy.blank("en").make_doc, texts))


def soft(doc: Doc) -> numpy.ndarray:
    found = get_soft_labels(doc, TAGS)
    assert found is not None
    return found


def test_entities_of_a_stock_pipeline() -> None:
    dropped: Counter[str] = Counter()
    given = make_docs(*TEXTS)
    docs = list(teach(ruler_pipeline(), given, labels=TABLE, dropped=dropped))
    assert all(doc is old for doc, old in zip(docs, given, strict=True))
    assert [len(soft(doc)) for doc in docs] == [6, 0, 1, 1]
    assert all(get_soft_tags(doc) == TAGS for doc in docs)
    expected = numpy.zeros((6, 5))
    for token, tag in enumerate([3, 4, 0, 1, 0, 0]):
        expected[token, 0] = 1 - DEFAULT_SCORE
        expected[token, tag] = DEFAULT_SCORE if tag else 1.0
    numpy.testing.assert_allclose(soft(docs[0]), expected, atol=1e-3)
    assert dropped == {"ORG": 1}
    assert not docs[0].ents
    assert not docs[0].has_annotation("ENT_IOB")


def test_gold_entities_stay_and_are_not_seen() -> None:
    (doc,) = make_docs(TEXTS[0])
    doc.set_ents([doc.char_span(0, 3, "X")], default="outside")
    (taught,) = teach(ruler_pipeline(), [doc], labels=TABLE)
    assert [(ent.text, ent.label_) for ent in taught.ents] == [("Ada", "X")]
    assert soft(taught)[0, 3] == pytest.approx(DEFAULT_SCORE, abs=1e-3)


def test_scores_of_entities() -> None:
    @Language.component("score_entities")
    def score_entities(doc: Doc) -> Doc:
        for ent in doc.ents:
            ent._.mmcot_score = 0.6
        return doc

    nlp = ruler_pipeline()
    nlp.add_pipe("score_entities")
    (doc,) = teach(nlp, make_docs(TEXTS[0]), labels=TABLE)
    assert soft(doc)[[0, 1, 3], [3, 4, 1]] == pytest.approx([0.6] * 3, abs=1e-3)


def test_the_mean_of_several_teachers_with_vocabs_of_their_own() -> None:
    other = spacy.blank("en")
    other.add_pipe("entity_ruler").add_patterns(PATTERNS[1:])  # type: ignore[attr-defined]
    (doc,) = teach([ruler_pipeline(), other], make_docs(TEXTS[0]), labels=TABLE)
    found = soft(doc)
    assert found[0, 3] == pytest.approx(DEFAULT_SCORE / 2, abs=1e-3)
    assert found[3, 1] == pytest.approx(DEFAULT_SCORE, abs=1e-3)


def test_tables_and_pipelines_that_do_not_fit() -> None:
    with pytest.raises(MMCoTError, match=r"E510.*'NAME'.*CITY.*ORG.*PERSON"):
        list(teach(ruler_pipeline(), make_docs("x"), labels={"NAME": "PER"}))
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    with pytest.raises(MMCoTError, match=r"E502.*sentencizer"):
        list(teach(nlp, make_docs("x"), labels=TABLE))
    with pytest.raises(MMCoTError, match=r"E502.*--map"):
        list(teach(ruler_pipeline(), make_docs("x")))


@pytest.mark.parametrize("text", ["", "- PER\n", "PERSON: [PER]\n", "PERSON:\n", "PER: 1\n"])
def test_a_table_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.yml"
    path.write_text(text, "utf-8")
    with pytest.raises(MMCoTError, match=r"E509.*their label: our label"):
        read_label_table(path)
    path.write_text("PERSON: PER\nPERSON: ORG\n", "utf-8")
    with pytest.raises(MMCoTError, match=r"E101.*line 2: found duplicate key"):
        read_label_table(path)
    with pytest.raises(MMCoTError, match="E100"):
        read_label_table(tmp_path / "missing.yml")


@pytest.fixture(scope="session")
def gliner_folder(tmp_path_factory: pytest.TempPathFactory, bert_source: str) -> Path:
    """A tiny GLiNER of random weights."""
    gliner = pytest.importorskip("gliner", reason="needs the extra `gliner`")
    config = {
        "model_name": bert_source,
        "name": "tiny",
        "span_mode": "markerV0",
        "max_width": 3,
        "max_len": 16,
        "hidden_size": 16,
    }
    folder = tmp_path_factory.mktemp("gliner") / "tiny"
    torch.manual_seed(0)
    model = gliner.GLiNER.from_config(config, backbone_from_pretrained=False)
    model.save_pretrained(folder)
    logging.getLogger("gliner").setLevel(logging.ERROR)
    return folder


def test_a_gliner_model(gliner_folder: Path) -> None:
    labels = {"person": "PER", "city": "LOC"}
    teacher = GlinerTeacher(str(gliner_folder), labels)
    texts = [*TEXTS, "Oslo and Ada Berg " * 10]
    docs = list(teach(teacher, make_docs(*texts), labels=labels, batch_size=4))
    assert [len(soft(doc)) for doc in docs] == [6, 0, 1, 1, 40]
    # Random weights call many spans an entity, also behind the first windows of a long text.
    long = soft(docs[-1])
    assert (long[:, 0] < 0.7).any() and (long[20:, 0] < 0.7).any()
    copies = [teacher_doc for teacher_doc in teacher.pipe(make_docs(*texts))]
    for doc, copy in zip(docs, copies, strict=True):
        assert (soft(doc)[:, 0] < 1).tolist() == [bool(token.ent_type) for token in copy]
        for ent in copy.ents:
            tag = TAGS.index(f"B-{labels[ent.label_]}")
            assert soft(doc)[ent.start, tag] == pytest.approx(ent._.mmcot_score, abs=2e-3)


def test_overlapping_entities_of_a_gliner_model_are_counted(gliner_folder: Path) -> None:
    labels = {"person": "PER", "city": "LOC"}
    teacher = GlinerTeacher(str(gliner_folder), labels)
    # Each token is several words of GLiNER: entities of theirs are widened to the token.
    words = ["Ada/Oslo/Berg"] * 3
    dropped: Counter[str] = Counter()
    list(teach(teacher, [Doc(Vocab(), words=words)], labels=labels, dropped=dropped))
    assert dropped and dropped.keys() <= labels.keys()


def test_a_gliner_model_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("gliner", reason="needs the extra `gliner`")
    with pytest.raises(MMCoTError, match=r"E512.*gliner:NAME"):
        GlinerTeacher(str(tmp_path), ["person"])

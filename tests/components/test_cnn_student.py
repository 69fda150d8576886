"""The shipped config of a student without a transformer: both components on one CNN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import toy
import toy_rel
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example, biluo_to_iob
from spacy.util import load_config, load_model_from_config
from thinc.api import fix_random_seed

from spacy_mmcot.distillation.soft_labels import set_soft_labels
from spacy_mmcot.errors import MMCoTError

CONFIG = Path(__file__).parents[2] / "configs" / "student_cnn.cfg"
OVERRIDES: dict[str, Any] = {
    "components.tok2vec.model.encode.width": 32,
    "components.tok2vec.model.encode.depth": 2,
    "components.tok2vec.model.embed.table_width": 8,
    "components.mmcot_ner.model.dropout": 0.0,
    "components.mmcot_rel.model.dropout": 0.0,
}


def student(source: str, *pipes: str) -> Language:
    """The config's pipeline, smaller and not initialised."""
    overrides = {
        **OVERRIDES,
        "components.tok2vec.model.embed.source": source,
        "nlp.pipeline": ["tok2vec", *pipes],
    }
    nlp = load_model_from_config(load_config(CONFIG, overrides=overrides), auto_fill=True)
    fix_random_seed(0)
    return nlp


@pytest.fixture(scope="module")
def fitted(bert_source: str) -> Language:
    """Entities and relations of the toy corpus, learned together."""
    nlp = student(bert_source, "mmcot_ner", "mmcot_rel")
    data = toy_rel.examples(nlp)
    nlp.initialize(lambda: data)
    toy.fit(nlp, data, steps=60, rate=0.01)
    return nlp


def test_both_components_learn_on_one_cnn(fitted: Language) -> None:
    scores = fitted.evaluate(toy_rel.examples(fitted))
    assert scores["ents_f"] > 0.95
    assert scores["rel_f"] > 0.9 and scores["rel_e2e_f"] > 0.85


def test_mentions_carry_probabilities(fitted: Language) -> None:
    doc = fitted("Anna was born in Oslo")
    assert [(ent.text, ent.label_) for ent in doc.ents] == [("Anna", "PER"), ("Oslo", "LOC")]
    assert all(0.5 < ent._.mmcot_score <= 1 for ent in doc.ents)
    assert [relation.label for relation in doc._.mmcot_rel] == ["born_in"]


def test_round_trip(fitted: Language, tmp_path: Path) -> None:
    texts = [example.text for example in toy_rel.examples(fitted)] + ["", "  "]
    before = list(fitted.pipe(texts))
    fitted.to_disk(tmp_path / "cnn")
    loaded = spacy.load(tmp_path / "cnn")
    for left, right in zip(before, loaded.pipe(texts, batch_size=3), strict=True):
        assert toy.found([left]) == toy.found([right])
        assert toy.scores(left) == pytest.approx(toy.scores(right), abs=1e-5)
        assert [r.label for r in left._.mmcot_rel] == [r.label for r in right._.mmcot_rel]


@Language.component("split_first")
def split_first(doc: Doc) -> Doc:
    with doc.retokenize() as retokenizer:
        word = doc[0].text
        retokenizer.split(doc[0], [word[:1], word[1:]], heads=[doc[0], doc[0]])
    return doc


def test_tokens_that_the_cnn_did_not_read_are_refused(fitted: Language, tmp_path: Path) -> None:
    fitted.to_disk(tmp_path / "cnn")
    nlp = spacy.load(tmp_path / "cnn")
    text = "New York threw Anna out"
    with nlp.select_pipes(disable="tok2vec"), pytest.raises(MMCoTError, match=r"E405\] mmcot_ner"):
        nlp(text)
    nlp.add_pipe("split_first", before="mmcot_ner")
    with pytest.raises(MMCoTError, match=r"E407\] mmcot_ner: .*'New York threw Anna out' changed"):
        nlp(text)
    nlp.remove_pipe("split_first")
    # spaCy's tok2vec is no stranger to merged tokens: each keeps a vector of its own.
    nlp.add_pipe("merge_entities", before="mmcot_rel")
    assert toy.found([nlp(text)]) == toy.found([fitted(text)])
    assert len(nlp(text)) == 4 and len(nlp("")) == 0


def test_soft_labels_alone_teach_it(bert_source: str) -> None:
    """Posts that nobody labelled: a teacher's distributions are all there is to learn from."""
    nlp = student(bert_source, "mmcot_ner")
    nlp.initialize(lambda: toy.examples(nlp))
    tags = nlp.get_pipe("mmcot_ner").tags
    data = []
    for example in toy.examples(nlp):
        named = biluo_to_iob([tag or "O" for tag in example.get_aligned_ner()])
        rows = numpy.full((len(named), len(tags)), 0.1 / (len(tags) - 1))
        rows[range(len(named)), [tags.index(tag) for tag in named]] = 0.9
        doc = nlp.make_doc(example.text)
        set_soft_labels(doc, tags, rows)
        assert not doc.has_annotation("ENT_IOB")
        data.append(Example(nlp.make_doc(example.text), doc))
    toy.fit(nlp, data, steps=60, rate=0.01)
    assert toy.found(nlp.pipe(toy.texts())) == toy.gold()

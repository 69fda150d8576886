from __future__ import annotations

from pathlib import Path

import pytest
import spacy
from spacy.cli import debug_data
from spacy.language import Language
from spacy.tokens import DocBin

from spacy_mmcot.corpus.docbin import Corpus, write_docs
from spacy_mmcot.corpus.docs import make_doc
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import (
    ID_KEY,
    KNOWLEDGE_KEY,
    PROMPT_TARGET_KEY,
    SOFT_LABELS_KEY,
    Answers,
    Entity,
    NounItem,
    Post,
    PostRelation,
)

POST = Post(
    id="a",
    text="Anna  sings in Oslo\u200b!",
    entities=[Entity(start=0, end=4, label="PER"), Entity(start=15, end=19, label="LOC")],
    relations=[PostRelation(head=0, tail=1, label="in")],
    image="images/a.png",
    caption="a stage",
)
ANSWERS = Answers(id="a", noun=[NounItem(mention="Anna", kind="person")], sentence="A concert.")


@pytest.fixture
def folder(tmp_path: Path, nlp: Language) -> Path:
    """Two files: a labelled document with all that stages add, and two unlabelled ones."""
    doc = make_doc(nlp, POST, ANSWERS)
    doc.user_data[SOFT_LABELS_KEY] = b"soft"
    doc.user_data[PROMPT_TARGET_KEY] = b"target"
    write_docs(tmp_path / "train.spacy", [doc])
    unlabelled = [
        make_doc(nlp, POST.model_copy(update={"id": name, "split": "unlabelled"}), ANSWERS)
        for name in ("b", "c")
    ]
    write_docs(tmp_path / "unlabelled.spacy", unlabelled)
    return tmp_path


def resolve(**settings: object):  # type: ignore[no-untyped-def]
    config = {"corpus": {"@readers": "spacy_mmcot.Corpus.v1", **settings}}
    return spacy.registry.resolve(config)["corpus"]


def test_predicted_has_tokens_and_knowledge_but_no_labels(nlp: Language, folder: Path) -> None:
    (example,) = resolve(path=str(folder / "train.spacy"))(nlp)
    reference, predicted = example.reference, example.predicted
    assert [t.text_with_ws for t in predicted] == [t.text_with_ws for t in reference]
    assert [e.text for e in reference.ents] == ["Anna", "Oslo"]
    assert predicted.ents == ()
    assert not predicted.has_annotation("ENT_IOB")
    assert predicted.user_data.keys() == {ID_KEY, KNOWLEDGE_KEY, PROMPT_TARGET_KEY}
    assert reference._.mmcot_image == "images/a.png"
    assert predicted._.mmcot_knowledge["caption"] == "a stage"
    assert predicted._.mmcot_rel == ()
    assert reference.user_data[SOFT_LABELS_KEY] == b"soft"
    assert [(r.head.text, r.label) for r in reference._.mmcot_rel] == [("Anna", "in")]


def test_without_knowledge(nlp: Language, folder: Path) -> None:
    (example,) = Corpus(folder / "train.spacy", knowledge=False)(nlp)
    assert example.predicted._.mmcot_knowledge is None
    assert example.reference._.mmcot_knowledge is not None


def test_unlabelled_documents_have_missing_entities(nlp: Language, folder: Path) -> None:
    for example in Corpus(folder / "unlabelled.spacy")(nlp):
        assert not example.reference.has_annotation("ENT_IOB")
        assert set(example.get_aligned_ner()) == {None}
        assert example.predicted._.mmcot_knowledge is not None


def test_a_folder_in_order_of_name_with_a_limit(nlp: Language, folder: Path) -> None:
    def ids(limit: int) -> list[str]:
        return [e.reference.user_data[ID_KEY] for e in Corpus(folder, limit=limit)(nlp)]

    assert ids(0) == ["a", "b", "c"]
    assert ids(2) == ["a", "b"]
    corpus = Corpus(str(folder))
    assert len(list(corpus(nlp))) == len(list(corpus(nlp))) == 3


def test_files_that_cannot_be_read(nlp: Language, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.spacy"
    foreign.write_bytes(b"IMGID:1\nOslo\tB-LOC\n")
    empty = tmp_path / "empty.spacy"
    empty.touch()
    none = tmp_path / "none.spacy"
    DocBin(store_user_data=True).to_disk(none)
    (tmp_path / "folder").mkdir()
    cases = {
        foreign: "not a readable .spacy file",
        empty: "the file is empty",
        none: "holds no documents",
        tmp_path / "absent.spacy": "no such file",
        tmp_path / "folder": "holds no .spacy file",
    }
    for path, message in cases.items():
        with pytest.raises(MMCoTError, match=message) as caught:
            list(Corpus(path)(nlp))
        assert str(path) in str(caught.value)


def test_a_path_may_be_set_later(nlp: Language) -> None:
    corpus = resolve(path=None)
    with pytest.raises(MMCoTError, match="has no path"):
        list(corpus(nlp))


def test_spacy_debug_data_reads_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = spacy.blank("en").config.copy()
    config["nlp"]["pipeline"] = ["ner"]
    config["components"] = {"ner": {"factory": "ner"}}
    for split in ("train", "dev"):
        config["corpora"][split] = {
            "@readers": "spacy_mmcot.Corpus.v1",
            "path": f"${{paths.{split}}}",
        }
    config.to_disk(tmp_path / "config.cfg", interpolate=False)
    train = str(folder / "train.spacy")
    overrides = {"paths.train": train, "paths.dev": train}
    # It exits with 1 where there are too few labelled docs for a label, as here.
    with pytest.raises(SystemExit):
        debug_data(tmp_path / "config.cfg", config_overrides=overrides, silent=False)
    assert "1 training docs" in capsys.readouterr().out

"""What the Corpus reader shows of the docs' pictures."""

from __future__ import annotations

import io
from pathlib import Path

import PIL.Image
import pytest
import spacy
from spacy.cli import fill_config
from spacy.language import Language
from spacy.tokens import Doc
from thinc.api import ConfigValidationError

from spacy_mmcot.corpus.docbin import Corpus, write_docs
from spacy_mmcot.corpus.extensions import register_extensions
from spacy_mmcot.errors import MMCoTError

Pictures = list[str | bytes | None]


def png(grey: int) -> bytes:
    encoded = io.BytesIO()
    PIL.Image.new("L", (8, 8), grey).save(encoded, "PNG")
    return encoded.getvalue()


def write(path: Path, *pictures: object) -> Path:
    """A file of docs with these pictures."""
    register_extensions()
    nlp = spacy.blank("en")
    docs = []
    for number, picture in enumerate(pictures):
        doc = nlp.make_doc(f"post {number}")
        doc._.mmcot_image = picture
        docs.append(doc)
    write_docs(path, docs)
    return path


def shown(path: Path, nlp: Language, **settings: object) -> tuple[Pictures, Pictures]:
    """The pictures of the references and those of the predicted Docs."""
    examples = list(Corpus(path, **settings)(nlp))  # type: ignore[arg-type]

    def of(docs: list[Doc]) -> Pictures:
        return [doc._.mmcot_image for doc in docs]

    return of([eg.reference for eg in examples]), of([eg.predicted for eg in examples])


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Pictures by path, by content and by address, docs without, and one picture four times under
    three names."""
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    (tmp_path / "copy.png").write_bytes(png(0))
    files = [str(tmp_path / f"{number}.png") for number in range(6)]
    return write(
        tmp_path / "mixed.spacy",
        *(*files, None, png(9), "https://example.org/a.png", str(tmp_path / "absent.png"), None),
        *(str(tmp_path / "copy.png"), png(0), files[0]),
    )


def test_none_by_default(nlp: Language, mixed: Path) -> None:
    references, predicted = shown(mixed, nlp)
    assert set(predicted) == {None}
    assert references.count(None) == 2
    assert shown(mixed, nlp, pictures="none") == (references, predicted)


def test_real(nlp: Language, mixed: Path) -> None:
    references, predicted = shown(mixed, nlp, pictures="real")
    assert predicted == references
    assert len(predicted) == 14


def test_references_keep_theirs(nlp: Language, mixed: Path) -> None:
    kept = shown(mixed, nlp)[0]
    assert shown(mixed, nlp, pictures="real")[0] == kept


def test_unknown_pictures(nlp: Language, mixed: Path) -> None:
    with pytest.raises(MMCoTError, match=r"\[E409\].*'grey'.*none, real"):
        list(Corpus(mixed, pictures="grey")(nlp))  # type: ignore[arg-type]


def test_in_a_config(nlp: Language, mixed: Path) -> None:
    def resolve(pictures: str) -> Pictures:
        settings = {"@readers": "spacy_mmcot.Corpus.v1", "path": str(mixed), "pictures": pictures}
        read = spacy.registry.resolve({"corpus": settings})["corpus"]
        return [eg.predicted._.mmcot_image for eg in read(nlp)]

    assert resolve("real") == shown(mixed, nlp, pictures="real")[1]
    with pytest.raises(ConfigValidationError, match="pictures"):
        resolve("grey")


def test_spacy_fills_the_default_in(tmp_path: Path) -> None:
    config = spacy.blank("en").config.copy()
    config["corpora"]["dev"] = {"@readers": "spacy_mmcot.Corpus.v1", "path": "${paths.dev}"}
    config.to_disk(tmp_path / "partial.cfg", interpolate=False)
    fill_config(tmp_path / "full.cfg", tmp_path / "partial.cfg")
    filled = spacy.util.load_config(tmp_path / "full.cfg")
    assert filled["corpora"]["dev"]["pictures"] == "none"

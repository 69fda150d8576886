"""The words that pictures show: read, passed to the encoder, and learned from."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import torch
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from test_vision import docs, ready
from thinc.api import fix_random_seed
from tiny import VISION, WIDTH, make_vision, module_of
from toy import fit, found, transformer_pipeline

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model import picture_input
from spacy_mmcot.model.picture_input import PictureSettings, PictureText, see_pictures
from spacy_mmcot.model.prompts import set_alignment
from spacy_mmcot.model.vision import get_patch_grid
from spacy_mmcot.pictures.read import PicturePolicy
from spacy_mmcot.types import IMAGE_KEY

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("rapidocr") is None,
    reason="rapidocr is not installed: pip install 'spacy-mmcot[pictures]'",
)
FONT = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"
TEXT = "We saw Oslo in March"
READER = {"@architectures": "spacy_mmcot.PictureText.v1"}


def sign(*lines: str, size: tuple[int, int] = (300, 120), colour: str = "navy") -> bytes:
    """A picture of a sign with these lines."""
    image = Image.new("RGB", size, colour)
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(lines):
        font = ImageFont.truetype(str(FONT), 36)
        draw.text((12, 10 + 50 * i), line, fill="white", font=font)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


MUSEUM, ARENA, EMPTY = sign("MUSEUM"), sign("ARENA"), sign()


def test_words_are_read_line_by_line() -> None:
    model = ready(PictureText())
    batch = docs(sign("Harbour", "Museum 7"), None, EMPTY, ARENA, ARENA)
    seen = model.predict(batch)
    assert seen.texts == ["Harbour Museum 7", "", "ARENA"]
    assert seen.rows == [0, -1, 1, 2, 2]
    assert seen.patches.shape == (3, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (4000, 3), (700, 20), (16, 16), (2400, 1800)])
def test_pictures_of_odd_sizes_have_no_words(size: tuple[int, int]) -> None:
    assert ready(PictureText()).predict(docs(sign(size=size))).texts == [""]


def test_bad_pictures_are_reported_once(tmp_path: Path) -> None:
    batch = docs(str(tmp_path / "none.png"), MUSEUM, b"no picture")
    with pytest.warns(UserWarning) as warned:
        seen = ready(PictureText()).predict(batch)
    assert seen.rows == [-1, 0, -1]
    assert seen.texts == ["MUSEUM"]
    assert [str(w.message).split()[6] for w in warned] == ["post-0", "post-2"]
    strict = ready(PictureText(pictures=PicturePolicy(on_bad_image="raise")))
    with pytest.raises(MMCoTError, match=r"E406.*post-0"):
        strict.predict(batch)


def test_beside_a_vision_model(tmp_path: Path) -> None:
    eye = make_vision()
    model = ready(PictureText(eye))
    batch = docs(EMPTY, str(tmp_path / "none.png"), MUSEUM, EMPTY)
    with pytest.warns(UserWarning) as warned:
        seen = model.predict(batch)
    assert len(warned) == 1
    assert seen.texts == ["", "MUSEUM"]
    assert seen.rows == [0, -1, 1, 0]
    assert torch.equal(seen.patches, eye.predict([batch[0], batch[2]]).patches)
    assert model.get_dim("nO") == WIDTH
    assert get_patch_grid(model) == (2, 2)


def test_a_picture_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str | bytes] = []
    read_words = picture_input.read_words

    def count(value: str | bytes, policy: PicturePolicy) -> str:
        read.append(value)
        return read_words(value, policy)

    monkeypatch.setattr(picture_input, "read_words", count)
    model = ready(PictureText())
    for _ in range(2):
        assert model.predict(docs(MUSEUM, ARENA, MUSEUM)).texts == ["MUSEUM", "ARENA"]
    assert read == [MUSEUM, ARENA]


@pytest.mark.parametrize("package", ["rapidocr", "onnxruntime"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else known(name)
    )
    with pytest.raises(MMCoTError, match=rf"E400.*'{package}'.*spacy-mmcot\[pictures\]"):
        PictureText().initialize()


def test_less_than_one_piece() -> None:
    with pytest.raises(MMCoTError, match=r"E409.*max_pieces.*0"):
        PictureText(max_pieces=0)


def show(nlp: Language, image: bytes | None, text: str = TEXT) -> Doc:
    doc = nlp.make_doc(text)
    if image is not None:
        doc.user_data[IMAGE_KEY] = image  # type: ignore[index]
    return doc


def reading(source: str, vision: dict[str, Any] | None = None, **settings: Any) -> Language:
    """A pipeline that has learned from pictures with words alone what Oslo is."""
    encoder = {"picture_dropout": 0.0, "picture_swap": 0.0, "vision": {**READER, **(vision or {})}}
    nlp = transformer_pipeline(source, **encoder, **settings)
    data = []
    for image, label in ((MUSEUM, "PLACE"), (ARENA, "TEAM")):
        reference = nlp.make_doc(TEXT)
        reference.set_ents([reference.char_span(7, 11, label)])
        data.append(Example(show(nlp, image), reference))
    fix_random_seed(0)
    nlp.initialize(lambda: data)
    fit(nlp, data, steps=250, rate=0.005)
    return nlp


@pytest.fixture(scope="module")
def nlp(bert_source: str) -> Language:
    return reading(bert_source)


def labels(nlp: Language, images: Sequence[bytes | None]) -> list[str]:
    batch = nlp.pipe([show(nlp, image) for image in images])
    return ["".join(label for _, _, label in ents) for ents in found(batch)]


def test_the_words_alone_decide(nlp: Language) -> None:
    # Pictures that training did not show, of the same words.
    others = [sign("Museum", colour="green"), sign("Arena", size=(400, 200))]
    assert labels(nlp, [MUSEUM, ARENA, *others]) == ["PLACE", "TEAM"] * 2


def states(doc: Doc) -> numpy.ndarray[Any, Any]:
    return doc._.trf_data.model_output.last_hidden_state


def test_no_words_are_the_text_alone(nlp: Language) -> None:
    plain, empty, shown = (states(nlp(show(nlp, image))) for image in (None, EMPTY, MUSEUM))
    numpy.testing.assert_array_equal(empty, plain)
    assert not numpy.allclose(shown, plain, atol=1e-2)


def test_others_words_change_nothing(nlp: Language) -> None:
    images = [MUSEUM, None, EMPTY, ARENA]
    texts = [TEXT, TEXT, "Oslo", "Is Oslo colder than Lagos?"]
    pairs = list(zip(images, texts, strict=True))
    for doc, (image, text) in zip(nlp.pipe(show(nlp, *p) for p in pairs), pairs, strict=True):
        alone = states(nlp(show(nlp, image, text)))
        numpy.testing.assert_allclose(states(doc)[:, : alone.shape[1]], alone, atol=1e-4)


def test_a_closed_gate_is_the_text_alone(nlp: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    shown_words = module_of(nlp).shown_words
    assert shown_words is not None
    monkeypatch.setattr(shown_words.matching.gate_bias, "data", torch.tensor([-30.0]))
    plain, shown = (states(nlp(show(nlp, image))) for image in (None, MUSEUM))
    numpy.testing.assert_allclose(shown, plain, atol=1e-5)


def test_it_is_saved(nlp: Language, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path)
    again = spacy.load(tmp_path)
    assert labels(again, [MUSEUM, ARENA]) == ["PLACE", "TEAM"]
    for image in (None, ARENA):
        before, after = (states(p(show(p, image))) for p in (nlp, again))
        numpy.testing.assert_array_equal(before, after)


def test_processes_read_too(nlp: Language) -> None:
    images = [MUSEUM, ARENA, None, MUSEUM]
    batch = [show(nlp, image) for image in images]
    several = found(nlp.pipe(batch, n_process=2, batch_size=2))
    assert several == found(nlp.pipe([show(nlp, image) for image in images]))


def test_patches_and_words_together(bert_source: str) -> None:
    nlp = reading(bert_source, {"vision": VISION}, prompt="static", prompt_length=2)
    nlp.get_pipe("transformer").set_extra_annotations = set_alignment  # type: ignore[attr-defined]
    module = module_of(nlp)
    assert module.visual is not None and module.shown_words is not None
    assert module.max_pieces == 512 - 2 - module.visual.length - 16
    assert labels(nlp, [MUSEUM, ARENA]) == ["PLACE", "TEAM"]
    assert nlp(show(nlp, EMPTY))._.mmcot_alignment.grid == (2, 2)


def test_what_fits_is_learned_and_no_more_pieces_than_asked_for(bert_source: str) -> None:
    nlp = reading(bert_source, {"max_pieces": 2}, picture_matching=5.0)
    model = nlp.get_pipe("transformer").model  # type: ignore[attr-defined]
    shown_words = module_of(nlp).shown_words
    assert shown_words is not None and shown_words.length == 2
    long, cut = (
        states(nlp(show(nlp, sign(*lines)))) for lines in (("lagos oslo", "city"), ("lagos oslo",))
    )
    numpy.testing.assert_array_equal(long, cut)
    before = {name: weight.clone() for name, weight in shown_words.named_parameters()}
    fit(nlp, [Example(show(nlp, i), nlp.make_doc(TEXT)) for i in (MUSEUM, ARENA)], 1)
    changed = {n for n, weight in shown_words.named_parameters() if not weight.equal(before[n])}
    assert {"mark", "matching.scale", "matching.picture.1.weight"} <= changed
    torch.manual_seed(1)
    batch = [show(nlp, image) for image in (MUSEUM, ARENA) * 10]
    swapped = see_pictures(model.layers[0], batch, True, PictureSettings(0.0, 1.0, 0.0))
    assert swapped is not None
    assert list(swapped.texts) == ["MUSEUM", "ARENA"]
    assert all(own != shown for own, shown in zip(swapped.own, swapped.shown, strict=True))
    hidden = see_pictures(model.layers[0], batch, True, PictureSettings(1.0, 0.0, 0.1))
    assert hidden is not None and set(hidden.shown) == {-1}

"""Pictures in the whole encoder, in spaCy's stock `transformer` component."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import torch
from numpy.typing import NDArray
from pictures.odd_pictures import ODD, PICTURE, encoded, noise
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from tiny import VISION, module_of, pipeline

from spacy_mmcot.corpus.extensions import register_extensions
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model.picture_input import PictureSettings, see_pictures
from spacy_mmcot.model.prompts import set_alignment
from spacy_mmcot.types import ID_KEY, IMAGE_KEY

TEXTS = ["Anna Berg sings in Oslo tonight.", "x", "Is Oslo colder than Lagos? Ben Okri moved."]
PICTURES = [encoded(noise(40 + i, 30), "PNG") for i in range(3)]


def seeing(source: str, policy: dict[str, Any] | None = None, **settings: Any) -> Language:
    """A pipeline that sees pictures and keeps where it looked."""
    vision = {**VISION, "pictures": {"@misc": "spacy_mmcot.Pictures.v1", **(policy or {})}}
    nlp = pipeline(source, vision=vision, **settings)
    nlp.get_pipe("transformer").set_extra_annotations = set_alignment  # type: ignore[attr-defined]
    visual = module_of(nlp).visual
    assert visual is not None
    visual.matching.gate_bias.data.fill_(9.0)
    return nlp


def with_picture(nlp: Language, text: str, image: str | bytes | None) -> Doc:
    register_extensions()
    doc = nlp.make_doc(text)
    doc.user_data[ID_KEY] = "post-7"
    if image is not None:
        doc.user_data[IMAGE_KEY] = image  # type: ignore[index]
    return doc


def states(doc: Doc) -> NDArray[Any]:
    return doc._.trf_data.model_output.last_hidden_state


def test_a_picture_changes_the_states(bert_source: str) -> None:
    nlp = seeing(bert_source)
    plain, first, second = (
        states(nlp(with_picture(nlp, TEXTS[0], image))) for image in (None, *PICTURES[:2])
    )
    assert plain.shape == first.shape
    assert not numpy.allclose(plain, first)
    assert not numpy.allclose(first, second)


def test_without_pictures_nothing_changes(bert_source: str) -> None:
    nlp = seeing(bert_source)
    blind = pipeline(bert_source)
    for text in TEXTS:
        numpy.testing.assert_array_equal(states(nlp(text)), states(blind(text)))


def test_others_pictures_change_nothing(bert_source: str) -> None:
    nlp = seeing(bert_source, prompt="conditional", prompt_length=2)
    images: list[bytes | None] = [PICTURES[0], None, PICTURES[1]]
    docs = list(nlp.pipe(with_picture(nlp, t, i) for t, i in zip(TEXTS, images, strict=True)))
    for text, image, doc in zip(TEXTS, images, docs, strict=True):
        alone = nlp(with_picture(nlp, text, image))
        own = states(alone).shape[1]  # the batch's longest doc pads the others
        numpy.testing.assert_allclose(states(doc)[:, :own], states(alone), atol=1e-4)


def test_a_closed_gate_is_the_text_alone(bert_source: str) -> None:
    nlp = seeing(bert_source)
    visual = module_of(nlp).visual
    assert visual is not None
    visual.matching.gate_bias.data.fill_(-9.0)
    doc = nlp(with_picture(nlp, TEXTS[0], PICTURES[0]))
    numpy.testing.assert_allclose(states(doc), states(nlp(TEXTS[0])), atol=1e-5)
    assert doc._.mmcot_alignment.gate < 0.01


def test_all_windows_of_a_long_doc_see_the_picture(bert_source: str) -> None:
    nlp = seeing(bert_source, max_length=20, stride=4)
    text = " ".join(TEXTS * 4)
    seen, plain = nlp(with_picture(nlp, text, PICTURES[0])), nlp(text)
    assert len(states(plain)) > 3
    changed = (numpy.abs(states(seen) - states(plain)) > 1e-4).any((1, 2))
    assert changed.all()
    assert seen._.mmcot_alignment.tokens.shape == (len(seen), 2, 2)


def test_the_alignment_is_kept_by_token(bert_source: str) -> None:
    nlp = seeing(bert_source)
    doc = nlp(with_picture(nlp, TEXTS[2], PICTURES[0]))
    alignment = doc._.mmcot_alignment
    assert alignment.grid == (2, 2)
    assert alignment.tokens.shape == (len(doc), 2, 2)
    assert 0 < alignment.gate <= 1
    sums = alignment.tokens.sum((1, 2))
    assert (sums > 0).all() and (sums <= 1.001).all()
    assert nlp(TEXTS[2])._.mmcot_alignment is None
    again = Doc(nlp.vocab).from_bytes(doc.to_bytes())
    numpy.testing.assert_array_equal(again._.mmcot_alignment.tokens, alignment.tokens)
    assert doc[1:].as_doc(copy_user_data=True)._.mmcot_alignment is None


def test_it_is_off_unless_asked_for(bert_source: str) -> None:
    nlp = pipeline(bert_source, vision=VISION)
    assert nlp(with_picture(nlp, TEXTS[0], PICTURES[0]))._.mmcot_alignment is None


def test_a_saved_pipeline_sees_the_same(bert_source: str, tmp_path: Path) -> None:
    nlp = seeing(bert_source)
    nlp.to_disk(tmp_path)
    again = spacy.load(tmp_path)
    for image in (None, PICTURES[0]):
        before, after = (states(p(with_picture(p, TEXTS[0], image))) for p in (nlp, again))
        numpy.testing.assert_array_equal(before, after)


def test_the_policy_can_be_changed_when_loading(bert_source: str, tmp_path: Path) -> None:
    seeing(bert_source).to_disk(tmp_path)
    setting = "components.transformer.model.vision.pictures.on_bad_image"
    strict = spacy.load(tmp_path, config={setting: "raise"})
    with pytest.raises(MMCoTError, match=r"E406.*post-7"):
        strict(with_picture(strict, TEXTS[0], str(tmp_path)))


def test_pictures_pass_through_processes_and_docbins(bert_source: str, tmp_path: Path) -> None:
    nlp = seeing(bert_source)
    (tmp_path / "p.png").write_bytes(PICTURES[1])
    images: list[str | bytes | None] = [PICTURES[0], None, str(tmp_path / "p.png")]
    docs = [with_picture(nlp, t, i) for t, i in zip(TEXTS, images, strict=True)]
    stored = DocBin(docs=docs, store_user_data=True).to_bytes()
    expected = [
        None if i is None else nlp(with_picture(nlp, t, i))._.mmcot_alignment.tokens
        for t, i in zip(TEXTS, images, strict=True)
    ]
    read = DocBin(store_user_data=True).from_bytes(stored).get_docs(nlp.vocab)
    for doc, tokens in zip(nlp.pipe(read, n_process=2, batch_size=1), expected, strict=True):
        if tokens is None:
            assert doc._.mmcot_alignment is None
        else:
            numpy.testing.assert_allclose(doc._.mmcot_alignment.tokens, tokens, atol=1e-3)


@pytest.fixture(scope="module")
def seeing_with(bert_source: str) -> Callable[[dict[str, Any]], Language]:
    """A pipeline with a picture policy; each is made once."""
    made: dict[str, Language] = {}

    def get(policy: dict[str, Any]) -> Language:
        if repr(policy) not in made:
            made[repr(policy)] = seeing(bert_source, policy=policy)
        return made[repr(policy)]

    return get


@pytest.mark.parametrize("kind", ODD)
def test_bad_pictures_leave_the_text_and_good_ones_are_seen(
    kind: str, seeing_with: Callable[[dict[str, Any]], Language], tmp_path: Path
) -> None:
    odd = ODD[kind]
    image = odd.make(tmp_path)
    nlp = seeing_with(_plain(odd.settings(tmp_path)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        doc = nlp(with_picture(nlp, TEXTS[0], image))
    warned = [str(w.message) for w in caught if "W400" in str(w.message)]
    if odd.expected == PICTURE:
        assert not warned
        assert doc._.mmcot_alignment is not None
    else:
        assert len(warned) == 1
        assert "post-7" in warned[0]
        assert odd.expected in warned[0]
        assert doc._.mmcot_alignment is None
        numpy.testing.assert_array_equal(states(doc), states(nlp(TEXTS[0])))


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As a config holds them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}


def test_training_hides_and_swaps(bert_source: str) -> None:
    nlp = seeing(bert_source)
    vision = nlp.get_pipe("transformer").model.layers[0]  # type: ignore[attr-defined]
    docs = [with_picture(nlp, f"text {i}", encoded(noise(20 + i, 20), "PNG")) for i in range(40)]
    torch.manual_seed(1)
    whole = see_pictures(vision, docs, True, PictureSettings(0.0, 0.0, 0.0))
    assert whole is not None
    assert whole.own == whole.shown == list(range(40))
    some = see_pictures(vision, docs, True, PictureSettings(0.5, 0.0, 0.1))
    assert some is not None
    assert 8 < sum(row >= 0 for row in some.shown) < 32
    # What fits is learned from those that are hidden, too.
    assert some.own == list(range(40))
    # Without that, hidden pictures are not read.
    read = see_pictures(vision, docs, True, PictureSettings(0.5, 0.0, 0.0))
    assert read is not None
    assert read.own == read.shown
    assert 8 < len(read.patches) == sum(row >= 0 for row in read.shown) < 32
    assert see_pictures(vision, docs, True, PictureSettings(1.0, 0.0, 0.0)) is None
    swapped = see_pictures(vision, docs, True, PictureSettings(0.0, 1.0, 0.0))
    assert swapped is not None
    assert all(own != shown for own, shown in zip(swapped.own, swapped.shown, strict=True))
    # At inference every doc has its own.
    plain = see_pictures(vision, docs, False, PictureSettings(1.0, 1.0, 0.0))
    assert plain is not None
    assert plain.own == plain.shown == list(range(40))


@pytest.mark.parametrize("rates", [(-0.1, 0, 0), (0, 1.1, 0), (0, 0, -1)])
def test_rates_out_of_range(rates: tuple[float, float, float]) -> None:
    with pytest.raises(MMCoTError, match="E409"):
        PictureSettings(*rates)


def test_empty_docs_with_pictures_do_not_stop_training(bert_source: str) -> None:
    nlp = seeing(bert_source, picture_dropout=0.0)
    texts = [("", PICTURES[0]), ("", PICTURES[1]), (TEXTS[0], None)]
    docs = [with_picture(nlp, text, image) for text, image in texts]
    output, backprop = nlp.get_pipe("transformer").model.begin_update(docs)  # type: ignore
    backprop(output)
    assert [len(windows) for windows in output.spans] == [0, 0, 1]

"""Our encoder in spaCy's stock `transformer` component, in every setting."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from tiny import WIDTH, module_of, pipeline
from transformers import AutoModel

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import KNOWLEDGE_KEY

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"prompt": "none"},
    "static": {"prompt": "static", "prompt_length": 3},
    "conditional": {"prompt": "conditional", "prompt_length": 3},
    "everything": {
        "prompt": "conditional",
        "prompt_length": 2,
        "prompt_regression": 0.5,
        "knowledge_tags": True,
        "segment_length": 12,
    },
}

TEXTS = [
    "Anna Berg sings in Oslo tonight.",
    "",
    "  ",
    "Is Oslo colder than Lagos? 🦩\n\n#football @LagosUnited",
    "x",
    "The Harbour Museum opens a new hall for Ada Moen's paintings in the old town of Oslo!",
]

KNOWLEDGE = {
    "noun": [
        {"mention": "Oslo", "kind": "city", "explanation": "capital of Norway"},
        {"mention": "Anna Berg", "kind": "singer", "explanation": ""},
    ],
    "sentence": "A concert in the old town.",
    "caption": "a stage at night",
}


def know(nlp: Language, text: str, knowledge: dict[str, Any] | None = KNOWLEDGE) -> Doc:
    doc = nlp.make_doc(text)
    if knowledge is not None:
        doc.user_data[KNOWLEDGE_KEY] = knowledge
    return doc


def states(doc: Doc) -> list[NDArray]:
    """The states of each token's pieces, looked up as a listener does."""
    data = doc._.trf_data
    if not len(doc):
        return []
    grid = data.model_output.last_hidden_state.reshape(-1, WIDTH)
    ends = numpy.cumsum(data.align.lengths)
    indexes = data.align.dataXd.reshape(-1)
    assert indexes.max(initial=0) < len(grid)
    return [grid[indexes[end - n : end]] for n, end in zip(data.align.lengths, ends, strict=True)]


def strings(doc: Doc) -> list[str]:
    """The pieces in text order, looked up as a listener does."""
    pieces = [piece for row in doc._.trf_data.wordpieces.strings for piece in row]
    return [pieces[i] for i in doc._.trf_data.align.dataXd.reshape(-1)]


def assert_same_states(left: Sequence[Doc], right: Sequence[Doc]) -> None:
    for a, b in zip(left, right, strict=True):
        for x, y in zip(states(a), states(b), strict=True):
            numpy.testing.assert_allclose(x, y, rtol=0, atol=1e-5)


def differ(left: Doc, right: Doc) -> bool:
    return any(abs(x - y).max() > 1e-3 for x, y in zip(states(left), states(right), strict=True))


@pytest.fixture(scope="module", params=SETTINGS)
def nlp(request: pytest.FixtureRequest, bert_source: str) -> Language:
    return pipeline(bert_source, **SETTINGS[request.param])


@pytest.fixture(scope="module")
def bert(bert_source: str) -> Callable[..., Language]:
    return lambda **settings: pipeline(bert_source, **settings)


def test_states_of_the_texts_own_pieces_alone(nlp: Language) -> None:
    module = module_of(nlp)
    for doc in nlp.pipe([know(nlp, text) for text in TEXTS]):
        counts = [len(token_states) for token_states in states(doc)]
        pieces = module.pieces.split_doc(doc, 99)
        assert counts == [len(row) for row in pieces]
        assert all(counts)
        expected = module.pieces.tokenizer.convert_ids_to_tokens([p for row in pieces for p in row])
        assert ("" if not len(doc) else strings(doc)) == (expected or "")
        rows = [state.tobytes() for token_states in states(doc) for state in token_states]
        assert len(set(rows)) == len(rows), "two pieces share a state"


def test_batch_equals_single_and_order_is_kept(nlp: Language) -> None:
    together = list(nlp.pipe([know(nlp, text) for text in TEXTS], batch_size=len(TEXTS)))
    assert [doc.text for doc in together] == TEXTS
    assert_same_states(together, [nlp(know(nlp, text)) for text in TEXTS])


def test_batches_of_nothing(nlp: Language) -> None:
    assert [len(doc) for doc in nlp.pipe(["", ""])] == [0, 0]
    assert all(len(token_states) for token_states in states(nlp("\n")))


def test_round_trip_without_the_source(source: str, tmp_path: Path) -> None:
    nlp = pipeline(source, **SETTINGS["everything"])
    texts = [know(nlp, text) for text in TEXTS]
    before = list(nlp.pipe(texts))
    nlp.to_disk(tmp_path / "model")
    loaded = spacy.load(tmp_path / "model")
    assert_same_states(before, list(loaded.pipe([know(loaded, text) for text in TEXTS])))

    twin = spacy.blank("en")
    config = {**nlp.get_pipe_config("transformer")["model"], "source": "gone/for-good"}
    twin.add_pipe("transformer", config={"model": config})
    twin.from_bytes(nlp.to_bytes())
    assert_same_states(before, list(twin.pipe([know(twin, text) for text in TEXTS])))


def test_loads_and_learns_after_the_source_is_deleted(bert_source: str, tmp_path: Path) -> None:
    copy = shutil.copytree(bert_source, tmp_path / "source")
    nlp = pipeline(str(copy), **SETTINGS["everything"])
    before = nlp(know(nlp, TEXTS[0]))
    nlp.to_disk(tmp_path / "model")
    shutil.rmtree(copy)
    loaded = spacy.load(tmp_path / "model")
    assert_same_states([before], [loaded(know(loaded, TEXTS[0]))])
    loaded.initialize()
    assert_same_states([before], [loaded(know(loaded, TEXTS[0]))])


def test_no_prompt_is_the_plain_encoder(bert_source: str) -> None:
    nlp = pipeline(bert_source, prompt="none")
    module = module_of(nlp)
    plain = AutoModel.from_pretrained(bert_source)
    tokenizer = module.pieces.tokenizer
    for doc in nlp.pipe(TEXTS):
        ids = [piece for row in module.pieces.split_doc(doc, 99) for piece in row]
        if not ids:
            continue
        around = [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]
        with torch.no_grad():
            expected = plain(input_ids=torch.tensor([around])).last_hidden_state[0, 1:-1]
        numpy.testing.assert_allclose(numpy.concatenate(states(doc)), expected, rtol=0, atol=1e-5)


def test_a_segment_is_the_plain_encoders_text_pair(source: str) -> None:
    nlp = pipeline(source, prompt="none", segment_length=12)
    module = module_of(nlp)
    doc = nlp(know(nlp, TEXTS[0]))
    tokenizer = module.pieces.tokenizer
    ids = [piece for row in module.pieces.split_doc(doc, 99) for piece in row]
    parts = ["a stage at night", "A concert in the old town."]
    (segment,) = module.pieces.split_joined([parts], 12)
    assert len(segment) == 12
    pair = tokenizer.build_inputs_with_special_tokens(ids, segment)
    kwargs = {"input_ids": torch.tensor([pair])}
    if "token_type_ids" in tokenizer.model_input_names:
        types = [0] * (len(pair) - 13) + [1] * 13
        kwargs["token_type_ids"] = torch.tensor([types])
    plain = AutoModel.from_pretrained(source)
    if getattr(plain.config, "type_vocab_size", 0) < 2:
        kwargs.pop("token_type_ids", None)
    with torch.no_grad():
        expected = plain(**kwargs).last_hidden_state[0, 1 : 1 + len(ids)]
    numpy.testing.assert_allclose(numpy.concatenate(states(doc)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("prompt", ["static", "conditional"])
def test_a_prompt_is_read(bert_source: str, prompt: str) -> None:
    plain, prompted = pipeline(bert_source, prompt="none"), pipeline(bert_source, prompt=prompt)
    assert differ(plain(TEXTS[0]), prompted(TEXTS[0]))


def test_a_conditional_prompt_depends_on_the_text_and_a_static_one_does_not(
    bert: Callable[..., Language],
) -> None:
    prompts: list[torch.Tensor] = []
    for prompt, moves in (("static", False), ("conditional", True)):
        nlp = bert(prompt=prompt, prompt_length=2)
        module = module_of(nlp)
        assert module.prompt is not None
        module.prompt.register_forward_hook(lambda *call: prompts.append(call[2]))
        for text in (TEXTS[0], TEXTS[3]):
            nlp(text)
        assert prompts[0].shape == (1, 2, WIDTH)
        assert torch.equal(*prompts) is not moves
        prompts.clear()


@pytest.mark.parametrize("knowledge", ["noun", "sentence", "caption"])
def test_knowledge_reaches_the_teacher_and_never_the_student(
    bert_source: str, knowledge: str
) -> None:
    known = {knowledge: KNOWLEDGE[knowledge]}
    teacher = pipeline(bert_source, prompt="none", knowledge_tags=True, segment_length=20)
    assert differ(teacher(TEXTS[0]), teacher(know(teacher, TEXTS[0], known)))
    student = pipeline(bert_source, prompt="conditional", prompt_regression=0.5)
    assert_same_states([student(TEXTS[0])], [student(know(student, TEXTS[0], known))])


def test_docs_without_knowledge_are_read_as_by_an_encoder_without(bert_source: str) -> None:
    plain = pipeline(bert_source, prompt="none")
    teacher = pipeline(bert_source, prompt="none", knowledge_tags=True, segment_length=20)
    bare = {"noun": [{"mention": "Lagos", "kind": "city"}], "sentence": None, "caption": ""}
    for knowledge in (None, {}, bare):
        assert_same_states([plain(TEXTS[0])], [teacher(know(teacher, TEXTS[0], knowledge))])


def test_tags_start_at_zero(bert_source: str) -> None:
    plain = pipeline(bert_source, prompt="none")
    teacher = spacy.blank("en")
    config = {**plain.get_pipe_config("transformer")["model"], "knowledge_tags": True}
    teacher.add_pipe("transformer", config={"model": config})
    teacher.initialize()
    assert_same_states([plain(TEXTS[0])], [teacher(know(teacher, TEXTS[0]))])


LONG = " ".join(f"Anna saw Oslo and Lagos {i} times ." for i in range(30))


@pytest.mark.parametrize("setting", ["plain", "everything"])
def test_long_docs_have_one_state_a_token(bert_source: str, setting: str) -> None:
    settings = {**SETTINGS[setting], "max_length": 40, "stride": 10}
    nlp = pipeline(bert_source, **settings)
    doc = nlp(know(nlp, LONG))
    pieces = module_of(nlp).pieces.split_doc(doc, 99)
    assert [len(s) for s in states(doc)] == [len(row) for row in pieces]
    assert strings(doc) == [
        piece
        for row in pieces
        for piece in module_of(nlp).pieces.tokenizer.convert_ids_to_tokens(list(row))
    ]
    assert len(doc._.trf_data.wordpieces) > 3
    together = list(nlp.pipe([know(nlp, TEXTS[0]), know(nlp, LONG), know(nlp, "  ")]))
    assert_same_states([doc], [together[1]])


def test_windows_keep_to_max_length_and_to_the_encoders_positions(
    bert: Callable[..., Language],
) -> None:
    lengths: list[int] = []
    for settings, bound in (({"max_length": 40}, 40), ({"max_length": 10_000}, 512 - 4)):
        nlp = bert(prompt="static", prompt_length=4, **settings)
        module = module_of(nlp)
        hook = module.register_forward_pre_hook(
            lambda _, arguments: lengths.append(int(arguments[0].mask.sum(1).max()))
        )
        nlp(" ".join([LONG] * 3))
        hook.remove()
        assert bound - 4 <= max(lengths) <= bound
        lengths.clear()


def test_a_window_gives_its_neighbours_context(bert: Callable[..., Language]) -> None:
    """With half a window shared, tokens inside see more than a hard cut would show them."""
    cut, shared = bert(max_length=20, stride=0), bert(max_length=20, stride=8)
    assert differ(cut(LONG), shared(LONG))


def test_overlong_tokens_beside_short_ones(bert_source: str) -> None:
    nlp = pipeline(bert_source, prompt="none", max_length=14, stride=6)
    words = ["Oslo", "in", "nsga" * 8, "a", "b", "c", "nsga" * 20, "d", "Oslo"]
    doc = nlp(Doc(nlp.vocab, words=words * 3))
    pieces = module_of(nlp).pieces
    rows = pieces.split_doc(doc, 12)
    assert max(map(len, rows)) == 12
    expected = pieces.tokenizer.convert_ids_to_tokens([piece for row in rows for piece in row])
    assert strings(doc) == expected


def test_no_room_for_text(bert: Callable[..., Language]) -> None:
    nlp = bert(prompt="none", segment_length=12, max_length=14)
    assert len(states(nlp(TEXTS[0]))) == 7
    with pytest.raises(MMCoTError, match=r"\[E403\].*Raise max_length"):
        nlp(know(nlp, TEXTS[0]))


GRAINS = {
    "caption": "a singer on a stage",
    "sentence": "Anna Berg gives a concert in Oslo",
    "multimodality": "the band is the one in the picture",
}


def grain_states(nlp: Language, knowledge: dict[str, Any]) -> Any:
    doc = Doc(nlp.vocab, words=["Anna", "sings", "in", "Oslo"])
    doc.user_data[KNOWLEDGE_KEY] = knowledge
    output = nlp.get_pipe("transformer").predict([doc])  # type: ignore[attr-defined]
    return output.model_output.last_hidden_state


def test_no_grain_is_crowded_out_of_a_short_segment(bert_source: str) -> None:
    nlp = pipeline(bert_source, segment_length=9)
    expected = grain_states(nlp, GRAINS)
    for grain in GRAINS:
        other = {**GRAINS, grain: f"otherwise {GRAINS[grain]}"}
        assert not numpy.array_equal(grain_states(nlp, other), expected), grain

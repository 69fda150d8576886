from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import spacy
from spacy.tokens import Doc
from spacy.vocab import Vocab
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model import wordpieces
from spacy_mmcot.model.wordpieces import Window, WordPieceTokenizer, list_cases, make_windows


@pytest.fixture(scope="module")
def tokenizer(source: str) -> Any:
    return AutoTokenizer.from_pretrained(source)


@pytest.fixture(scope="module")
def pieces(tokenizer: Any) -> WordPieceTokenizer:
    return WordPieceTokenizer(tokenizer)


@pytest.fixture(scope="module")
def byte_tokenizer(tiny_source: Callable[[str], str]) -> Any:
    return AutoTokenizer.from_pretrained(tiny_source("roberta"))


def flat(rows: list[tuple[int, ...]]) -> list[int]:
    return [piece for row in rows for piece in row]


def check_windows(lengths: list[int], budget: int, overlap: int) -> list[Window]:
    """What holds of all windows, whatever the lengths."""
    windows = make_windows(lengths, budget, overlap)
    owned = [t for w in windows for t in range(w.own_start, w.own_end)]
    assert owned == list(range(len(lengths)))
    for window in windows:
        assert window.start <= window.own_start < window.own_end <= window.end
        assert sum(lengths[window.start : window.end]) <= budget
    return windows


@pytest.mark.parametrize("longest", [1, 3, 12])
def test_windows_own_every_token_once_and_keep_the_budget(longest: int) -> None:
    chance = random.Random(longest)
    for _ in range(400):
        lengths = [chance.randint(1, longest) for _ in range(chance.randint(0, 60))]
        check_windows(lengths, chance.randint(longest, 20), chance.randint(0, 25))


def test_windows_beside_tokens_as_long_as_the_budget() -> None:
    chance = random.Random(0)
    for _ in range(400):
        lengths = [chance.choice([1, 2, 3, 10]) for _ in range(chance.randint(1, 40))]
        check_windows(lengths, budget=10, overlap=chance.randint(0, 10))


def test_neighbouring_windows_share_context_on_both_sides() -> None:
    windows = check_windows([1] * 100, budget=20, overlap=8)
    for left, right in itertools.pairwise(windows):
        assert left.end - right.start == 8
        assert left.end - left.own_end == right.own_start - right.start == 4
    # Only the ends of the Doc are read without context.
    assert len(windows) == 8


def test_overlap_of_more_than_half_a_window_does_not_multiply_the_work() -> None:
    assert len(make_windows([1] * 1000, budget=20, overlap=19)) <= 100


def test_one_window_where_the_doc_fits_and_none_for_an_empty_one() -> None:
    assert make_windows([2, 3, 5], budget=10, overlap=4) == [Window(0, 0, 3, 3)]
    assert make_windows([], budget=10, overlap=4) == []


def test_no_room_for_text() -> None:
    with pytest.raises(MMCoTError, match=r"\[E403\] No room for text: 0 word pieces"):
        make_windows([1], budget=0, overlap=0)


def test_every_token_has_its_pieces(pieces: WordPieceTokenizer, tokenizer: Any) -> None:
    doc = spacy.blank("en")("Anna saw 🦩 in  Lagos,\n\twho knows? #NBA \u200d naïve \ufe0f 北京")
    rows = pieces.split_doc(doc, limit=50)
    assert len(rows) == len(doc)
    assert all(rows)
    reads_spaces = tokenizer("a")["input_ids"] != tokenizer(" a")["input_ids"]
    for token, row in zip(doc, rows, strict=True):
        before = doc[token.i - 1] if token.i else None
        spaced = reads_spaces and before is not None and bool(before.whitespace_ or before.is_space)
        alone = tokenizer(" " * spaced + token.text, add_special_tokens=False)["input_ids"]
        assert list(row) == (alone or [tokenizer.unk_token_id])


def test_white_space_and_bare_joiners_become_the_unknown_piece(
    tiny_source: Callable[[str], str],
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_source("bert"))
    doc = Doc(Vocab(), words=["\n", "\ufe0f", "Oslo"])
    rows = WordPieceTokenizer(tokenizer).split_doc(doc, limit=9)
    unknown = (tokenizer.unk_token_id,)
    assert rows[0] == unknown
    assert rows[1] == unknown
    assert unknown not in rows[2:]


def test_cases_tell_small_letters_capitals_and_mixtures_apart() -> None:
    vocab = spacy.blank("xx").vocab
    words = ["the", "Jaguar", "NASA", "A", "iPhone", "2017", "!", "@Élise", "ÖBB", "москва", "\n"]
    cases = dict(zip(words, list_cases(Doc(vocab, words=words)), strict=True))
    none = {"iPhone": 0, "2017": 0, "!": 0, "\n": 0}
    assert (
        cases
        == {"the": 1, "Jaguar": 4, "NASA": 2, "A": 6, "@Élise": 4, "ÖBB": 2, "москва": 1} | none
    )
    assert list_cases(Doc(vocab)) == []


def test_overlong_tokens_are_cut(pieces: WordPieceTokenizer) -> None:
    doc = Doc(Vocab(), words=["Oslo", "xq" * 60, "Oslo"])
    whole = pieces.split_doc(doc, limit=1000)
    cut = pieces.split_doc(doc, limit=7)
    assert cut == [row[:7] for row in whole]
    assert pieces.split_doc(doc, limit=1000) == whole


@pytest.mark.parametrize(
    "text",
    [
        "Anna Berg sings in Oslo tonight.",
        "Is Oslo (Norway) colder than Lagos?! #football @LagosUnited",
        "no-space/slashes,commas;and 3-1",
        "北京 meets São Paulo… 🦩🦩 ok",
    ],
)
def test_byte_level_pieces_are_those_of_the_raw_text(text: str, byte_tokenizer: Any) -> None:
    rows = WordPieceTokenizer(byte_tokenizer).split_doc(spacy.blank("en")(text), limit=99)
    assert flat(rows) == byte_tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_word_after_a_space_is_not_the_word_without(byte_tokenizer: Any) -> None:
    splitter = WordPieceTokenizer(byte_tokenizer)
    words = ["Oslo", "Oslo"]
    apart = splitter.split_doc(Doc(Vocab(), words=words, spaces=[True, False]), limit=9)
    joined = splitter.split_doc(Doc(Vocab(), words=words, spaces=[False, False]), limit=9)
    assert apart[0] == joined[0] == joined[1]
    assert apart[1] != joined[1]
    assert byte_tokenizer.decode(flat(apart)) == "Oslo Oslo"
    assert byte_tokenizer.decode(flat(joined)) == "OsloOslo"


def test_cache_gives_what_a_fresh_tokenizer_gives_and_is_bounded(
    pieces: WordPieceTokenizer, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wordpieces, "MAX_CACHED_WORDS", 40)
    chance = random.Random(1)
    for _ in range(30):
        vocab = Vocab()
        words = ["".join(chance.choices("abcdeno ", k=3)) + "x" for _ in range(12)]
        doc = Doc(vocab, words=words, spaces=[chance.random() < 0.5 for _ in words])
        assert pieces.split_doc(doc, 9) == WordPieceTokenizer(tokenizer).split_doc(doc, 9)
        assert len(pieces._cache) <= 40 + len(words)


def test_special_pieces_are_those_the_tokenizer_puts(
    pieces: WordPieceTokenizer, tokenizer: Any
) -> None:
    texts = [["Anna sings"], ["a concert in the old town"]]
    text, segment = pieces.split_joined(texts, limit=99)
    single = [*pieces.prefix, *text, *pieces.suffix]
    assert single == tokenizer("Anna sings")["input_ids"]
    pair = [*pieces.prefix, *text, *pieces.middle, *segment, *pieces.pair_suffix]
    assert pair == tokenizer("Anna sings", "a concert in the old town")["input_ids"]


def letters(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer without merges, so that a word is a piece for the space and one a letter."""
    vocabulary = {piece: i for i, piece in enumerate(["<unk>", "<s>", "</s>", "▁", "a", "b"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    if template:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair=template, special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="</s>")


@pytest.mark.parametrize(
    ("template", "runs"),
    [
        ("<s> $A </s> </s> $B </s>", ([1], [2], [2, 2], [2])),
        ("<s> $A $B </s>", ([1], [2], [], [2])),
        ("", ([], [], [], [])),
    ],
)
def test_special_pieces_where_a_letter_is_several_pieces(
    template: str, runs: tuple[list[int], ...]
) -> None:
    pieces = WordPieceTokenizer(letters(template))
    assert pieces.split_doc(Doc(Vocab(), words=["ab"]), limit=9) == [(3, 4, 5)]
    assert (pieces.prefix, pieces.suffix, pieces.middle, pieces.pair_suffix) == runs


def test_segment_texts(pieces: WordPieceTokenizer, tokenizer: Any) -> None:
    first, empty, last = pieces.split_joined([["a museum in Oslo"], [], ["the band"]], 3)
    assert first == tokenizer("a museum in Oslo", add_special_tokens=False)["input_ids"][:3]
    assert empty == []
    assert last == tokenizer("the band", add_special_tokens=False)["input_ids"][:3]


def test_texts_share_the_room(pieces: WordPieceTokenizer, tokenizer: Any) -> None:
    texts = ["a museum in Oslo", "the band", "a concert in the old town hall of Oslo"]
    (whole, none, one) = pieces.split_joined([texts, [], texts[:1]], limit=99)
    assert whole == tokenizer(" ".join(texts), add_special_tokens=False)["input_ids"]
    assert none == [] and one == tokenizer(texts[0], add_special_tokens=False)["input_ids"]
    spaced = [texts[0], *(f" {text}" for text in texts[1:])]
    first, *others = tokenizer(spaced, add_special_tokens=False)["input_ids"]
    assert pieces.split_joined([texts], 6) == [first[:2] + others[0][:2] + others[1][:2]]
    assert pieces.split_joined([], limit=9) == []


@pytest.mark.parametrize(
    ("lengths", "limit", "shares"),
    [
        ([12, 4, 30], 24, [10, 4, 10]),
        ([12, 30, 30], 24, [8, 8, 8]),
        ([30, 30], 25, [12, 13]),
        ([3, 2], 24, [3, 2]),
        ([5], 3, [3]),
        ([], 3, []),
    ],
)
def test_shares(lengths: list[int], limit: int, shares: list[int]) -> None:
    assert wordpieces._share_limit(lengths, limit) == shares

"""Changed copies: another text, the same mentions."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import spacy
from click.testing import Result
from spacy.language import Language
from spacy.tokens import Doc, Span
from typer.testing import CliRunner

from research.__main__ import app
from research.perturb import CHANGES, Change, perturb, unseen_names
from spacy_mmcot.corpus.docbin import read_docs, write_docs
from spacy_mmcot.corpus.extensions import get_pairs, register_extensions, set_pairs
from spacy_mmcot.types import ID_KEY, Relation


@pytest.fixture(scope="module")
def nlp() -> Language:
    return spacy.blank("en")


def run_perturb(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, ["perturb", *arguments])))


NAMES = {"PER": [("Ada", "Moen"), ("Zed",)], "LOC": [("Port", "Blue", "Bay"), ("Ulm",)]}
PIECES = [
    *("Anna", "Berg", "sings", "in", "Oslo", "tonight", "#", "@", "#OsloLive", "@anna_b", "!", "("),
    *(
        "😂",
        "👩‍👩‍👧",
        "שלום",
        "مرحبا",
        "İstanbul",
        "ß",
        "##",
        "#@",
        "http://t.co/x",
        "naïve",
        " ",
        "\n",
    ),
]


def labelled(nlp: Language, words: str | list[str], *mentions: tuple[int, int, str]) -> Doc:
    """A Doc of the words, a text's those between its spaces, with the mentions between them."""
    doc = Doc(nlp.vocab, words=words.split() if isinstance(words, str) else words)
    doc.set_ents([Span(doc, *m[:2], label=m[2]) for m in mentions], default="outside")
    return doc


def surfaces(doc: Doc) -> list[tuple[str, str]]:
    return [(ent.text, ent.label_) for ent in doc.ents]


@pytest.fixture
def doc(nlp: Language) -> Doc:
    register_extensions()
    words = "@ Anna Berg sings LOUD in #Oslo with Anna Berg # tonight @friend !"
    doc = labelled(nlp, words, (1, 3, "PER"), (6, 7, "LOC"), (8, 10, "PER"))
    doc.user_data[ID_KEY] = "one"
    doc._.mmcot_image = "one.png"
    doc._.mmcot_knowledge = {"sentence": "Anna Berg sings."}
    anna, oslo, again = doc.ents
    doc._.mmcot_rel = [Relation(anna, oslo, "/per/loc/place", 1.0)]
    set_pairs(doc, [(anna, oslo), (again, oslo)])
    return doc


def test_small_letters(doc: Doc) -> None:
    new = perturb(doc, "case", 1)
    assert new.text == doc.text.lower()
    assert surfaces(new)[0] == ("anna berg", "PER")


def test_hashtags_and_handles_go_but_for_mentions(doc: Doc) -> None:
    new = perturb(doc, "strip", 1)
    assert new.text == "Anna Berg sings LOUD in Oslo with Anna Berg ! "
    assert surfaces(new) == [("Anna Berg", "PER"), ("Oslo", "LOC"), ("Anna Berg", "PER")]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["#one", "@two"], ["one", "two"]),
        (["#", "one", "@", "two"], ["one", "two"]),
        (["#", "@"], ["#", "@"]),
        (["#"], ["#"]),
        (["a", "#"], ["a", "#"]),
        (["so", "#good"], ["so"]),
    ],
)
def test_a_post_of_nothing_but_hashtags_keeps_its_words(
    nlp: Language, words: list[str], left: list[str]
) -> None:
    assert [token.text for token in perturb(labelled(nlp, words), "strip", 1)] == left


def test_what_is_taken_away_leaves_no_words_glued_together(nlp: Language) -> None:
    doc = Doc(nlp.vocab, words=["so", "#good", "now"], spaces=[False, True, False])
    doc.set_ents([], default="outside")
    assert perturb(doc, "strip", 1).text == "so now"


def test_a_mention_of_a_sign_alone_stays(nlp: Language) -> None:
    new = perturb(labelled(nlp, ["what", "is", "#", "?"], (2, 3, "MISC")), "strip", 1)
    assert surfaces(new) == [("#", "MISC")]


def test_typos_change_words_and_mentions(doc: Doc) -> None:
    new = perturb(doc, "typos", 1, rate=1.0)
    pairs = [(old.text, token.text) for old, token in zip(doc, new, strict=True)]
    changed = [(old, word) for old, word in pairs if old != word]
    assert {old for old, _ in changed} == {"Anna", "Berg", "sings", "LOUD", "with", "tonight"}
    for old, word in changed:
        assert word[0] == old[0] and abs(len(word) - len(old)) <= 1
    assert perturb(doc, "typos", 1, rate=0.0).text == doc.text


def test_emoji_stand_between_words_never_in_mentions(doc: Doc) -> None:
    new = perturb(doc, "emoji", 1, rate=1.0)
    assert surfaces(new) == surfaces(doc)
    added = [token for token in new if not token.text.isascii()]
    assert len(added) >= 6
    assert not any(token.ent_type for token in added)
    assert not re.search(r"[#@] \W", new.text)
    kept = [token.text for token in new if token.text.isascii()]
    assert kept == [token.text for token in doc]
    assert perturb(doc, "emoji", 1, rate=0.0).text != doc.text


def test_swapped_names_are_the_same_for_one_name(doc: Doc) -> None:
    new = perturb(doc, "swap", 1, names=NAMES)
    first, place, again = new.ents
    assert first.text == again.text in {"Ada Moen", "Zed"}
    assert place.text in {"Port Blue Bay", "Ulm"}
    assert [ent.label_ for ent in new.ents] == ["PER", "LOC", "PER"]
    kept = [token.text for token in new if not token.ent_type]
    assert kept == [token.text for token in doc if not token.ent_type]


def test_two_names_stay_two(nlp: Language) -> None:
    doc = labelled(nlp, "Bo met Cy", (0, 1, "PER"), (2, 3, "PER"))
    for seed in range(10):
        assert {text for text, _ in surfaces(perturb(doc, "swap", seed, names=NAMES))} == {
            *("Ada Moen", "Zed")
        }


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_doc_carries(change: Change, doc: Doc) -> None:
    new = perturb(doc, change, 1, rate=0.5, names=NAMES)
    anna, oslo, again = new.ents
    assert new._.mmcot_rel == (Relation(anna, oslo, "/per/loc/place", 1.0),)
    assert get_pairs(new) == [(anna, oslo), (again, oslo)]
    assert new.user_data[ID_KEY] == "one"
    assert new._.mmcot_image == "one.png"
    # It speaks of the text as it was.
    assert new._.mmcot_knowledge is None
    assert doc.text.startswith("@ Anna Berg sings LOUD")


@pytest.mark.parametrize("change", CHANGES)
def test_no_label_is_lost_in_any_text(change: Change, nlp: Language) -> None:
    rng = random.Random(4)
    for round_ in range(300):
        n = rng.randint(1, 12)
        words = [rng.choice(PIECES) for _ in range(n)]
        doc = Doc(nlp.vocab, words=words, spaces=[rng.random() < 0.7 for _ in words])
        cuts = sorted(rng.sample(range(n + 1), 2 * rng.randint(0, min(2, (n + 1) // 2))))
        spans = [
            Span(doc, start, end, label=rng.choice(["PER", "LOC"]))
            for start, end in zip(cuts[::2], cuts[1::2], strict=True)
            if doc[start:end].text.strip()
        ]
        spans = [s for s in spans if not s[0].is_space and not s[-1].is_space]
        doc.set_ents(spans, default="outside")
        new = perturb(doc, change, round_, rate=0.5, names=NAMES)
        assert [ent.label_ for ent in new.ents] == [ent.label_ for ent in doc.ents]
        assert len(new) and new.has_annotation("ENT_IOB")
        for old, ent in zip(doc.ents, new.ents, strict=True):
            assert new.text[ent.start_char : ent.end_char] == ent.text
            if change == "case":
                assert ent.text == old.text.lower()
            elif change == "emoji":
                assert ent.text == old.text
            elif change == "swap":
                assert tuple(token.text for token in ent) in NAMES[ent.label_]
            elif change == "strip":
                bare = re.sub(r"[#@\s]", "", old.text)
                assert re.sub(r"[#@\s]", "", ent.text) == bare
            else:
                assert len(ent) == len(old)
        assert perturb(doc, change, round_, rate=0.5, names=NAMES).text == new.text


def test_an_unlabelled_doc_stays_unlabelled(nlp: Language) -> None:
    new = perturb(nlp.make_doc("Anna sings #live"), "strip", 1)
    assert not new.has_annotation("ENT_IOB")
    assert len(perturb(nlp.make_doc(""), "emoji", 1)) == 0


def test_unseen_names(nlp: Language) -> None:
    sources = [
        labelled(nlp, "@Ada Moen in Ulm", (0, 2, "PER"), (3, 4, "LOC")),
        labelled(nlp, "Paris and PARIS", (0, 1, "LOC"), (2, 3, "PER")),
        labelled(nlp, "Cy at # Rome", (0, 1, "PER"), (3, 4, "LOC")),
        labelled(nlp, "New York", (0, 2, "LOC")),
    ]
    assert unseen_names(sources, []) == {
        "PER": [("Ada", "Moen"), ("Cy",)],
        "LOC": [("New", "York"), ("Rome",), ("Ulm",)],
    }
    # Whether or not it is labelled there, and however it is written.
    seen = [nlp.make_doc("so cy loves #Rome"), nlp.make_doc("a new day in York, Ada!")]
    assert unseen_names(sources, seen) == {
        "PER": [("Ada", "Moen")],
        "LOC": [("New", "York"), ("Ulm",)],
    }


@pytest.fixture
def data(doc: Doc, tmp_path: Path) -> Path:
    write_docs(tmp_path / "dev.spacy", [doc])
    return tmp_path / "dev.spacy"


@pytest.fixture
def names(nlp: Language, tmp_path: Path) -> Path:
    doc = labelled(nlp, "Ada Moen in Ulm", (0, 2, "PER"), (3, 4, "LOC"))
    write_docs(tmp_path / "names.spacy", [doc])
    return tmp_path / "names.spacy"


def test_the_command_writes_a_file_for_each_change(data: Path, names: Path, tmp_path: Path) -> None:
    def contents(folder: str, *options: object) -> dict[str, bytes]:
        done = run_perturb(data, "-o", tmp_path / folder, "--names", names, *options)
        assert done.exit_code == 0, done.output
        return {path.stem: path.read_bytes() for path in (tmp_path / folder).iterdir()}

    found = contents("one")
    assert found.keys() == set(CHANGES)
    assert contents("two") == found
    (swapped,) = read_docs(tmp_path / "one" / "swap.spacy", spacy.blank("en").vocab)
    assert surfaces(swapped) == [("Ada Moen", "PER"), ("Ulm", "LOC"), ("Ada Moen", "PER")]
    assert contents("three", "--change", "emoji", "--change", "typos").keys() == {"emoji", "typos"}
    assert contents("four", "--seed", 2)["emoji"] != found["emoji"]


def test_what_the_command_refuses(data: Path, names: Path, nlp: Language, tmp_path: Path) -> None:
    write_docs(tmp_path / "bare.spacy", [nlp.make_doc("Anna sings")])
    seen = labelled(nlp, "We saw Ulm")
    write_docs(tmp_path / "seen.spacy", [seen])
    cases: list[tuple[str, int, tuple[object, ...]]] = [
        ("E717", 2, (data,)),
        ("E718", 2, (data, "--rate", 1.5, "--change", "typos")),
        ("E217", 1, (tmp_path / "bare.spacy", "--change", "case")),
        ("E100", 1, (tmp_path / "absent.spacy", "--change", "case")),
        ("E100", 1, (data, "--names", tmp_path / "absent.spacy")),
        ("E218", 1, (data, "--names", names, "--unseen-in", tmp_path / "seen.spacy")),
    ]
    for code, status, arguments in cases:
        done = run_perturb(*arguments, "-o", tmp_path / "out")
        assert done.exit_code == status, (code, done.output)
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"✘ [{code}] ")
    assert "LOC" in line
    assert not (tmp_path / "out").exists()

"""Where mentions stand in what an LLM wrote about a Doc."""

from __future__ import annotations

import numpy
import pytest
import spacy
from spacy.tokens import Doc

from spacy_mmcot.model.pair_classifier import DocPairs, make_knowledge_doc
from spacy_mmcot.types import KNOWLEDGE_KEY

PAIRS = numpy.array([[0, 1]])


def located(words: list[str], mentions: list[tuple[int, int]], sentence: str | None) -> list[str]:
    """The words of the knowledge that each mention is found on."""
    doc = Doc(spacy.blank("en").vocab, words=words)
    if sentence is not None:
        doc.user_data[KNOWLEDGE_KEY] = {"sentence": sentence}
    entry = DocPairs(doc, [(*mention, "X") for mention in mentions], PAIRS)
    found = make_knowledge_doc(entry)
    assert found.pairs is PAIRS
    assert [label for _, _, label in found.mentions] == ["X"] * len(mentions)
    return [found.doc[start:end].text for start, end, _ in found.mentions]


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Bo Diaz was born in Oslo.", ["Bo Diaz", "Oslo"]),
        ("bo diaz? OSLO!", ["bo diaz", "OSLO"]),
        ("Oslo is a town, so Oslo is where Bo Diaz (not Al Diaz) lives.", ["Bo Diaz", "Oslo"]),
        # Only its last word is named.
        ("Diaz sings in Oslo", ["Diaz", "Oslo"]),
        # Not named at all: the whole text speaks of it.
        ("It rains", ["It rains", "It rains"]),
    ],
)
def test_mentions_are_found(sentence: str, expected: list[str]) -> None:
    assert located(["Bo", "Diaz", "at", "#", "Oslo"], [(0, 2), (3, 5)], sentence) == expected


def test_the_last_place_counts() -> None:
    words = ["Bo", "in", "Oslo"]
    doc = Doc(spacy.blank("en").vocab, words=words)
    doc.user_data[KNOWLEDGE_KEY] = {"sentence": "Oslo rains, so Bo left Oslo"}
    found = make_knowledge_doc(DocPairs(doc, [(0, 1, "X"), (2, 3, "X")], PAIRS))
    assert found.mentions == [(4, 5, "X"), (6, 7, "X")]


def test_without_knowledge_there_is_no_text() -> None:
    assert located(["Bo", "in", "Oslo"], [(0, 1), (2, 3)], None) == ["", ""]

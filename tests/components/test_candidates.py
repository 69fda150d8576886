"""Which pairs are looked at, against brute force, and what very many mentions cost."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from pathlib import Path

import pytest
import spacy
import toy_rel
from spacy.tokens import Doc, Span

from spacy_mmcot.components.pairs import find_candidates, mask_legal
from spacy_mmcot.corpus.extensions import set_pairs
from spacy_mmcot.types import DocPairs

NLP = spacy.blank("en")


def doc_of(spans: list[tuple[int, int]], n_tokens: int) -> Doc:
    doc = Doc(NLP.vocab, words=["w"] * n_tokens)
    doc.set_ents([Span(doc, start, end, label="X") for start, end in spans])
    return doc


def random_doc(rng: random.Random) -> Doc:
    """Disjoint mentions of one to three tokens, some next to each other."""
    spans, token = [], rng.randrange(3)
    for _ in range(rng.randrange(9)):
        end = token + rng.randint(1, 3)
        spans.append((token, end))
        token = end + rng.choice((0, 0, 1, 2, 7))
    return doc_of(spans, token + 3)


def gap(left: Span, right: Span) -> int:
    first, second = sorted((left, right), key=lambda span: span.start)
    return second.start - first.end


def spans_of(entry: DocPairs) -> list[tuple[Span, Span]]:
    ents = entry.doc.ents
    assert tuple(entry.mentions) == ents
    return [(ents[head], ents[tail]) for head, tail in entry.pairs.tolist()]


@pytest.mark.parametrize("seed", range(20))
def test_all_near_pairs(seed: int) -> None:
    rng = random.Random(seed)
    doc = random_doc(rng)
    for distance in (0, 1, 2, 5, 100):
        entry = find_candidates(doc, distance)
        expected = {(a, b) for a, b in itertools.permutations(doc.ents, 2) if gap(a, b) <= distance}
        found = spans_of(entry)
        assert set(found) == expected
        assert len(found) == len(expected)


@pytest.mark.parametrize("n", [2, 33])
def test_pairs_come_in_the_order_of_the_text(n: int) -> None:
    entry = find_candidates(doc_of([(i, i + 1) for i in range(n)], n), n)
    combinations = itertools.combinations(range(n), 2)
    assert entry.pairs.tolist() == [[*p] for a, b in combinations for p in ((a, b), (b, a))]


def test_asked_pairs_alone() -> None:
    doc = doc_of([(0, 1), (2, 4), (9, 10)], 12)
    a, b, c = doc.ents
    set_pairs(doc, [(b, a), (a, c), (b, a), (a, doc[5:6]), (c, c)])
    # Once each; what is no entity, or joins one to itself, is no pair.
    assert spans_of(find_candidates(doc, 100)) == [(b, a), (a, c)]
    assert spans_of(find_candidates(doc, 3)) == [(b, a)]
    set_pairs(doc, [])
    assert spans_of(find_candidates(doc, 100)) == []


@pytest.mark.parametrize("spans", [[], [(1, 2)]])
def test_no_pair_without_two_mentions(spans: list[tuple[int, int]]) -> None:
    entry = find_candidates(doc_of(spans, 5), 100)
    assert (entry.pairs.shape, entry.pairs.dtype.name) == ((0, 2), "int64")
    empty = find_candidates(Doc(NLP.vocab), 100)
    assert empty.pairs.shape == (0, 2)


def test_legal_labels_by_the_types_of_head_and_tail() -> None:
    doc = Doc(NLP.vocab, words=["Bo", "Rome", "Anna"], ents=["B-PER", "B-LOC", "B-PER"])
    entry = find_candidates(doc, 100)
    allowed = mask_legal(entry, toy_rel.LEGAL, toy_rel.LABELS)
    by_types = {
        tuple(entry.mentions[i].label_ for i in pair): row.tolist()
        for pair, row in zip(entry.pairs, allowed, strict=True)
    }
    assert by_types == {
        ("PER", "LOC"): [True, True, True, False],
        ("LOC", "PER"): [True, False, False, False],
        ("PER", "PER"): [True, False, False, True],
    }
    assert mask_legal(entry, None, toy_rel.LABELS).all()
    assert mask_legal(entry, {}, toy_rel.LABELS).sum(axis=1).tolist() == [1] * 6


MANY = """
import resource, sys, time
import toy_rel
from spacy.tokens import Doc
nlp = toy_rel.initialised(hidden=256)
words = ["Bo", "and"] * 3000
doc = Doc(nlp.vocab, words=words, ents=["B-PER", "O"] * 3000)
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.process_time()
toy_rel.component(nlp)(doc)
seconds = time.process_time() - began
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
print(grown / 1024, seconds)
"""


@pytest.mark.slow
def test_three_thousand_mentions() -> None:
    """Three hundred thousand pairs, in bounded memory and seconds of processor time."""
    done = subprocess.run(
        [sys.executable, "-c", MANY],
        cwd=Path(toy_rel.__file__).parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    megabytes, seconds = map(float, done.stdout.split())
    assert megabytes < 1000
    assert seconds < 45

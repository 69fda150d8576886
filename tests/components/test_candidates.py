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

from spacy_mmcot.components.pairs import count_types, find_candidates, learn_legal, mask_legal
from spacy_mmcot.corpus.extensions import set_pairs
from spacy_mmcot.model.pair_classifier import DocPairs

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
    assert list(entry.mentions) == [(ent.start, ent.end, ent.label_) for ent in ents]
    return [(ents[head], ents[tail]) for head, tail in entry.pairs.tolist()]


@pytest.mark.parametrize("seed", range(20))
def test_all_near_pairs(seed: int) -> None:
    rng = random.Random(seed)
    doc = random_doc(rng)
    for distance in (0, 1, 2, 5, 100):
        entry, surplus = find_candidates(doc, distance, 10_000)
        expected = {(a, b) for a, b in itertools.permutations(doc.ents, 2) if gap(a, b) <= distance}
        found = spans_of(entry)
        assert set(found) == expected
        assert len(found) == len(expected)
        assert surplus == 0


@pytest.mark.parametrize("n", [2, 33])
def test_pairs_come_in_the_order_of_the_text(n: int) -> None:
    entry, _ = find_candidates(doc_of([(i, i + 1) for i in range(n)], n), n, n * n)
    combinations = itertools.combinations(range(n), 2)
    assert entry.pairs.tolist() == [[*p] for a, b in combinations for p in ((a, b), (b, a))]


@pytest.mark.parametrize("seed", range(20))
def test_of_too_many_pairs_the_nearest(seed: int) -> None:
    rng = random.Random(seed)
    doc = random_doc(rng)
    gaps = sorted(gap(a, b) for a, b in itertools.permutations(doc.ents, 2) if gap(a, b) <= 9)
    for most in (0, 1, 3, 8, 1000):
        entry, surplus = find_candidates(doc, 9, most)
        found = spans_of(entry)
        assert sorted(gap(a, b) for a, b in found) == gaps[:most]
        assert len(set(found)) == len(found)
        assert surplus == max(0, len(gaps) - most)


def test_very_many_mentions_within_a_great_distance() -> None:
    # All 900 million pairs at once would take 14 GB.
    n = 30_000
    entry, surplus = find_candidates(doc_of([(i, i + 1) for i in range(n)], n), 10**30, 2 * n)
    assert len(entry.pairs) == 2 * n
    assert surplus == n * (n - 1) - 2 * n
    # Each with its neighbour, and two of those with one between them.
    gaps = abs(entry.pairs[:, 0] - entry.pairs[:, 1]) - 1
    assert ((gaps == 0).sum(), (gaps == 1).sum()) == (2 * (n - 1), 2)


def test_asked_pairs_alone() -> None:
    doc = doc_of([(0, 1), (2, 4), (9, 10)], 12)
    a, b, c = doc.ents
    set_pairs(doc, [(b, a), (a, c), (b, a), (a, doc[5:6]), (c, c)])
    # Once each; what is no entity, or joins one to itself, is no pair.
    assert spans_of(find_candidates(doc, 100, 100)[0]) == [(b, a), (a, c)]
    assert spans_of(find_candidates(doc, 3, 100)[0]) == [(b, a)]
    entry, surplus = find_candidates(doc, 100, 1)
    assert (spans_of(entry), surplus) == ([(b, a)], 1)
    set_pairs(doc, [])
    assert spans_of(find_candidates(doc, 100, 100)[0]) == []


@pytest.mark.parametrize("spans", [[], [(1, 2)]])
def test_no_pair_without_two_mentions(spans: list[tuple[int, int]]) -> None:
    entry, surplus = find_candidates(doc_of(spans, 5), 100, 100)
    assert (entry.pairs.shape, entry.pairs.dtype.name, surplus) == ((0, 2), "int64", 0)
    empty, _ = find_candidates(Doc(NLP.vocab), 100, 100)
    assert empty.pairs.shape == (0, 2)


def test_legal_labels_by_the_types_of_head_and_tail() -> None:
    doc = Doc(NLP.vocab, words=["Bo", "Rome", "Anna"], ents=["B-PER", "B-LOC", "B-PER"])
    entry, _ = find_candidates(doc, 100, 100)
    allowed = mask_legal(entry, toy_rel.LEGAL, toy_rel.LABELS)
    by_types = {
        tuple(entry.mentions[i][2] for i in pair): row.tolist()
        for pair, row in zip(entry.pairs, allowed, strict=True)
    }
    assert by_types == {
        ("PER", "LOC"): [True, True, True, False],
        ("LOC", "PER"): [True, False, False, False],
        ("PER", "PER"): [True, False, False, True],
    }
    assert mask_legal(entry, None, toy_rel.LABELS).all()
    assert mask_legal(entry, {}, toy_rel.LABELS).sum(axis=1).tolist() == [1] * 6


def test_what_gold_relations_show_is_legal() -> None:
    nlp = toy_rel.bare()
    docs = toy_rel.references(nlp)
    learned = learn_legal(count_types(docs))
    assert learned == toy_rel.LEGAL
    assert learn_legal(count_types([])) == {}


def test_pairs_left_out_are_counted_in_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    nlp = toy_rel.initialised(max_pairs=4)
    (doc,) = (d for d in toy_rel.references(nlp) if "Bo and" in d.text)
    assert len(doc.ents) == 3
    toy_rel.component(nlp).predict([doc, doc, nlp.make_doc("Bo")])
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "2 of 6 pairs of mentions in one doc were left out (max_pairs = 4)" in caplog.text
    assert doc.text in caplog.text


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
    """A hundred thousand pairs, in bounded memory and seconds of processor time."""
    done = subprocess.run(
        [sys.executable, "-c", MANY],
        cwd=Path(toy_rel.__file__).parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    megabytes, seconds = map(float, done.stdout.split())
    assert "pairs of mentions in one doc were left out" in done.stderr
    assert megabytes < 1000
    assert seconds < 15

"""Posts that are labelled in part: training ignores what nobody judged, and bars what people
rejected."""

from __future__ import annotations

import itertools
import math

import pytest
import spacy
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin
from spacy.training import Example

from spacy_mmcot.corpus.docs import make_doc
from spacy_mmcot.distillation.soft_labels import tag_losses
from spacy_mmcot.evaluation.predictions import predict_example
from spacy_mmcot.evaluation.scores import score_entities, score_seqeval
from spacy_mmcot.model.tagger import ILLEGAL, find_legal_steps
from spacy_mmcot.types import REJECTED_KEY, Entity, Post

TAGS = ["O", "B-PER", "I-PER"]
TEXT = "Anna met Bo Berg in Oslo"
PARTLY = Post(
    id="a",
    text=TEXT,
    entities=[Entity(start=0, end=4, label="PER")],
    missing=[(5, 24)],
    rejected=[Entity(start=9, end=11, label="PER")],
)


def list_mentions(path: tuple[int, ...]) -> set[tuple[int, int]]:
    starts = [i for i, tag in enumerate(path) if tag == 1]
    ends = {
        i: next((j for j in range(i + 1, len(path)) if path[j] != 2), len(path)) for i in starts
    }
    return set(ends.items())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    length=st.integers(1, 5),
    span=st.tuples(st.integers(0, 4), st.integers(1, 5)),
    known=st.lists(st.sampled_from([None, 0, 1, 2]), min_size=5, max_size=5),
)
def test_the_loss_is_that_of_enumeration(
    seed: int, length: int, span: tuple[int, int], known: list[int | None]
) -> None:
    start, end = span[0], min(span[1], length)
    generator = torch.Generator().manual_seed(seed)
    emissions = torch.randn(1, length, 3, generator=generator, requires_grad=True)
    steps = torch.randn(4, 4, generator=generator)
    transitions = steps.masked_fill(~find_legal_steps(TAGS), ILLEGAL)
    tags: list[int | None] = []
    for tag in known[:length]:
        # An I tag continues something.
        tags.append(0 if tag == 2 and (not tags or not tags[-1]) else tag)
    allowed = torch.tensor([[[t is None or t == j for j in range(3)] for t in tags]])
    rejected = [(0, start, end, 1)] if start < end else []
    loss = tag_losses(
        *(emissions, torch.tensor([length]), transitions, allowed, torch.zeros(1, length, 3)),
        rejected=rejected,
        crf=True,
    ).gold
    scores: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(3), repeat=length):
        edges = [3, *path, 3]
        score = sum(float(transitions[a, b]) for a, b in itertools.pairwise(edges))
        if score > ILLEGAL / 2:
            scores[path] = score + sum(float(emissions[0, i, t]) for i, t in enumerate(path))
    total = sum(math.exp(score) for score in scores.values())
    agreeing = {
        path: math.exp(score)
        for path, score in scores.items()
        if all(t is None or t == found for t, found in zip(tags, path, strict=True))
    }
    barred = sum(p for path, p in agreeing.items() if (start, end) in list_mentions(path))
    count = sum(t is not None for t in tags) + len(rejected)
    expected = math.log(total / sum(agreeing.values()))
    if rejected:
        expected -= math.log1p(-min(barred / sum(agreeing.values()), 1 - 1e-6))
    assert float(loss) == pytest.approx(expected / max(1, count), rel=1e-3, abs=1e-3)
    loss.backward()  # type: ignore[no-untyped-call]
    assert emissions.grad is not None and emissions.grad.isfinite().all()


def test_a_doc_holds_what_is_missing_and_rejected() -> None:
    nlp = spacy.blank("en")
    doc = make_doc(nlp, PARTLY)
    (loaded,) = DocBin(docs=[doc], store_user_data=True).get_docs(nlp.vocab)
    for found in (doc, loaded):
        assert [token.ent_iob for token in found] == [3, 0, 0, 0, 0, 0]
        assert [(s.text, s.label_) for s in found.spans[REJECTED_KEY]] == [("Bo", "PER")]
    without = make_doc(nlp, PARTLY.model_copy(update={"split": "unlabelled"}))
    assert not without.has_annotation("ENT_IOB") and REJECTED_KEY not in without.spans


def with_entities(doc: Doc, *places: tuple[int, int]) -> Example:
    predicted = Doc(doc.vocab, words=[t.text for t in doc])
    predicted.set_ents([predicted.char_span(*place, label="PER") for place in places])
    return Example(predicted, doc)


def test_scores_count_what_was_judged() -> None:
    doc = make_doc(spacy.blank("en"), PARTLY)
    open_one = with_entities(doc, (0, 4), (9, 16), (20, 24))
    assert score_entities([open_one])["ents_f"] == score_seqeval([open_one])["seqeval_f"] == 1.0
    barred = with_entities(doc, (0, 4), (9, 11))
    assert score_entities([barred])["ents_p"] == score_seqeval([barred])["seqeval_p"] == 0.5
    assert [(e.start, e.end) for e in predict_example(barred, 0).entities] == [(0, 4), (9, 11)]


def test_training_learns_nothing_of_missing_tokens_and_unlearns_the_rejected() -> None:
    nlp = toy.pipeline()

    def example(**changes: object) -> list[Example]:
        post = PARTLY.model_copy(update=changes)
        return [Example(nlp.make_doc(TEXT), make_doc(nlp, post))]

    whole = example(entities=PARTLY.rejected, rejected=None, missing=None)
    nlp.initialize(lambda: whole)
    toy.fit(nlp, whole, steps=10)
    assert [(ent.text, ent.label_) for ent in nlp(TEXT).ents] == [("Bo", "PER")]
    silent = example(missing=[(0, 24)], entities=[], rejected=None)
    assert nlp.update(silent, sgd=False, losses={})["mmcot_ner"] == 0.0  # type: ignore[arg-type]
    toy.fit(nlp, example(missing=[(0, 24)], entities=[]), steps=20)
    assert ("Bo", "PER") not in [(ent.text, ent.label_) for ent in nlp(TEXT).ents]

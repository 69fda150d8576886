"""An LLM's conclusions as soft labels, where no teacher pipeline is at hand, or as predictions.

The probability of a conclusion is how often conclusions of its label and sureness are right on
labelled Docs, or a default where too few are labelled.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc, Span
from spacy.util import filter_spans

from ..corpus.extensions import get_pairs, get_relations, list_relations
from ..model.knowledge import (
    ConcludedSpan,
    find_parts,
    get_concluded_entities,
    get_concluded_relations,
    make_tag_probabilities,
)
from ..scheme import Scheme
from ..types import DEFAULT_CONFIDENCE, NO_RELATION, SURENESS, Conclusion, Relation, Sureness
from .soft_labels import SoftRelations, list_tags, set_soft_labels, set_soft_relations

Kind = Literal["entity", "relation"]
Key = tuple[Kind, str, Sureness]

MIN_LABELLED = 50  # labelled Docs, from which on the confidence is measured
_PRIOR_WEIGHT = 4.0  # conclusions that the prior counts as
_MOST_MENTIONS = 40  # of one Doc, or part of it, whose pairs are all written


@dataclass(frozen=True)
class Confidence:
    """P(right) of a conclusion by its kind, label and sureness; by its sureness alone where that
    was not measured."""

    default: Mapping[Sureness, float] = field(default_factory=lambda: dict(DEFAULT_CONFIDENCE))
    measured: Mapping[Key, float] = field(default_factory=dict)

    def describe(self) -> str:
        """The probabilities in one line."""
        known = [f"{sure} {value:.2f}" for sure, value in self.default.items()]
        for (_, label, sure), value in sorted(self.measured.items()):
            known.append(f"{label} {sure} {value:.2f}")
        return ", ".join(known)

    def of(self, kind: Kind, label: str, sure: Sureness) -> float:
        return self.measured.get((kind, label, sure), self.default[sure])


def measure_confidence(
    docs: Iterable[Doc], default: Mapping[Sureness, float] = DEFAULT_CONFIDENCE
) -> Confidence:
    """How often conclusions are right, as far as Docs are labelled. A label's share is drawn
    towards that of all labels where there are few of it. `default` stands for entities, or
    relations, where fewer than MIN_LABELLED Docs are labelled with them."""
    found: Counter[Key] = Counter()
    right: Counter[Key] = Counter()
    n_docs: Counter[Kind] = Counter()
    for kind, judged in itertools.chain.from_iterable(map(_judge_conclusions, docs)):
        n_docs[kind] += 1
        found.update(key for key, _ in judged)
        right.update(key for key, is_right in judged if is_right)
    measured: dict[Key, float] = {}
    for kind, sure in itertools.product(n_docs, SURENESS):
        keys = [key for key in found if key[0] == kind and key[2] == sure]
        if n_docs[kind] >= MIN_LABELLED:
            pooled = _share(sum(right[k] for k in keys), sum(found[k] for k in keys), default[sure])
            measured |= {key: _share(right[key], found[key], pooled) for key in keys}
    return Confidence(dict(default), measured)


def _share(right: int, found: int, prior: float) -> float:
    return (right + _PRIOR_WEIGHT * prior) / (found + _PRIOR_WEIGHT)


def _judge_conclusions(doc: Doc) -> Iterator[tuple[Kind, list[tuple[Key, bool]]]]:
    """Whether each conclusion is right, for the kinds with which the Doc is labelled."""
    entities, relations = get_concluded_entities(doc), get_concluded_relations(doc)
    if entities is not None and doc.has_annotation("ENT_IOB"):
        spans = {(ent.start, ent.end, ent.label_) for ent in doc.ents}
        unknown = {token.i for token in doc if token.ent_iob == 0}
        entities = [c for c in entities if unknown.isdisjoint(range(c.start, c.end))]
        keys: list[Key] = [("entity", c.label, c.sure) for c in entities]
        right = [(c.start, c.end, c.label) in spans for c in entities]
        yield "entity", list(zip(keys, right, strict=True))
    if relations is not None and list_relations(doc) is not None:
        gold = {(r.head.start, r.tail.start): r.label for r in get_relations(doc)}
        keys = [("relation", c.label, c.sure) for c in relations]
        right = [gold.get((c.head, c.tail), NO_RELATION) == c.label for c in relations]
        yield "relation", list(zip(keys, right, strict=True))


def set_conclusion(
    doc: Doc, conclusion: Conclusion, scheme: Scheme, confidence: Confidence
) -> None:
    """Replace what a student found in a Doc by what an LLM concludes, which is also kept as
    knowledge.

    A student's are entities with a score, and relations, that have a label of the scheme. Of the
    LLM's, those stay out that overlap other entities or blocked tokens, and relations between
    labels that the scheme does not allow.
    """
    known = doc._.mmcot_knowledge or {}
    doc._.mmcot_knowledge = {**known, "conclusion": conclusion.model_dump(exclude_none=True)}
    relations = list(doc._.mmcot_rel)
    own = [e for e in doc.ents if e._.mmcot_score is not None and e.label_ in scheme.entities]
    for ent in own:
        ent._.mmcot_score = None
    doc.set_ents([], outside=own, default="unmodified")
    taken = {token.i for token in doc if token.ent_iob_ in ("B", "I")}  # blocked ones are B
    sure = {(c.start, c.end): c for c in get_concluded_entities(doc) or ()}
    found = []
    for span in filter_spans(Span(doc, *place, label=c.label) for place, c in sure.items()):
        if taken.isdisjoint(range(span.start, span.end)):
            sureness = sure[span.start, span.end].sure
            span._.mmcot_score = confidence.of("entity", span.label_, sureness)
            found.append(span)
    doc.set_ents(found, default="unmodified")
    if not scheme.relations and list_relations(doc) is None:
        return
    at, legal = {token.i: ent for ent in doc.ents for token in ent}, scheme.legal()
    kept = [
        relation
        for relation in relations
        if relation.label not in scheme.relations
        and all(at.get(end.start) == end for end in relation[:2])
    ]
    for c in get_concluded_relations(doc) or ():
        head, tail = at.get(c.head), at.get(c.tail)
        if head is None or tail is None or head == tail:
            continue
        if c.label in legal.get(head.label_, {}).get(tail.label_, ()):
            score = confidence.of("relation", c.label, c.sure)
            kept.append(Relation(head, tail, c.label, score))
    doc._.mmcot_rel = kept


def collect_labels(docs: Iterable[Doc]) -> tuple[list[str], list[str]]:
    """The entity and the relation labels that conclusions and gold annotations have."""
    docs = list(docs)
    entities = {c.label for doc in docs for c in get_concluded_entities(doc) or ()}
    relations = {c.label for doc in docs for c in get_concluded_relations(doc) or ()}
    entities |= {ent.label_ for doc in docs for ent in doc.ents}
    relations |= {relation.label for doc in docs for relation in get_relations(doc)}
    return sorted(entities), sorted(relations - {NO_RELATION})


def set_labels_from_conclusions(
    docs: Iterable[Doc],
    entity_labels: Sequence[str],
    relation_labels: Sequence[str] = (),
    confidence: Confidence | None = None,
) -> Iterator[Doc]:
    """Write soft labels, and soft relations where relations were asked for, onto each Doc that has
    a conclusion; the others, and parts of a text without an answer, get none. What people have
    labelled throughout is certain, whatever the conclusion is: soft labels count more in training,
    and would outvote a correction. Yields the Docs in order.

    entity_labels, relation_labels: the labels of the scheme; conclusions with others do not count.
    """
    confidence = confidence or Confidence()
    tags = list_tags(entity_labels)
    for doc in docs:
        entities = get_concluded_entities(doc)
        if entities is not None:
            known = find_parts(doc) >= 0
            spans = [
                (c.start, c.end, c.label, confidence.of("entity", c.label, c.sure))
                for c in entities
            ]
            if doc.has_annotation("ENT_IOB", require_complete=True):
                spans = [(ent.start, ent.end, ent.label_, 1.0) for ent in doc.ents]
                known[:] = True
            spans = [span for span in spans if span[2] in entity_labels]
            probabilities = make_tag_probabilities(len(doc), tags, spans)
            set_soft_labels(doc, tags, probabilities * known[:, None])
        if relation_labels:
            soft = _find_soft_relations(doc, entities or [], sorted(relation_labels), confidence)
            if soft is not None:
                set_soft_relations(doc, soft)
        yield doc


def _pair_mentions(spans: Sequence[Span], parts: NDArray[numpy.int64]) -> list[tuple[int, int]]:
    """All pairs of the first mentions of each part of a text, as indexes into spans. parts:
    (tokens,), see `find_parts`."""
    groups: dict[int, list[int]] = {}
    for i, span in enumerate(spans):
        groups.setdefault(int(parts[span.start]), []).append(i)
    groups.pop(-1, None)
    both = (itertools.permutations(group[:_MOST_MENTIONS], 2) for group in groups.values())
    return list(itertools.chain.from_iterable(both))


def _find_soft_relations(
    doc: Doc, entities: Sequence[ConcludedSpan], labels: list[str], confidence: Confidence
) -> SoftRelations | None:
    """Distributions over the pairs that were asked about, or else all pairs of the Doc's entities,
    or else of the concluded ones, in each part of the text; None without any. Of many mentions it
    is all pairs of the first ones, and those that have a relation."""
    concluded = get_concluded_relations(doc)
    if concluded is None:
        return None
    spans = list(doc.ents)
    if not doc.has_annotation("ENT_IOB"):
        spans = [Span(doc, c.start, c.end, label=c.label) for c in entities]
    if list_relations(doc) is None:
        parts = find_parts(doc)
        said = [
            (c.head, c.tail, c.label, c.or_label, confidence.of("relation", c.label, c.sure))
            for c in concluded
        ]
    else:  # people have judged the whole text
        parts = numpy.zeros(len(doc), dtype="int64")
        said = [(r.head.start, r.tail.start, r.label, None, 1.0) for r in get_relations(doc)]
    asked = get_pairs(doc)
    if asked is None:
        pairs, named = _pair_mentions(spans, parts), [(head, tail) for head, tail, *_ in said]
    else:
        pairs, named = [], [(head.start, tail.start) for head, tail in asked]
    at = {span.start: i for i, span in enumerate(spans)}
    named = [(h, t) for h, t in named if h in at and t in at and parts[h] == parts[t] >= 0]
    pairs = list(dict.fromkeys([*pairs, *((at[head], at[tail]) for head, tail in named)]))
    if not pairs:
        return None
    probabilities = numpy.zeros((len(pairs), 1 + len(labels)), dtype="float32")
    probabilities[:, 0] = 1.0
    rows = {(spans[h].start, spans[t].start): row for row, (h, t) in enumerate(pairs)}
    column = {NO_RELATION: 0, **{label: 1 + i for i, label in enumerate(labels)}}
    for head, tail, label, or_label, probability in said:
        row = rows.get((head, tail))
        if row is not None and label in column:
            probabilities[row] = 0.0
            probabilities[row, column.get(or_label or NO_RELATION, 0)] = 1 - probability
            probabilities[row, column[label]] += probability
    mentions = [(span.start_char, span.end_char, span.label_) for span in spans]
    return SoftRelations(labels, mentions, numpy.array(pairs, dtype="int64"), probabilities)

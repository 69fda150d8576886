"""Predictions from the Examples that a pipeline has run over. spaCy's objects are read here, not
imported."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..types import CONFIDENCE_KEY, ID_KEY, PAIRS_KEY, RELATIONS_KEY, Entity
from .predictions import FoundEntity, Predicted, SpanRelation

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span
    from spacy.training import Example


def predictions_of(examples: Iterable[Example], *, finds_entities: bool = True) -> list[Predicted]:
    """A record of each Example, whose predicted Doc has the reference's tokens. A Doc without an
    id is called by its number, from 0.

    A predicted mention that touches a token without annotation in a Doc that has some, and a
    relation between two gold mentions that nobody judged, are neither right nor wrong, as for the
    scorers: they are left out.

    finds_entities: whether the predicted Docs' entities are the pipeline's own findings.
    """
    return [_record(number, example, finds_entities) for number, example in enumerate(examples)]


def _record(number: int, example: Example, finds_entities: bool) -> Predicted:
    reference, predicted = example.reference, example.predicted
    found: dict[Any, Any] = predicted.user_data
    relations: list[SpanRelation] | None = None
    if RELATIONS_KEY in found:
        relations = _counted(_relations(predicted, scored=True), example)
    return Predicted(
        id=str(found.get(ID_KEY, number)),
        text=predicted.text,
        words=len(predicted),
        gold=_gold(reference) if finds_entities else None,
        entities=_found(example) if finds_entities else [],
        gold_relations=_relations(reference) if RELATIONS_KEY in reference.user_data else None,
        relations=relations,
        confidence=found.get(CONFIDENCE_KEY),
    )


def _gold(reference: Doc) -> list[Entity] | None:
    if not reference.has_annotation("ENT_IOB"):
        return None
    return [Entity(start=e.start_char, end=e.end_char, label=e.label_) for e in reference.ents]


def _found(example: Example) -> list[FoundEntity]:
    reference = example.reference
    unknown: set[int] = set()
    if reference.has_annotation("ENT_IOB"):
        unknown = {token.i for token in reference if token.ent_iob == 0}
    return [
        FoundEntity(start=e.start_char, end=e.end_char, label=e.label_, score=_score(e))
        for e in example.predicted.ents
        if unknown.isdisjoint(range(e.start, e.end))
    ]


def _score(ent: Span) -> float | None:
    return ent._.mmcot_score if ent.has_extension("mmcot_score") else None


def _relations(doc: Doc, *, scored: bool = False) -> list[SpanRelation]:
    return [
        SpanRelation(head=(h0, h1), tail=(t0, t1), label=label, score=score if scored else None)
        for h0, h1, t0, t1, label, score in doc.user_data[RELATIONS_KEY]
    ]


def _counted(relations: list[SpanRelation], example: Example) -> list[SpanRelation]:
    reference = example.reference
    if PAIRS_KEY not in reference.user_data:
        return relations
    # A gold relation's own pair was judged, listed or not.
    stored = (*reference.user_data[PAIRS_KEY], *reference.user_data.get(RELATIONS_KEY, ()))
    judged = {((h0, h1), (t0, t1)) for h0, h1, t0, t1, *_ in stored}
    gold, found = (
        {(e.start_char, e.end_char, e.label_) for e in doc.ents}
        for doc in (reference, example.predicted)
    )
    between_gold = {(start, end) for start, end, _ in gold & found}
    return [
        r
        for r in relations
        if (r.head, r.tail) in judged or not between_gold.issuperset((r.head, r.tail))
    ]

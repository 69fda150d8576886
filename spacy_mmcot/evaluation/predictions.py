"""Predictions: what was found in each Doc of a corpus beside what is labelled there.

`evaluate --predictions` writes one JSON line per Doc; `compare`, `cascade` and `report` read these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Annotated

from pydantic import Field, StrictFloat, StrictInt, StrictStr, ValidationError, model_validator
from spacy.tokens import Doc, Span
from spacy.training import Example

from ..corpus.extensions import PairOffsets, get_judged_pairs, list_missing, list_relations
from ..errors import Errors, MMCoTError
from ..files import iter_lines, write_records
from ..messages import explain, located
from ..types import (
    CONFIDENCE_KEY,
    ID_KEY,
    REJECTED_KEY,
    WEAKEST_KEY,
    Entity,
    Record,
    Text,
    check_entities,
)

Offset = Annotated[StrictInt, Field(ge=0)]
Probability = Annotated[StrictFloat, Field(ge=0.0, le=1.0)]

_CURE = "Write the file again with `evaluate --predictions`."


class FoundEntity(Entity):
    """A predicted mention. score: its probability, None where the source gives none."""

    score: Probability | None = None


class SpanRelation(Record):
    """A relation between two mentions, each given by the (start, end) of its character offsets.
    score: its probability, None for gold relations."""

    head: tuple[Offset, Offset]
    tail: tuple[Offset, Offset]
    label: Text
    score: Probability | None = None


class Predicted(Record):
    """One Doc with its gold labels and the findings.

    words: number of tokens.
    gold, gold_relations: None where the Doc is not labelled with entities, or with relations.
        `gold` is also None, and `entities` empty, where the gold entities were given to the
        pipeline.
    relations: between predicted mentions (end to end); None where relations were not predicted.
    confidence: probability that all mentions of the Doc are right; weakest: that those of its least
        certain sentence are. None where it is not known.
    """

    id: Text
    text: StrictStr
    words: Offset
    entities: list[FoundEntity]
    gold: list[Entity] | None = None
    gold_relations: list[SpanRelation] | None = None
    relations: list[SpanRelation] | None = None
    confidence: Probability | None = None
    weakest: Probability | None = None

    @model_validator(mode="after")
    def _check(self) -> Predicted:
        check_entities("gold", self.gold or [], self.text)
        check_entities("entities", self.entities, self.text)
        return self


def read_predictions(path: Path) -> list[Predicted]:
    """The records of a predictions file, in its order.

    Raises MMCoTError for a missing file, an invalid line, or an id that occurs twice.
    """
    found: dict[str, Predicted] = {}
    for line, raw in iter_lines(path):
        try:
            doc = Predicted.model_validate_json(raw)
        except ValidationError as error:
            raise located(path, line, *explain(error), _CURE) from None
        if doc.id in found:
            raise located(path, line, f"id {doc.id!r} occurs twice", "unique ids", _CURE)
        found[doc.id] = doc
    return list(found.values())


def write_predictions(path: Path, docs: Sequence[Predicted]) -> None:
    """Write all records or, on an error, none.

    Raises MMCoTError where two Docs have the same id, or the file cannot be written.
    """
    for doc_id, count in Counter(doc.id for doc in docs).items():
        if count > 1:
            raise MMCoTError(Errors.E808.format(path=path, id=doc_id))
    write_records(path, docs)


def collect_predictions(
    examples: Iterable[Example], *, finds_entities: bool = True
) -> list[Predicted]:
    """The records of Examples whose predicted Docs a pipeline has processed.

    finds_entities: False where the predicted Docs were given the gold entities.
    """
    return [predict_example(eg, number, finds_entities) for number, eg in enumerate(examples)]


def predict_example(
    example: Example, number: int, finds_entities: bool = True, *, scored: bool = True
) -> Predicted:
    """The record of one Example.

    Findings on which gold says nothing are left out: mentions that `list_judged_mentions` leaves
    out, and relations between two gold mentions that were not judged as a pair.

    number: the Doc's number, from 0, which serves as id where the Doc has none.
    finds_entities: as in `collect_predictions`. scored: whether findings have scores.
    """
    reference, predicted = example.reference, example.predicted
    labelled = reference.has_annotation("ENT_IOB")
    scored_mentions = scored and Span.has_extension("mmcot_score")
    found = [
        FoundEntity(
            start=e.start_char,
            end=e.end_char,
            label=e.label_,
            score=e._.mmcot_score if scored_mentions else None,
        )
        for e in (list_judged_mentions(example) if finds_entities else ())
    ]
    relations = _get_relations(predicted, scored=scored)
    if relations is not None:
        judged, right = list_judged_pairs(reference), set(map(get_place, reference.ents))
        if finds_entities:
            right &= set(map(get_place, predicted.ents))
        spans = {(start, end) for start, end, _ in right}
        relations = [
            r for r in relations if (*r.head, *r.tail) in judged or not {r.head, r.tail} <= spans
        ]
    gold = None
    if labelled and finds_entities:
        places = sorted(map(get_place, reference.ents))
        gold = [Entity(start=s, end=e, label=label) for s, e, label in places]
    return Predicted(
        id=str(reference.user_data.get(ID_KEY, number)),
        text=reference.text,
        words=len(reference),
        gold=gold,
        entities=found,
        gold_relations=_get_relations(reference),
        relations=relations,
        confidence=predicted.user_data.get(CONFIDENCE_KEY),
        weakest=predicted.user_data.get(WEAKEST_KEY),
    )


def get_place(span: Span) -> tuple[int, int, str]:
    """The character offsets of a mention, end exclusive, and its label."""
    return span.start_char, span.end_char, span.label_


def list_judged_mentions(example: Example) -> list[Span]:
    """The predicted mentions on which the reference says something. Where it is labelled in part,
    those that touch no token without annotation, and those that people rejected."""
    reference = example.reference
    missing = list_missing(reference) if reference.has_annotation("ENT_IOB") else []
    rejected = set(map(get_place, reference.spans.get(REJECTED_KEY, ())))
    return [
        e
        for e in example.predicted.ents
        if get_place(e) in rejected
        or not any(start < e.end_char and e.start_char < end for start, end in missing)
    ]


def list_judged_pairs(reference: Doc) -> set[PairOffsets]:
    """The judged pairs of `get_judged_pairs`; where it names none in particular, every ordered pair
    of two entities and the pairs of the gold relations."""
    pairs = get_judged_pairs(reference)
    if pairs is not None:
        return set(pairs)
    spans = [(ent.start_char, ent.end_char) for ent in reference.ents]
    every = ((*head, *tail) for head, tail in permutations(spans, 2))
    related = list_relations(reference) or ()
    return {*every, *((h0, h1, t0, t1) for h0, h1, t0, t1, *_ in related)}


def _get_relations(doc: Doc, *, scored: bool = False) -> list[SpanRelation] | None:
    """The Doc's relations, None where nobody looked for any."""
    rows = list_relations(doc)
    if rows is None:
        return None
    return [
        SpanRelation(head=(h0, h1), tail=(t0, t1), label=label, score=score if scored else None)
        for h0, h1, t0, t1, label, score in rows
    ]

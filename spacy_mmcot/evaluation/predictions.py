"""Predictions: what was found in each Doc of a corpus beside what is labelled there.

`evaluate --predictions` writes one JSON line per Doc; `compare`, `cascade` and `report` read these
records. A record needs no pipeline: `make_prediction` builds one from a labelled Doc and findings
of any origin, such as an LLM's conclusions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StrictFloat, StrictInt, StrictStr, ValidationError, model_validator
from spacy.tokens import Doc
from spacy.training import Example

from ..errors import Errors, MMCoTError, explain, located
from ..files import iter_lines, replace_file
from ..types import (
    CONFIDENCE_KEY,
    ID_KEY,
    RELATIONS_KEY,
    Entity,
    Record,
    Text,
    check_entities,
)
from .scorers import is_scored, list_judged_pairs

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
    confidence: probability that all mentions of the Doc are right; None where it is not known.
    """

    id: Text
    text: StrictStr
    words: Offset
    gold: list[Entity] | None
    entities: list[FoundEntity]
    gold_relations: list[SpanRelation] | None = None
    relations: list[SpanRelation] | None = None
    confidence: Probability | None = None

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


def write_predictions(path: Path, docs: Iterable[Predicted]) -> None:
    """Write all records or, on an error, none.

    Raises MMCoTError where two Docs have the same id, or the file cannot be written.
    """
    seen: dict[str, int] = {}
    with replace_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for number, doc in enumerate(docs):
            first = seen.setdefault(doc.id, number)
            if first != number:
                raise MMCoTError(
                    Errors.E808.format(path=path, first=first, second=number, id=doc.id)
                )
            stream.write(doc.model_dump_json() + "\n")


def collect_predictions(
    examples: Iterable[Example], *, finds_entities: bool = True
) -> list[Predicted]:
    """The records of Examples whose predicted Docs a pipeline has processed.

    finds_entities: False where the predicted Docs were given the gold entities.
    """
    return [predict_example(eg, number, finds_entities) for number, eg in enumerate(examples)]


def predict_example(
    example: Example, number: int, finds_entities: bool, *, scored: bool = True
) -> Predicted:
    """The record of one Example. number: the Doc's, from 0. scored: relations have scores."""
    doc = example.predicted
    data: dict[Any, Any] = doc.user_data
    return make_prediction(
        example.reference,
        number,
        entities=_get_entities(doc) if finds_entities else None,
        relations=_get_relations(doc, scored=scored) if RELATIONS_KEY in data else None,
        confidence=data.get(CONFIDENCE_KEY),
    )


def make_prediction(
    reference: Doc,
    number: int,
    *,
    entities: Sequence[FoundEntity] | None,
    relations: Sequence[SpanRelation] | None = None,
    confidence: float | None = None,
) -> Predicted:
    """The record of one labelled Doc and what was found in it.

    Findings on which gold says nothing are left out, as the scorers do: a mention that touches a
    token without annotation in a Doc that has some, and a relation between two gold mentions that
    were not judged as a pair.

    number: the Doc's number, from 0, which serves as id where the Doc has none.
    entities: None where the gold entities were given.
    """
    data: dict[Any, Any] = reference.user_data
    labelled = reference.has_annotation("ENT_IOB")
    gold = [Entity(start=e.start_char, end=e.end_char, label=e.label_) for e in reference.ents]
    found = list(entities or ())
    if labelled:
        unknown = [(t.idx, t.idx + len(t)) for t in reference if t.ent_iob == 0]
        found = [e for e in found if not any(s < e.end and e.start < end for s, end in unknown)]
    if relations is not None:
        judged = list_judged_pairs(reference)
        gold_labels = {(e.start, e.end): e.label for e in gold}
        labels = gold_labels if entities is None else {(e.start, e.end): e.label for e in entities}
        relations = [
            r for r in relations if is_scored((*r.head, *r.tail), judged, gold_labels, labels)
        ]
    return Predicted(
        id=str(data.get(ID_KEY, number)),
        text=reference.text,
        words=len(reference),
        gold=gold if labelled and entities is not None else None,
        entities=found,
        gold_relations=_get_relations(reference) if RELATIONS_KEY in data else None,
        relations=None if relations is None else list(relations),
        confidence=confidence,
    )


def _get_entities(doc: Doc) -> list[FoundEntity]:
    return [
        FoundEntity(
            start=e.start_char,
            end=e.end_char,
            label=e.label_,
            score=e._.mmcot_score if e.has_extension("mmcot_score") else None,
        )
        for e in doc.ents
    ]


def _get_relations(doc: Doc, *, scored: bool = False) -> list[SpanRelation]:
    data: dict[Any, Any] = doc.user_data
    return [
        SpanRelation(head=(h0, h1), tail=(t0, t1), label=label, score=score if scored else None)
        for h0, h1, t0, t1, label, score in data[RELATIONS_KEY]
    ]

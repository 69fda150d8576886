"""What a pipeline found in a corpus beside what is labelled there, a JSON line a Doc: written by
`evaluate --predictions`, read by everything that compares, calibrates or shows pipelines.

Predictions from the Examples that a pipeline has run over. spaCy's objects are read here, not
imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, StrictFloat, StrictInt, StrictStr, ValidationError, model_validator

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

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span
    from spacy.training import Example

Offset = Annotated[StrictInt, Field(ge=0)]


class FoundEntity(Entity):
    """A predicted mention, with the pipeline's probability of it where it gives one."""

    score: Annotated[StrictFloat, Field(ge=0.0, le=1.0)] | None = None


class SpanRelation(Record):
    """A relation between two mentions, each a (start, end) of character offsets; `score` is None
    where it is a gold one."""

    head: tuple[Offset, Offset]
    tail: tuple[Offset, Offset]
    label: Text
    score: Annotated[StrictFloat, Field(ge=0.0, le=1.0)] | None = None


class Predicted(Record):
    """One Doc. `gold` and `gold_relations` are None where nobody has labelled them, `relations`
    (end to end: between predicted mentions) where the pipeline looks for none. For a pipeline that
    is given the entities, `gold` is None and `entities` empty.

    confidence: probability that all mentions of the Doc are right, by the pipeline's own account;
        None where it gives none. words: number of tokens.
    """

    id: Text
    text: StrictStr
    words: Offset
    gold: list[Entity] | None
    entities: list[FoundEntity]
    gold_relations: list[SpanRelation] | None = None
    relations: list[SpanRelation] | None = None
    confidence: Annotated[StrictFloat, Field(ge=0.0, le=1.0)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Predicted:
        check_entities("gold", self.gold or [], self.text)
        check_entities("entities", self.entities, self.text)
        return self


_CURE = "Write the file anew with `evaluate --predictions`."


def read_predictions(path: Path) -> list[Predicted]:
    """The Docs of a predictions file, in its order.

    Raises MMCoTError for a file that is missing, is no such file, or names an id twice.
    """
    found: dict[str, Predicted] = {}
    for line, raw in iter_lines(path):
        try:
            doc = Predicted.model_validate_json(raw)
        except ValidationError as error:
            raise located(path, line, *explain(error), _CURE) from None
        if doc.id in found:
            raise located(path, line, f"id {doc.id!r} is there twice", "an id of its own", _CURE)
        found[doc.id] = doc
    return list(found.values())


def write_predictions(path: Path, docs: Iterable[Predicted]) -> None:
    """The whole file or none of it.

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
        gold=_gold_entities(reference) if finds_entities else None,
        entities=_found(example) if finds_entities else [],
        gold_relations=_relations(reference) if RELATIONS_KEY in reference.user_data else None,
        relations=relations,
        confidence=found.get(CONFIDENCE_KEY),
    )


def _gold_entities(reference: Doc) -> list[Entity] | None:
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
    from ..corpus.extensions import get_judged_pairs  # imports spaCy, which readers do without

    reference = example.reference
    pairs = get_judged_pairs(reference)
    if pairs is None:
        return relations
    judged = {((h0, h1), (t0, t1)) for h0, h1, t0, t1 in pairs}
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

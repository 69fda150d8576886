"""What a pipeline found in a corpus beside what is labelled there, a JSON line a Doc: written by
`evaluate --predictions`, read by everything that compares, calibrates or shows pipelines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, StrictFloat, StrictInt, StrictStr, ValidationError, model_validator

from ..errors import Errors, MMCoTError, explain, located
from ..files import iter_lines, replacing
from ..types import Entity, Record, Text, check_entities

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
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for number, doc in enumerate(docs):
            first = seen.setdefault(doc.id, number)
            if first != number:
                raise MMCoTError(
                    Errors.E808.format(path=path, first=first, second=number, id=doc.id)
                )
            stream.write(doc.model_dump_json() + "\n")

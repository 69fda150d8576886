"""An LLM's recorded rewritings of a corpus, a JSON Lines file that speaks of its rows by number."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, StrictBool, StrictInt, ValidationError

from ..errors import explain, located
from ..types import Answers, EntityVariant, Text
from .findings import Findings
from .jsonl import iter_records
from .rows import Row
from .sidecars import merge_answers


class _Rewritings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    n: StrictInt
    style: Text | None = None
    entity: Text | None = None
    swaps: list[Text] = []
    possible: StrictBool = True
    image: Text | None = None


class _Mention(NamedTuple):
    start: int
    surface: str


def attach_rewritings(path: Path, rows: list[Row], findings: Findings) -> list[Row]:
    """Give rows the answers to the prompts `style`, `entity` and `image` that a file of the form
    `{"n", "style", "entity", "swaps", "possible", "image"}` holds. `swaps` are the new surfaces of
    the row's entities, in text order.

    Raises MMCoTError where a row of the file is broken or has another number of swaps than the
    input's row of that number has entities.
    """
    found = list(rows)
    places = {row.number: i for i, row in enumerate(rows)}
    for _, line, record in iter_records(path, _Rewritings, findings):
        place = places.get(record.n)
        if place is None:
            findings.lose(
                "rewritings of rows that were left out or do not exist", f"row {record.n}"
            )
            continue
        row = found[place]
        mentions = sorted(
            _Mention(entity.start, row.post.text[entity.start : entity.end])
            for entity in row.post.entities or []
        )
        if record.entity is not None and len(record.swaps) != len(mentions):
            findings.reject(
                located(
                    path,
                    line,
                    f"{len(record.swaps)} swaps for row {record.n}, {row.post.id!r}",
                    f"one for each of its {len(mentions)} entities",
                    "Name the file that belongs to the input.",
                )
            )
            continue
        variant = None
        if record.entity is not None:
            pairs = zip(mentions, record.swaps, strict=True)
            swaps = [(old.surface, new) for old, new in pairs if old.surface != new]
            variant = EntityVariant(text=record.entity, swaps=swaps, possible=record.possible)
        try:
            answers = Answers(
                id=row.post.id, style=record.style, entity=variant, image=record.image
            )
        except ValidationError as error:
            findings.reject(located(path, line, *explain(error)))
            continue
        found[place] = row._replace(answers=merge_answers(row.answers, answers))
    return found

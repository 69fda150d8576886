"""JSON Lines as Prodigy exports them from `ner` and `rel.manual`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from ..errors import MMCoTError, located
from ..types import Post
from .rows import CURE, Findings, Row, iter_records, split_of, unique_id, validate


class _Exported(BaseModel):
    # Prodigy's rows carry hashes, view names and whatever else a recipe adds.
    model_config = ConfigDict(extra="ignore")


class _Place(_Exported):
    start: StrictInt
    end: StrictInt


class _Span(_Place):
    label: StrictStr


class _Relation(_Exported):
    label: StrictStr
    # A relation between tokens that are no span has ends without a label.
    head_span: _Place
    child_span: _Place


class _Task(_Exported):
    text: StrictStr
    spans: list[_Span] | None = None
    relations: list[_Relation] | None = None
    answer: Literal["accept", "reject", "ignore"] = "accept"
    meta: dict[str, Any] = Field(default_factory=dict)


def read_rows(path: Path, findings: Findings, ids: set[str]) -> Iterator[Row]:
    """The accepted tasks; rejected and ignored ones are reported.

    A task is named by `meta.id` where that is a text, else by the file's name and its line. One
    without `spans` counts as not labelled, one without `relations` (of a view that asks for none)
    as one whose relations nobody has labelled.
    """
    for number, line, task in iter_records(path, _Task, findings):
        if task.answer != "accept":
            findings.change(f"tasks answered {task.answer!r}, left out", f"{path}, line {line}")
            continue
        try:
            post = _post(path, line, task)
        except MMCoTError as error:
            findings.reject(error)
            continue
        yield Row(number, post.model_copy(update={"id": unique_id(post.id, ids)}))


def _post(path: Path, line: int, task: _Task) -> Post:
    spans = task.spans
    if spans is None and task.relations:
        spans = []
    fields: dict[str, Any] = {"text": task.text, "split": split_of(path)}
    name = task.meta.get("id")
    fields["id"] = name if isinstance(name, str) and name else f"{path.stem}-{line}"
    if spans is not None:
        fields["entities"] = [{"start": s.start, "end": s.end, "label": s.label} for s in spans]
    if spans is not None and task.relations is not None:
        places = {(span.start, span.end): i for i, span in enumerate(spans)}
        fields["relations"] = [
            {
                "head": _index(path, line, places, relation.head_span),
                "tail": _index(path, line, places, relation.child_span),
                "label": relation.label,
            }
            for relation in task.relations
        ]
    return validate(path, line, Post, fields)


def _index(path: Path, line: int, places: dict[tuple[int, int], int], span: _Place) -> int:
    try:
        return places[span.start, span.end]
    except KeyError:
        problem = f"a relation joins ({span.start}, {span.end}), which is none of the row's spans"
        raise located(path, line, problem, "relations between the row's spans", CURE) from None

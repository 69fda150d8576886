"""JSON Lines as Prodigy exports them from `ner` and `rel.manual`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, StrictInt, StrictStr

from ..errors import MMCoTError, located
from ..types import Post
from .posts import CURE, Findings, Row, guess_split, iter_records, make_unique_id, validate_row


# Prodigy's rows hold hashes, view names and whatever else a recipe adds, which pydantic ignores.
class _Place(BaseModel):
    start: StrictInt
    end: StrictInt


class _Span(_Place):
    label: StrictStr


class _Relation(BaseModel):
    label: StrictStr
    # No _Span: the end of a relation between mere tokens has no label.
    head_span: _Place
    child_span: _Place


class _Task(BaseModel):
    text: StrictStr
    spans: list[_Span] | None = None
    relations: list[_Relation] | None = None
    answer: Literal["accept", "reject", "ignore"] = "accept"
    meta: dict[str, Any] = Field(default_factory=dict)


def read_rows(path: Path, findings: Findings, ids: set[str]) -> Iterator[Row]:
    """The accepted tasks; rejected and ignored ones are reported.

    A task's id is `meta.id` where that is a text, else the file's name and the line. A task without
    `spans` counts as not labelled, one without `relations` as one whose relations nobody has
    labelled.
    """
    for number, line, task in iter_records(path, _Task, findings):
        if task.answer != "accept":
            findings.change(f"tasks answered {task.answer!r}, left out", f"{path}, line {line}")
            continue
        try:
            post = _make_post(path, line, task)
        except MMCoTError as error:
            findings.reject(error)
            continue
        yield Row(number, post.model_copy(update={"id": make_unique_id(post.id, ids)}))


def _make_post(path: Path, line: int, task: _Task) -> Post:
    spans = [] if task.spans is None and task.relations else task.spans
    name = task.meta.get("id")
    fields: dict[str, Any] = {
        "id": name if isinstance(name, str) and name else f"{path.stem}-{line}",
        "text": task.text,
        "split": guess_split(path),
    }
    if spans is not None:
        fields["entities"] = [span.model_dump() for span in spans]
    if spans is not None and task.relations is not None:
        indexes = {(span.start, span.end): i for i, span in enumerate(spans)}
        fields["relations"] = []
        for relation in task.relations:
            ends = [(end.start, end.end) for end in (relation.head_span, relation.child_span)]
            if unknown := [end for end in ends if end not in indexes]:
                problem = f"a relation joins {unknown[0]}, which is none of the row's spans"
                raise located(path, line, problem, "relations between the row's spans", CURE)
            head, tail = (indexes[end] for end in ends)
            fields["relations"].append({"head": head, "tail": tail, "label": relation.label})
    return validate_row(path, line, Post, fields)

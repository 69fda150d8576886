"""What annotation tools export: JSON Lines of Prodigy and of doccano, Label Studio's JSON, and
spaCy's training tuples as JSON, [text, {"entities": [[start, end, label], ...]}].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StrictInt, StrictStr

from ..files import iter_lines
from ..messages import located
from ..types import Post
from .posts import (
    CURE,
    DEFAULTS,
    Findings,
    ReadSettings,
    Row,
    iter_records,
    iter_values,
    make_text_id,
    validate_row,
)

Fields = dict[str, Any]

_PEEKED = 1000  # rows that are looked at for the format
_LEFT_OUT = "tasks answered {answer!r}, left out"
_IN_PART = "inputs of binary answers, each one post that is labelled in part"
_FURTHER = "labels beside the first one of their span or relation, left out"
_CANCELLED = "annotations that were skipped or that another one replaces, left out"


# Rows hold whatever else a tool or a recipe adds, which pydantic ignores.
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
    image: StrictStr | None = None
    path: StrictStr | None = None
    view: StrictStr | None = Field(default=None, alias="_view_id")
    input: StrictInt | None = Field(default=None, alias="_input_hash")

    @property
    def key(self) -> object:
        """What tasks about one input share."""
        return self.text if self.input is None else (self.input, self.text)


def read_prodigy(
    path: Path, findings: Findings, settings: ReadSettings = DEFAULTS
) -> Iterator[Row]:
    """The accepted tasks; rejected and ignored ones are reported. A task's id is `meta.id` where
    that is a text. One without `spans` counts as not labelled, one without `relations` as one whose
    relations nobody has labelled.

    Binary answers, each about one span, become one post for each input, labelled in part: what is
    not in an accepted span is missing, and rejected spans are no entities of their label.
    """
    tasks = list(iter_records(path, _Task, findings, settings.encoding))
    answered = [task for _, _, task in tasks if task.answer != "ignore"]
    binary = _find_binary(answered)
    groups: dict[object, list[_Task]] = {}
    for task in answered:
        groups.setdefault(task.key, []).append(task)
    for number, place, task in tasks:
        is_binary = task.key in binary
        if task.answer == "ignore" or (task.answer == "reject" and not is_binary):
            headline = _LEFT_OUT.format(answer=task.answer)
            findings.change(headline, f"{path}, {place}")
            continue
        if is_binary and groups[task.key][0] is not task:
            continue  # a part of an earlier row's post
        with findings.checking():
            if is_binary:
                findings.change(_IN_PART, f"{path}, {place}")
                fields = _merge_answers(f"{path}, {place}", groups[task.key], findings)
            else:
                fields = _read_task(path, place, task)
            post = _make_post(path, place, task.text, task.meta.get("id"), fields)
            image = task.path or task.image
            yield Row(number, post.model_copy(update={"image": image}), place)


def _find_binary(tasks: Sequence[_Task]) -> set[object]:
    """The keys of the inputs whose tasks are questions about one span each: those of the view `ner`
    or, in a file that names no views, all where no task has several spans, and one is rejected or
    is about the same input as another."""
    named = {task.key for task in tasks if task.view == "ner"}
    keys = [task.key for task in tasks]
    single = all(len(task.spans or ()) == 1 and not task.relations for task in tasks)
    repeated = len(set(keys)) < len(keys) or any(task.answer == "reject" for task in tasks)
    if single and repeated and all(task.view is None for task in tasks):
        return set(keys)
    return named


def _merge_answers(place: str, tasks: Sequence[_Task], findings: Findings) -> Fields:
    answers: dict[tuple[int, int, str], str] = {}
    for task in tasks:
        for span in task.spans or ():
            key = (span.start, span.end, span.label)
            if answers.get(key, task.answer) != task.answer:
                findings.lose("spans both accepted and rejected, the later answer kept", place)
            answers[key] = task.answer
    accepted = sorted(span for span, answer in answers.items() if answer == "accept")
    edges = [0, *(edge for start, end, _ in accepted for edge in (start, end)), len(tasks[0].text)]
    spans = {
        answer: [
            {"start": s, "end": e, "label": label}
            for s, e, label in sorted(answers)
            if answers[s, e, label] == answer
        ]
        for answer in ("accept", "reject")
    }
    return {
        "entities": spans["accept"],
        "rejected": spans["reject"] or None,
        "missing": [
            pair for pair in zip(edges[::2], edges[1::2], strict=True) if pair[0] < pair[1]
        ],
    }


def _read_task(path: Path, place: str, task: _Task) -> Fields:
    spans = [] if task.spans is None and task.relations else task.spans
    if spans is None:
        return {}
    fields: Fields = {"entities": [span.model_dump() for span in spans]}
    if task.relations is not None:
        indexes = {(span.start, span.end): i for i, span in enumerate(spans)}
        fields["relations"] = []
        for relation in task.relations:
            ends = [(end.start, end.end) for end in (relation.head_span, relation.child_span)]
            if unknown := [end for end in ends if end not in indexes]:
                problem = f"a relation joins {unknown[0]}, which is none of the row's spans"
                raise located(path, place, problem, "relations between the row's spans", CURE)
            head, tail = (indexes[end] for end in ends)
            fields["relations"].append({"head": head, "tail": tail, "label": relation.label})
    return fields


def _make_post(path: Path, place: str, text: str, name: object, fields: Fields) -> Post:
    """The post; its id is the name where that is a text or a number."""
    named = isinstance(name, str | int) and not isinstance(name, bool) and str(name)
    fields = {"id": str(name) if named else make_text_id(text), "text": text, **fields}
    return validate_row(path, place, Post, fields)


class _DoccanoSpan(BaseModel):
    id: StrictInt | None = None
    label: StrictStr
    start_offset: StrictInt
    end_offset: StrictInt


class _DoccanoRelation(BaseModel):
    from_id: StrictInt
    to_id: StrictInt
    type: StrictStr


class _DoccanoRow(BaseModel):
    id: StrictInt | StrictStr | None = None
    text: StrictStr = Field(validation_alias=AliasChoices("text", "data"))
    label: list[tuple[StrictInt, StrictInt, StrictStr]] | None = Field(
        default=None, validation_alias=AliasChoices("label", "labels")
    )
    entities: list[_DoccanoSpan] | None = None
    relations: list[_DoccanoRelation] | None = None


def read_doccano(
    path: Path, findings: Findings, settings: ReadSettings = DEFAULTS
) -> Iterator[Row]:
    """The rows of doccano's sequence labelling, with relations or without."""
    for number, place, row in iter_records(path, _DoccanoRow, findings, settings.encoding):
        entities = [
            _DoccanoSpan(label=x, start_offset=s, end_offset=e) for s, e, x in row.label or ()
        ]
        entities += row.entities or []
        fields: Fields = {}
        if row.label is not None or row.entities is not None:
            fields["entities"] = [
                {"start": e.start_offset, "end": e.end_offset, "label": e.label} for e in entities
            ]
        with findings.checking():
            if row.relations is not None and fields:
                ids = {entity.id: i for i, entity in enumerate(entities)}
                joined = [(r.from_id, r.to_id, r.type) for r in row.relations]
                fields["relations"] = _join_entities(path, place, ids, joined)
            yield Row(number, _make_post(path, place, row.text, row.id, fields), place)


def _join_entities(
    path: Path, place: str, ids: dict[Any, int], relations: Sequence[tuple[Any, Any, str]]
) -> list[Fields]:
    """The post's relations from (head id, tail id, label). ids: the entities' indexes by their ids.
    Raises MMCoTError for an id that is no entity's."""
    for head, tail, _ in relations:
        for end in (head, tail):
            if end not in ids:
                problem = f"a relation joins {end!r}, which is the id of no entity"
                raise located(path, place, problem, "relations between entities", CURE)
    return [{"head": ids[h], "tail": ids[t], "label": label} for h, t, label in relations]


class _StudioValue(BaseModel):
    start: StrictInt
    end: StrictInt
    text: StrictStr | None = None
    labels: Annotated[list[StrictStr], Field(min_length=1)]


class _StudioResult(BaseModel):
    id: StrictStr | None = None
    type: StrictStr | None = None
    value: dict[str, Any] = Field(default_factory=dict)
    from_id: StrictStr | None = None
    to_id: StrictStr | None = None
    direction: StrictStr = "right"
    labels: list[StrictStr] = Field(default_factory=list)


class _StudioAnnotation(BaseModel):
    result: list[_StudioResult]
    was_cancelled: bool = False
    ground_truth: bool = False


class _StudioTask(BaseModel):
    model_config = ConfigDict(extra="allow")

    id: StrictInt | StrictStr | None = None
    data: dict[str, Any] | None = None
    annotations: list[_StudioAnnotation] = Field(
        default_factory=list, validation_alias=AliasChoices("annotations", "completions")
    )
    label: list[_StudioValue] | None = None


def read_label_studio(
    path: Path, findings: Findings, settings: ReadSettings = DEFAULTS
) -> Iterator[Row]:
    """The tasks of Label Studio's JSON and JSON-MIN. Of several annotations of a task the ground
    truth counts, or else the last one; a task without any is not labelled."""
    for number, place, value in iter_values(path, findings, settings.encoding):
        with findings.checking():
            task = validate_row(path, place, _StudioTask, value)
            data = (task.model_extra or {}) if task.data is None else task.data
            text = _pick_text(path, place, data, settings)
            fields = _read_annotation(path, place, task, text, findings)
            if isinstance(image := data.get("image"), str) and image:
                fields["image"] = image
            name = data.get(settings.id_column or "id", task.id)
            yield Row(number, _make_post(path, place, text, name, fields), place)


def _pick_text(path: Path, place: str, data: Fields, settings: ReadSettings) -> str:
    """The text among a task's data: that of the text column, or the only one there is."""
    texts = [name for name, value in data.items() if isinstance(value, str) and name != "image"]
    wanted = settings.text_column or ("text" if "text" in data or len(texts) != 1 else texts[0])
    if not isinstance(text := data.get(wanted), str):
        problem = f"the task's data have no text {wanted!r}, but {', '.join(data) or 'nothing'}"
        raise located(path, place, problem, "a text; name its key with --text-column", CURE)
    return text


def _read_annotation(
    path: Path, place: str, task: _StudioTask, text: str, findings: Findings
) -> Fields:
    if task.label is not None:
        return {"entities": [_place_value(path, place, value, text) for value in task.label]}
    kept = [one for one in task.annotations if not one.was_cancelled]
    for _ in range(len(task.annotations) - min(len(kept), 1)):
        findings.change(_CANCELLED, f"{path}, {place}")
    if not kept:
        return {}
    results = next((one for one in kept if one.ground_truth), kept[-1]).result
    if results and not any(map(_is_about_spans, results)):
        return {}  # choices, ratings and the like
    entities: list[Fields] = []
    ids: dict[Any, int] = {}
    relations: list[tuple[Any, Any, str]] = []
    for result in results:
        if result.type != "relation" and _is_about_spans(result):
            ids[result.id] = len(entities)
            value = validate_row(path, place, _StudioValue, result.value)
            entities.append(_place_value(path, place, value, text))
            labels = value.labels
        elif result.type == "relation" and not result.labels:
            findings.lose("relations without a label, left out", f"{path}, {place}")
            continue
        elif result.type == "relation":
            labels, ends = result.labels, (result.from_id, result.to_id)
            relations += [(*ends, labels[0])] * (result.direction != "left")
            relations += [(*ends[::-1], labels[0])] * (result.direction in ("left", "bi"))
        else:
            continue
        for label in labels[1:]:
            findings.lose(_FURTHER, f"{path}, {place}: {label}")
    fields: Fields = {"entities": entities}
    if any(result.type == "relation" for result in results):
        fields["relations"] = _join_entities(path, place, ids, relations)
    return fields


def _is_about_spans(result: _StudioResult) -> bool:
    return (
        result.type in ("labels", "relation") or {"start", "end", "labels"} <= result.value.keys()
    )


def _place_value(path: Path, place: str, value: _StudioValue, text: str) -> Fields:
    """The entity of a value. Its offsets count the UTF-16 units of JavaScript or, where it was made
    elsewhere, characters; its text tells which."""
    units = text.encode("utf-16-le")
    start = len(units[: 2 * value.start].decode("utf-16-le", "ignore"))
    end = start + len(units[2 * value.start : 2 * value.end].decode("utf-16-le", "ignore"))
    if value.text is not None and text[start:end] != value.text:
        start, end = value.start, value.end
        if text[start:end] != value.text:
            problem = f"the characters {start} to {end} are not {value.text!r}"
            raise located(path, place, problem, "the text that was labelled", CURE)
    return {"start": start, "end": end, "label": value.labels[0]}


def read_tuples(path: Path, findings: Findings, settings: ReadSettings = DEFAULTS) -> Iterator[Row]:
    """spaCy's training tuples, in one JSON list or one a line."""
    expected = '[text, {"entities": [[start, end, label], ...]}]'
    for number, place, value in iter_values(path, findings, settings.encoding):
        with findings.checking():
            if isinstance(value, dict):
                value = [value.get("text"), value]
            match value:
                case [str(text), dict(annotation)]:
                    spans = annotation.get("entities")
                case _:
                    raise located(path, place, "the row is no pair of these", expected, CURE)
            fields: Fields = {}
            if spans is not None:
                if not all(isinstance(span, list) and len(span) >= 3 for span in spans):
                    raise located(path, place, f"entities is {spans!r}"[:80], expected, CURE)
                fields["entities"] = [{"start": s, "end": e, "label": x} for s, e, x, *_ in spans]
            yield Row(number, _make_post(path, place, text, annotation.get("id"), fields), place)


def peek_json(path: Path, settings: ReadSettings) -> Iterator[Any]:
    """The first values of `iter_values` that can be read."""
    values = iter_values(path, Findings(skip_invalid=True), settings.encoding)
    return (value for *_, value in islice(values, _PEEKED))


def peek_line(path: Path, settings: ReadSettings) -> str:
    """The first line of a text file that is not blank, without space around it."""
    # Broken characters are for the readers to name.
    lines = (raw.decode("utf-8", "replace") for _, raw in iter_lines(path, settings.encoding))
    return next((line.strip() for line in lines if line.strip()), "")

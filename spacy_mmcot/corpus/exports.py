"""What annotation tools export: JSON Lines of Prodigy and of doccano, Label Studio's JSON, and
spaCy's training tuples as JSON, [text, {"entities": [[start, end, label], ...]}].
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StrictInt, StrictStr

from ..types import Post
from . import posts
from .posts import BadRow, Findings, ReadSettings, Row

Fields = dict[str, Any]

_IN_PART = "inputs of binary answers, each one post that is labelled in part"
_FURTHER = "labels beside the first one of their span or relation, left out"
_CANCELLED = "annotations that were skipped or that another one replaces, left out"


# Rows hold whatever else a tool or a recipe adds, which pydantic ignores.
class _Place(BaseModel):
    start: StrictInt
    end: StrictInt

    @property
    def ends(self) -> tuple[int, int]:
        return self.start, self.end


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


def read_prodigy(path: Path, findings: Findings, settings: ReadSettings) -> Iterator[Row]:
    """The accepted tasks; rejected and ignored ones are reported. A task's id is `meta.id` where
    that is a text. One without `spans` counts as not labelled, one without `relations` as one whose
    relations nobody has labelled.

    Binary answers, each about one span, become one post for each input, labelled in part: what is
    not in an accepted span is missing, and rejected spans are no entities of their label.
    """
    tasks = list(posts.iter_records(path, _Task, findings, settings.encoding))
    groups: dict[object, list[_Task]] = defaultdict(list)
    for _, _, task in tasks:
        if task.answer != "ignore":
            groups[task.key].append(task)
    binary = _find_binary([task for group in groups.values() for task in group])
    for number, place, task in tasks:
        where, is_binary = f"{path}, {place}", task.key in binary
        if task.answer == "ignore" or (task.answer == "reject" and not is_binary):
            findings.change(f"tasks answered {task.answer!r}, left out", where)
        elif not is_binary or groups[task.key][0] is task:  # the others are parts of this post
            with findings.checking(path, place):
                if is_binary:
                    findings.change(_IN_PART, where)
                    fields = _merge_answers(where, groups[task.key], findings)
                else:
                    fields = _read_task(task)
                fields["image"] = task.path or task.image or None
                yield Row(number, _make_post(task.text, task.meta.get("id"), fields), place)


def _find_binary(tasks: Sequence[_Task]) -> set[object]:
    """The keys of the inputs whose tasks are questions about one span each: those of the view `ner`
    or, in a file that names no views, all where no task has several spans, and one is rejected or
    is about the same input as another."""
    keys = {task.key for task in tasks}
    single = all(
        len(task.spans or ()) == 1 and not task.relations and task.view is None for task in tasks
    )
    if single and (len(keys) < len(tasks) or any(task.answer == "reject" for task in tasks)):
        return keys
    return {task.key for task in tasks if task.view == "ner"}


def _merge_answers(where: str, tasks: Sequence[_Task], findings: Findings) -> Fields:
    answers: dict[tuple[int, int, str], str] = {}
    for task in tasks:
        for span in task.spans or ():
            key = (*span.ends, span.label)
            if answers.get(key, task.answer) != task.answer:
                findings.lose("spans both accepted and rejected, the later answer kept", where)
            answers[key] = task.answer
    spans: dict[str, list[Fields]] = {"accept": [], "reject": []}
    edges = [0]
    for (start, end, label), answer in sorted(answers.items()):
        spans[answer].append({"start": start, "end": end, "label": label})
        edges += [start, end] * (answer == "accept")
    edges.append(len(tasks[0].text))
    gaps = zip(edges[::2], edges[1::2], strict=True)
    return {
        "entities": spans["accept"],
        "rejected": spans["reject"] or None,
        "missing": [(start, end) for start, end in gaps if start < end],
    }


def _read_task(task: _Task) -> Fields:
    if task.spans is None and not task.relations:
        return {}
    spans = task.spans or []
    fields: Fields = {"entities": [span.model_dump() for span in spans]}
    if task.relations is not None:
        joined = [(r.head_span.ends, r.child_span.ends, r.label) for r in task.relations]
        fields["relations"] = _join_entities([span.ends for span in spans], joined)
    return fields


def _make_post(text: str, name: object, fields: Fields) -> Post:
    """The post; its id is the name where that is a text or a number."""
    named = isinstance(name, str | int) and not isinstance(name, bool) and str(name)
    return Post.model_validate({"id": named or posts.make_text_id(text), "text": text, **fields})


def _join_entities(names: Sequence[Any], relations: Sequence[tuple[Any, Any, str]]) -> list[Fields]:
    """The post's relations from (head, tail, label), the entities named as in the file."""
    return [
        {"head": posts.find_entity(names, h), "tail": posts.find_entity(names, t), "label": label}
        for h, t, label in relations
    ]


class _DoccanoSpan(BaseModel):
    id: StrictInt | None = None
    start: StrictInt = Field(alias="start_offset")
    end: StrictInt = Field(alias="end_offset")
    label: StrictStr


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


def read_doccano(path: Path, findings: Findings, settings: ReadSettings) -> Iterator[Row]:
    """The rows of doccano's sequence labelling, with relations or without."""
    for number, place, row in posts.iter_records(path, _DoccanoRow, findings, settings.encoding):
        plain = [{"start": s, "end": e, "label": label} for s, e, label in row.label or ()]
        named = [entity.model_dump() for entity in row.entities or ()]
        names = [*([None] * len(plain)), *(entity.pop("id") for entity in named)]
        fields: Fields = {}
        with findings.checking(path, place):
            if row.label is not None or row.entities is not None:
                fields["entities"] = plain + named
                if row.relations is not None:
                    joined = [(r.from_id, r.to_id, r.type) for r in row.relations]
                    fields["relations"] = _join_entities(names, joined)
            yield Row(number, _make_post(row.text, row.id, fields), place)


class _StudioValue(BaseModel):
    start: Annotated[StrictInt, Field(ge=0)]
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

    @property
    def is_about_spans(self) -> bool:
        named = {"start", "end", "labels"} <= self.value.keys()
        return named or self.type in ("labels", "relation")


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


def read_label_studio(path: Path, findings: Findings, settings: ReadSettings) -> Iterator[Row]:
    """The tasks of Label Studio's JSON and JSON-MIN. Of several annotations of a task the ground
    truth counts, or else the last one; a task without any is not labelled."""
    for number, place, task in posts.iter_records(path, _StudioTask, findings, settings.encoding):
        with findings.checking(path, place):
            data = (task.model_extra or {}) if task.data is None else task.data
            text = _pick_text(data, settings)
            fields = _read_annotation(f"{path}, {place}", task, text, findings)
            if isinstance(image := data.get("image"), str) and image:
                fields["image"] = image
            name = data.get(settings.id_column or "id", task.id)
            yield Row(number, _make_post(text, name, fields), place)


def _pick_text(data: Fields, settings: ReadSettings) -> str:
    """The text among a task's data: that of the text column, or the only one there is."""
    texts = [name for name, value in data.items() if isinstance(value, str) and name != "image"]
    wanted = settings.text_column or ("text" if "text" in data or len(texts) != 1 else texts[0])
    if not isinstance(text := data.get(wanted), str):
        problem = f"the task's data have no text {wanted!r}, but {', '.join(data) or 'nothing'}"
        raise BadRow(problem, "a text; name its key with --text-column")
    return text


def _read_annotation(where: str, task: _StudioTask, text: str, findings: Findings) -> Fields:
    if task.label is not None:
        for label in (label for value in task.label for label in value.labels[1:]):
            findings.lose(_FURTHER, f"{where}: {label}")
        return {"entities": [_place_value(value, text) for value in task.label]}
    kept = [one for one in task.annotations if not one.was_cancelled]
    for _ in task.annotations[min(len(kept), 1) :]:
        findings.change(_CANCELLED, where)
    if not kept:
        return {}
    results = next((one for one in kept if one.ground_truth), kept[-1]).result
    spans = [one for one in results if one.is_about_spans]
    if results and not spans:
        return {}  # choices, ratings and the like
    entities: list[Fields] = []
    names: list[Any] = []
    joined: list[tuple[Any, Any, str]] = []
    for result in spans:
        if result.type != "relation":
            names.append(result.id)
            value = _StudioValue.model_validate(result.value)
            entities.append(_place_value(value, text))
            further = value.labels[1:]
        elif not result.labels:
            findings.lose("relations without a label, left out", where)
            continue
        else:
            label, *further = result.labels
            ends = result.from_id, result.to_id
            joined += [(*ends, label)] * (result.direction != "left")
            joined += [(*ends[::-1], label)] * (result.direction in ("left", "bi"))
        for label in further:
            findings.lose(_FURTHER, f"{where}: {label}")
    fields: Fields = {"entities": entities}
    if any(result.type == "relation" for result in results):
        fields["relations"] = _join_entities(names, joined)
    return fields


def _place_value(value: _StudioValue, text: str) -> Fields:
    """The entity of a value. Its offsets count the UTF-16 units of JavaScript or, where it was made
    elsewhere, characters; its text tells which."""
    units = text.encode("utf-16-le")
    start = len(units[: 2 * value.start].decode("utf-16-le", "ignore"))
    end = start + len(units[2 * value.start : 2 * value.end].decode("utf-16-le", "ignore"))
    if value.text is None:
        end += max(0, value.end - len(units) // 2)  # past the text's end, which no post may be
    elif text[start:end] != value.text:
        start, end = value.start, value.end
        if text[start:end] != value.text:
            problem = f"the characters {start} to {end} are not {value.text!r}"
            raise BadRow(problem, "the text that was labelled")
    return {"start": start, "end": end, "label": value.labels[0]}


def read_tuples(path: Path, findings: Findings, settings: ReadSettings) -> Iterator[Row]:
    """spaCy's training tuples, in one JSON list or one a line."""
    expected = '[text, {"entities": [[start, end, label], ...]}]'
    for number, place, value in posts.iter_values(path, findings, settings.encoding):
        with findings.checking(path, place):
            match [value.get("text"), value] if isinstance(value, dict) else value:
                case [str(text), dict(annotation)]:
                    spans = annotation.get("entities")
                case _:
                    raise BadRow("the row is no pair of these", expected)
            fields: Fields = {}
            if spans is not None:
                good = isinstance(spans, list) and all(
                    isinstance(span, list) and len(span) >= 3 for span in spans
                )
                if not good:
                    raise BadRow(f"entities is {spans!r}"[:80], expected)
                fields["entities"] = [{"start": s, "end": e, "label": x} for s, e, x, *_ in spans]
            yield Row(number, _make_post(text, annotation.get("id"), fields), place)

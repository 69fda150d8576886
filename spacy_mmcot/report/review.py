"""Texts for a person to correct: an HTML page that needs no network, and tasks of annotation tools.
`convert` reads what comes back.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup
from spacy.language import Language

from ..corpus.formats import make_image_relative
from ..errors import Errors, UsageError
from ..evaluation.review import Review
from ..scheme import RelationLabel, Scheme
from .drawings import read_asset, render_picture, render_template

Format = Literal["html", "prodigy", "label-studio", "doccano"]
Task = dict[str, Any]
_STYLES = ("page.css", "theme.css", "overlay.css", "review.css")


def format_reviews(reviews: Sequence[Review], format: Format, scheme: Scheme, folder: Path) -> str:
    """The content of a file in `folder` with the texts, in one of the formats."""
    if format == "html":
        return render_reviews(reviews, scheme, folder)
    make: dict[str, Callable[[Review], Task]] = {
        "prodigy": make_prodigy_task,
        "label-studio": make_label_studio_task,
        "doccano": partial(
            make_doccano_task, related=any(x.post.relations is not None for x in reviews)
        ),
    }
    rows = [make[format](review) for review in reviews]
    if format == "label-studio":
        return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def make_scheme(nlp: Language) -> Scheme:
    """The labels that a pipeline finds, where nobody has defined them. Its relations may join any
    entities. Raises UsageError for a pipeline that finds none."""
    entities: list[str] = []
    relations: list[str] = []
    for name in nlp.pipe_names:
        if "doc.ents" in nlp.get_pipe_meta(name).assigns:
            entities += nlp.pipe_labels[name]
        elif nlp.get_pipe_meta(name).factory == "mmcot_rel":
            relations += nlp.pipe_labels[name]
    types = sorted(set(entities))
    if not types:
        option = "A pipeline without entity labels"
        raise UsageError(Errors.E811.format(option=option, needed="--scheme"))
    return Scheme(
        entities={label: label for label in types},
        relations={x: RelationLabel(definition=x, head=types, tail=types) for x in relations},
    )


def make_prodigy_task(review: Review) -> Task:
    """A task of `ner.manual` and `rel.manual`, which make the tokens themselves."""
    post = review.post
    spans = [entity.model_dump() for entity in post.entities or ()]
    task: Task = {"text": post.text, "spans": spans}
    if post.relations is not None:
        task["relations"] = [
            {"head_span": spans[r.head], "child_span": spans[r.tail], "label": r.label}
            for r in post.relations
        ]
    return {**task, "meta": {"id": post.id, "doubts": describe_doubts(review)}}


def make_label_studio_task(review: Review) -> Task:
    """A task whose labels are a prediction. Label Studio counts in UTF-16 units."""
    post = review.post
    results: list[Task] = []
    for number, entity in enumerate(post.entities or ()):
        start, end = (count_units(post.text[:at]) for at in (entity.start, entity.end))
        surface = post.text[entity.start : entity.end]
        value = {"start": start, "end": end, "text": surface, "labels": [entity.label]}
        names = {"id": f"e{number}", "from_name": "label", "to_name": "text", "type": "labels"}
        results.append({**names, "value": value})
    for relation in post.relations or ():
        ends = {"from_id": f"e{relation.head}", "to_id": f"e{relation.tail}"}
        what = {"type": "relation", "direction": "right", "labels": [relation.label]}
        results.append({**what, **ends})
    return {
        "data": {"id": post.id, "text": post.text},
        "predictions": [{"model_version": "spacy-mmcot", "result": results}],
    }


def describe_label_studio(scheme: Scheme) -> str:
    """The labelling interface for the tasks, as Label Studio's project settings take it."""
    return render_template(
        "studio.xml.jinja", entities=list(scheme.entities), relations=list(scheme.relations)
    )


def make_doccano_task(review: Review, related: bool) -> Task:
    """A row of doccano's JSONL for sequence labelling, with relations or without."""
    post = review.post
    if not related:
        spans = [[e.start, e.end, e.label] for e in post.entities or ()]
        return {"id": post.id, "text": post.text, "label": spans}
    entities = [
        {"id": i, "start_offset": e.start, "end_offset": e.end, "label": e.label}
        for i, e in enumerate(post.entities or ())
    ]
    task: Task = {"id": post.id, "text": post.text, "entities": entities}
    if post.relations is not None:
        task["relations"] = [
            {"id": i, "from_id": r.head, "to_id": r.tail, "type": r.label}
            for i, r in enumerate(post.relations)
        ]
    return task


def count_units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def describe_doubts(review: Review) -> str:
    """What is doubtful about a text, the most doubtful label first."""
    found = sorted(review.doubts.items(), key=lambda item: -item[1])
    return ", ".join(f"{label or 'missing'} {doubt:.1f}" for label, doubt in found if doubt > 0.05)


def _dump_post(review: Review, folder: Path) -> Task:
    post = make_image_relative(review.post, folder)
    return post.model_dump(mode="json", exclude_none=True)


def render_reviews(reviews: Sequence[Review], scheme: Scheme, folder: Path) -> str:
    """The page on which a person corrects labels with mouse and keyboard and saves them as a posts
    file for `folder`."""
    texts = [
        {
            "post": _dump_post(review, folder),
            "tokens": [[t.idx, t.idx + len(t)] for t in review.doc if not t.is_space],
            "by": review.by,
            "doubts": describe_doubts(review),
            "picture": render_picture(review.doc) if review.post.image else "",
        }
        for review in reviews
    ]
    data = {"labels": scheme.entities, "relations": _list_ends(scheme), "texts": texts}
    # Inside a script element only these characters could end it.
    content = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    script = f"\n{read_asset('review.js')}"
    digest = b64encode(sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return render_template(
        "review.html.jinja",
        policy=Markup(policy),
        style=Markup("".join(map(read_asset, _STYLES))),
        data=Markup(content),
        script=Markup(script),
        count=len(texts),
    )


def _list_ends(scheme: Scheme) -> Mapping[str, Task]:
    return {
        label: {"head": r.head, "tail": r.tail, "definition": r.definition}
        for label, r in scheme.relations.items()
    }

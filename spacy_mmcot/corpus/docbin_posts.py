"""`.spacy` files (DocBin) read back as posts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from ..errors import Errors, MMCoTError, explain
from ..types import ID_KEY, IMAGE_KEY, KNOWLEDGE, KNOWLEDGE_KEY, RELATIONS_KEY, Answers, Post
from .docbin import docbin_paths, read_docs
from .extensions import get_pairs, get_relations
from .rows import Findings, Row, split_of, unique_id


def read_rows(path: Path, findings: Findings, ids: set[str]) -> Iterator[Row]:
    """The Docs of a file, or of all `.spacy` files in a folder, with the knowledge they hold.

    A Doc without an id is named by file and number; a file's name tells the split.
    """
    number = -1
    for file in docbin_paths(path):
        for index, doc in enumerate(read_docs(file, Vocab())):
            number += 1
            try:
                row = _row(number, doc, f"{file.stem}-{index}", file, findings)
            except ValidationError as error:
                problem, expected = explain(error)
                findings.reject(
                    MMCoTError(
                        Errors.E205.format(
                            path=file, index=index, problem=problem, expected=expected
                        )
                    )
                )
                continue
            name = unique_id(row.post.id, ids)
            if name != row.post.id:
                findings.change("repeated ids, numbered", f"{file}, document {index}: {name}")
            yield _renamed(row, name)


def _row(number: int, doc: Doc, default_id: str, file: Path, findings: Findings) -> Row:
    data: dict[Any, Any] = doc.user_data
    name = data.get(ID_KEY) or default_id
    knowledge: Mapping[str, Any] = data.get(KNOWLEDGE_KEY) or {}
    image = data.get(IMAGE_KEY)
    if isinstance(image, bytes):
        findings.lose("pictures kept as bytes, which a post cannot hold", f"{file}: {name}")
        image = None
    fields: dict[str, Any] = {
        "id": name,
        "text": doc.text,
        "image": image,
        "caption": knowledge.get("caption"),
        "split": split_of(file),
    }
    if doc.has_annotation("ENT_IOB"):
        if any(token.ent_iob == 0 for token in doc):
            findings.change("documents labelled in part, read as labelled", f"{file}: {name}")
        fields["entities"] = [
            {"start": ent.start_char, "end": ent.end_char, "label": ent.label_} for ent in doc.ents
        ]
        fields["relations"] = _relations(doc, f"{file}: {name}", findings)
        fields["pairs"] = _pairs(doc, f"{file}: {name}", findings)
    answers = {key: knowledge[key] for key in KNOWLEDGE if key in knowledge}
    if "noun" in answers:
        answers["noun"] = list(answers["noun"])
    return Row(
        number,
        Post.model_validate(fields),
        Answers.model_validate({"id": name, **answers}) if answers else None,
    )


def _relations(doc: Doc, place: str, findings: Findings) -> list[dict[str, Any]] | None:
    if RELATIONS_KEY not in doc.user_data:
        return None
    found = []
    for head, tail, label, _ in get_relations(doc):
        ends = _indexes(doc, head, tail)
        if ends is None:
            findings.lose("relations between spans that are no entities", f"{place}: {label}")
        else:
            found.append({"head": ends[0], "tail": ends[1], "label": label})
    return found


def _pairs(doc: Doc, place: str, findings: Findings) -> list[tuple[int, int]] | None:
    pairs = get_pairs(doc)
    if pairs is None:
        return None
    found = []
    for head, tail in pairs:
        ends = _indexes(doc, head, tail)
        if ends is None:
            findings.lose("pairs of spans that are no entities", f"{place}: {head}, {tail}")
        else:
            found.append(ends)
    return found


def _indexes(doc: Doc, head: Span, tail: Span) -> tuple[int, int] | None:
    """The places of both among the Doc's entities; None where one is no entity."""
    places = {(ent.start, ent.end): i for i, ent in enumerate(doc.ents)}
    first, second = places.get((head.start, head.end)), places.get((tail.start, tail.end))
    return None if first is None or second is None else (first, second)


def _renamed(row: Row, name: str) -> Row:
    update = {"id": name}
    answers = row.answers and row.answers.model_copy(update=update)
    return row._replace(post=row.post.model_copy(update=update), answers=answers)

"""Files that lie beside a corpus file and speak of its rows by number, from 0: which rows count
as labelled, and what an LLM said about each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, StrictInt, StrictStr, ValidationError

from ..errors import Errors, MMCoTError, explain, located
from ..types import Answers, NounItem
from .files import iter_lines
from .findings import Findings
from .jsonl import iter_records, parse_json
from .rows import Row

_SHOWN = 5


class _Labelled(BaseModel):
    model_config = ConfigDict(extra="ignore")

    posts: list[StrictInt]


class _Knowledge(BaseModel):
    model_config = ConfigDict(extra="forbid")

    n: StrictInt
    image_id: StrictStr
    caption: StrictStr | None = None
    knowledge: StrictStr | None = None


def mark_unlabelled(path: Path, rows: list[Row], findings: Findings) -> list[Row]:
    """Give the rows that `path`, a JSON file {"posts": [numbers]}, does not name the split
    `unlabelled`.

    Raises MMCoTError where the file is broken or names a row that the input does not have.
    """
    raw = b"\n".join(line for _, line in iter_lines(path))
    try:
        wanted = set(_Labelled.model_validate(parse_json(path, 1, raw)).posts)
    except ValidationError as error:
        problem, expected = explain(error)
        raise MMCoTError(
            Errors.E207.format(path=path, problem=problem, expected=expected)
        ) from None
    absent = sorted(wanted - {row.number for row in rows})
    if absent and findings.skipped:
        for number in absent:
            findings.lose("labelled rows that were skipped or do not exist", f"row {number}")
    elif absent:
        shown = ", ".join(map(str, absent[:_SHOWN])) + (", ..." if len(absent) > _SHOWN else "")
        problem = f"{len(absent)} numbers are no rows of the input ({shown})"
        expected = f"numbers from 0 to {rows[-1].number}" if rows else "no numbers"
        raise MMCoTError(Errors.E207.format(path=path, problem=problem, expected=expected))
    update = {"split": "unlabelled"}
    return [
        row if row.number in wanted else row._replace(post=row.post.model_copy(update=update))
        for row in rows
    ]


def attach_knowledge(
    path: Path,
    rows: list[Row],
    parse: Callable[[str], tuple[list[NounItem], str]],
    findings: Findings,
) -> list[Row]:
    """Give rows the caption and the answers of a JSON Lines file of
    `{"n", "image_id", "caption", "knowledge"}`; `parse` turns the free text of `knowledge` into
    the noun list and the reasoning, which becomes the sentence answer.

    Raises MMCoTError where a row of the file is broken or belongs to another picture than the
    input's row of that number.
    """
    found = dict(enumerate(rows))
    places = {row.number: i for i, row in enumerate(rows)}
    for _, line, record in iter_records(path, _Knowledge, findings):
        place = places.get(record.n)
        if place is None:
            findings.lose("knowledge of rows that were skipped or do not exist", f"row {record.n}")
            continue
        row = found[place]
        name = row.post.id
        # A repeated id bears a number after the picture's own name.
        if name != record.image_id and not name.startswith(f"{record.image_id}-"):
            raise located(
                path,
                line,
                f"row {record.n} speaks of the picture {record.image_id!r}, but the input's row "
                f"{record.n} is {name!r}",
                "a knowledge file made from this input",
                "Name the knowledge file that belongs to the input.",
            )
        nouns, reasoning = parse(record.knowledge) if record.knowledge else ([], "")
        answers = row.answers
        if nouns or reasoning:
            answers = Answers(id=name, noun=nouns, sentence=reasoning or None)
        else:
            findings.change("posts without knowledge in the knowledge file", name)
        caption = record.caption or row.post.caption
        found[place] = Row(row.number, row.post.model_copy(update={"caption": caption}), answers)
    return list(found.values())


def merge_answers(first: Answers | None, later: Answers | None) -> Answers | None:
    """One record of both; the later one wins where both answer the same prompt."""
    if first is None or later is None:
        return later or first
    update = {name: getattr(later, name) for name in later.model_fields_set - {"id"}}
    return first.model_copy(update={k: v for k, v in update.items() if v is not None})

"""Files that lie beside a corpus file and speak of its rows by number, from 0: which rows count
as labelled, and what an LLM said about each.

An LLM's recorded augmentations of a corpus, a JSON Lines file that speaks of its rows by number.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from spacy_mmcot.corpus.posts import Findings, Row, iter_records
from spacy_mmcot.errors import Errors, MMCoTError
from spacy_mmcot.files import open_text, parse_json
from spacy_mmcot.messages import explain, located
from spacy_mmcot.types import (
    NO_RELATION,
    Answers,
    ConcludedEntity,
    ConcludedRelation,
    Conclusion,
    EntityVariant,
    Post,
    Sure,
    Text,
    merge_answers,
)

from .listing import parse_listing
from .pair_listing import parse_pair_listing

_SHOWN = 5
_UNNAMED = "mentions that their noun answer does not name"


class _Labelled(BaseModel):
    model_config = ConfigDict(extra="ignore")

    posts: list[StrictInt] | None = Field(
        default=None, validation_alias=AliasChoices("posts", "examples")
    )
    labelled: list[StrictInt] | None = None
    unlabelled: list[StrictInt] | None = None

    @model_validator(mode="after")
    def _check(self) -> _Labelled:
        if self.posts is None and self.labelled is None:
            raise ValueError("field posts is missing, and so is labelled")
        if self.posts is not None and (self.labelled or self.unlabelled) is not None:
            raise ValueError("the rows are named by posts and by labelled or unlabelled")
        both = sorted(set(self.labelled or ()) & set(self.unlabelled or ()))
        if both:
            raise ValueError(f"row {both[0]} is named as labelled and as unlabelled")
        return self


class _Knowledge(BaseModel):
    model_config = ConfigDict(extra="forbid")

    n: StrictInt
    # As the Twitter corpora have it,
    image_id: StrictStr | None = None
    caption: StrictStr | None = None
    knowledge: StrictStr | None = None
    # and as MNRE has it.
    noun: StrictStr | None = None
    sentence: StrictStr | None = None

    @model_validator(mode="after")
    def _check(self) -> _Knowledge:
        if self.image_id is None and self.noun is None and self.sentence is None:
            raise ValueError("fields image_id, noun and sentence are missing")
        if self.image_id is not None and (self.noun or self.sentence) is not None:
            raise ValueError("image_id stands beside noun or sentence, which are of another form")
        return self


def split_rows(
    path: Path, rows: list[Row], findings: Findings, further: Iterable[int] = ()
) -> list[Row]:
    """Give rows the split that `path`, a JSON file, says.

    {"posts": [numbers]}, or "examples" for "posts": all rows that it does not name are
    `unlabelled`; the others keep theirs.
    {"labelled": [numbers], "unlabelled": [numbers]}: rows that it does not name are left out, but
    for those of `further`, which count as unlabelled.

    Raises MMCoTError where the file is broken or names a row that the input does not have.
    """
    lists = _read_lists(path)
    labelled = set(lists.posts or lists.labelled or ())
    unlabelled = {*(lists.unlabelled or ()), *further} - labelled
    _check_numbers(path, labelled | unlabelled, rows, findings)
    result = []
    for row in rows:
        if row.number in labelled:
            result.append(row)
        elif row.number in unlabelled or lists.posts is not None:
            post = row.post.model_copy(update={"split": "unlabelled"})
            result.append(row._replace(post=post))
        else:
            findings.change(f"rows that {path.name} does not name, left out", row.post.id)
    return result


def read_row_numbers(path: Path, rows: list[Row], findings: Findings) -> list[int]:
    """The row numbers that `path` names as labelled, in its order. Raises MMCoTError as
    `split_rows` does."""
    lists = _read_lists(path)
    numbers = list(lists.posts or lists.labelled or ())
    _check_numbers(path, set(numbers), rows, findings)
    present = {row.number for row in rows}
    return [number for number in numbers if number in present]


def _read_lists(path: Path) -> _Labelled:
    with open_text(path) as file:
        text = file.read()
    try:
        return _Labelled.model_validate(parse_json(text))
    except ValidationError as error:
        problem, expected = explain(error)
    except ValueError as error:
        problem, expected = str(error), "one JSON object"
    raise MMCoTError(Errors.E207.format(path=path, problem=problem, expected=expected))


def _check_numbers(path: Path, wanted: set[int], rows: list[Row], findings: Findings) -> None:
    absent = sorted(wanted - {row.number for row in rows})
    if absent and (findings.skipped or findings.lost):
        headline = f"rows that {path.name} names, but that were left out or do not exist"
        for number in absent:
            findings.lose(headline, f"row {number}")
    elif absent:
        shown = ", ".join(map(str, absent[:_SHOWN])) + (", ..." if len(absent) > _SHOWN else "")
        problem = f"{len(absent)} numbers are no rows of the input ({shown})"
        expected = f"numbers from 0 to {rows[-1].number}" if rows else "no numbers"
        raise MMCoTError(Errors.E207.format(path=path, problem=problem, expected=expected))


def attach_knowledge(path: Path, rows: list[Row], findings: Findings) -> list[Row]:
    """Give rows the answers of a JSON Lines file, which has one of two forms.

    `{"n", "image_id", "caption", "knowledge"}`: `parse_listing` turns the free text of
    `knowledge` into the noun list and the reasoning, which becomes the sentence answer; the post
    gets the caption. `{"n", "noun", "sentence"}`: `parse_pair_listing` finds in the free text of
    `noun` what it says about each mention of the row.

    Raises MMCoTError where a row of the file is broken or belongs to another picture than the
    input's row of that number.
    """
    found = dict(enumerate(rows))
    places = {row.number: i for i, row in enumerate(rows)}
    for _, line, record in iter_records(path, _Knowledge, findings):
        place = places.get(record.n)
        if place is None:
            findings.lose("knowledge of rows that were left out or do not exist", f"row {record.n}")
            continue
        row = found[place]
        name = row.post.id
        # A repeated id bears a number after the picture's own name.
        if (
            record.image_id
            and name != record.image_id
            and not name.startswith(f"{record.image_id}-")
        ):
            raise located(
                path,
                line,
                f"row {record.n} speaks of the picture {record.image_id!r}, but the input's row "
                f"{record.n} is {name!r}",
                "a knowledge file made from this input",
                "Name the knowledge file that belongs to the input.",
            )
        if record.noun is not None or record.sentence is not None:
            surfaces = [row.post.text[e.start : e.end] for e in row.post.entities or []]
            nouns = parse_pair_listing(record.noun or "", surfaces)
            sentence = (record.sentence or "").strip()
            for surface in surfaces if record.noun else []:
                if surface not in {item.mention for item in nouns}:
                    findings.change(_UNNAMED, f"{name}: {surface}")
        else:
            nouns, sentence = parse_listing(record.knowledge) if record.knowledge else ([], "")
        answers = row.answers
        if nouns or sentence:
            answers = Answers(id=name, noun=nouns, sentence=sentence or None)
        else:
            findings.change("posts without knowledge in the knowledge file", name)
        caption = record.caption or row.post.caption
        post = row.post.model_copy(update={"caption": caption})
        found[place] = row._replace(post=post, answers=answers)
    return list(found.values())


class _Augmentations(BaseModel):
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


def attach_augmentations(path: Path, rows: list[Row], findings: Findings) -> list[Row]:
    """Give rows the answers to the prompts `style`, `entity` and `image` that a file of the form
    `{"n", "style", "entity", "swaps", "possible", "image"}` holds. `swaps` are the new surfaces of
    the row's entities, in text order.

    Raises MMCoTError where a row of the file is broken or has another number of swaps than the
    input's row of that number has entities.
    """
    found = list(rows)
    places = {row.number: i for i, row in enumerate(rows)}
    for _, line, record in iter_records(path, _Augmentations, findings):
        place = places.get(record.n)
        if place is None:
            findings.lose(
                "augmentations of rows that were left out or do not exist", f"row {record.n}"
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


class _Concluded(BaseModel):
    model_config = ConfigDict(extra="ignore")

    mention: Text
    label: Text
    sure: Sure


class _Conclusion(BaseModel):
    model_config = ConfigDict(extra="forbid")

    n: StrictInt
    # As the entity corpora have it,
    entities: list[_Concluded] | None = None
    # and as MNRE has it, about the one pair of a row.
    relation: Text | None = None
    sure: Sure = "high"
    or_label: Text | None = Field(default=None, alias="or")


def attach_conclusions(
    path: Path, rows: list[Row], findings: Findings, examples: Path | None = None
) -> list[Row]:
    """Give rows the conclusions of a JSON Lines file: `{"n", "entities"}` with mention, label and
    sureness of each, or `{"n", "relation", "sure", "or"}` about the pair that the row asks about.

    examples: {"examples": [numbers]}, rows that were shown to the LLM with their labels: their
        conclusions, and those of rows with the same text, are left out.

    Raises MMCoTError where a row of the file is broken.
    """
    shown = set(_read_lists(examples).posts or ()) if examples else set()
    texts = {row.post.text for row in rows if row.number in shown}
    found = list(rows)
    places = {row.number: i for i, row in enumerate(rows)}
    for _, _, record in iter_records(path, _Conclusion, findings):
        place = places.get(record.n)
        if place is None:
            continue  # The files cover more rows than some protocols take.
        row = found[place]
        if row.post.text in texts:
            findings.change("conclusions on examples or their texts, left out", row.post.id)
            continue
        if record.relation is None:
            entities = [ConcludedEntity(**item.model_dump()) for item in record.entities or ()]
            conclusion = Conclusion(entities=entities)
        else:
            conclusion = Conclusion(relations=_concluded_pairs(row.post, record))
        answers = Answers(id=row.post.id, conclusion=conclusion)
        found[place] = row._replace(answers=merge_answers(row.answers, answers))
    return found


def read_concluded_numbers(path: Path | None, findings: Findings) -> list[int]:
    """The numbers of the rows that a file of conclusions speaks of."""
    records = () if path is None else iter_records(path, _Conclusion, findings)
    return [record.n for _, _, record in records]


def _concluded_pairs(post: Post, record: _Conclusion) -> list[ConcludedRelation]:
    relations = []
    entities = post.entities or []
    for head, tail in ((entities[h], entities[t]) for h, t in post.pairs or ()):
        relations.append(
            ConcludedRelation(
                head=post.text[head.start : head.end],
                head_start=head.start,
                tail=post.text[tail.start : tail.end],
                tail_start=tail.start,
                label=record.relation or NO_RELATION,
                sure=record.sure,
                or_label=record.or_label,
            )
        )
    return relations

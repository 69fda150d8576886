"""MNRE files: a row judges one ordered pair of mentions of a tweet, and is a Python dict literal.

    {'token': [...], 'h': {'name': ..., 'pos': [start, end]}, 't': {...}, 'img_id': ...,
     'relation': ...}

Positions count tokens, end exclusive; the relation `None` says that the pair has none. A post's
text is the tokens joined by single spaces, as with CoNLL files.

Rows that judge a pair each, joined into posts that hold all pairs of their text.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictInt, model_validator

from ..errors import MMCoTError, located
from ..files import decode_line, iter_lines
from ..types import NO_RELATION, Answers, Conclusion, Entity, NounItem, Post, PostRelation, Text
from .rows import CURE, Findings, Row, split_of, unique_id, validate

# A relation's label tells what types its ends have ("/per/org/member_of"), so an end's own label
# must not repeat it.
LABEL = "ENTITY"
MAX_LINE = 100_000

_LITERAL = "one Python dict literal, {'token': [...], 'h': {...}, 't': {...}, ...}"
_SPACED = "tokens with a space inside, written with a no-break space (U+00A0)"
_NESTED = "rows left out: one mention overlaps the other, which entities of a Doc cannot"


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Mention(_Read):
    name: Text
    pos: tuple[StrictInt, StrictInt]


class _Pair(_Read):
    token: list[Text]
    h: _Mention
    t: _Mention
    img_id: Text
    relation: Text

    @model_validator(mode="after")
    def _check(self) -> _Pair:
        for role, mention in (("h", self.h), ("t", self.t)):
            start, end = mention.pos
            if not 0 <= start < end <= len(self.token):
                raise ValueError(
                    f"{role}.pos is [{start}, {end}], which is no stretch of the row's "
                    f"{len(self.token)} tokens"
                )
            surface = " ".join(self.token[start:end])
            if "".join(surface.split()) != "".join(mention.name.split()):
                raise ValueError(
                    f"{role}.name is {mention.name!r}, but the tokens at [{start}, {end}] are "
                    f"{surface!r}"
                )
        if self.h.pos == self.t.pos:
            raise ValueError(f"h and t are the same mention, {list(self.h.pos)}")
        return self


def read_rows(path: Path, findings: Findings, ids: set[str]) -> Iterator[Row]:
    """A post of two mentions for each row of an MNRE file, to be joined with those of the same
    tweet by `joining.join_rows`. Its id is the picture's, numbered where that is repeated.

    A row whose mentions overlap is reported as lost.
    """
    number = -1
    for line, raw in iter_lines(path):
        if not raw.strip():
            continue
        number += 1
        try:
            pair = validate(path, line, _Pair, _parse_literal(path, line, raw))
            post = _post(path, line, pair)
        except MMCoTError as error:
            findings.reject(error)
            continue
        if post is None:
            findings.lose(_NESTED, f"{path}, line {line}: {pair.h.name!r} and {pair.t.name!r}")
            continue
        if any(" " in word for word in pair.token):
            findings.change(_SPACED, f"{path}, line {line}")
        name = unique_id(pair.img_id, ids)
        yield Row(number, post.model_copy(update={"id": name}), group=pair.img_id)


def _parse_literal(path: Path, line: int, raw: bytes) -> Any:
    text = decode_line(path, line, raw)
    if len(text) > MAX_LINE:
        problem = f"the line has {len(text)} characters"
        raise located(path, line, problem, f"at most {MAX_LINE} characters a row", CURE)
    try:
        with warnings.catch_warnings():
            # What the literal's escapes look like to the compiler is no concern of the user.
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text)
        # A lone surrogate is a legal escape, yet no UTF-8 file could hold it.
        if "\\" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        problem = "a text holds one half of a surrogate pair"
    except (RecursionError, MemoryError):
        problem = "the literal is nested too deeply"
    except SyntaxError as error:
        problem = f"not a Python literal ({error.msg})"
    except (ValueError, TypeError):
        problem = "not a Python literal (it holds more than plain values)"
    else:
        return value
    raise located(path, line, problem, _LITERAL, CURE)


def _post(path: Path, line: int, pair: _Pair) -> Post | None:
    """The row's post, entities in text order; None where its mentions overlap."""
    starts = [0]
    for word in pair.token:
        starts.append(starts[-1] + len(word) + 1)
    head, tail = (
        Entity(start=starts[start], end=starts[end] - 1, label=LABEL)
        for start, end in (pair.h.pos, pair.t.pos)
    )
    if head.start < tail.end and tail.start < head.end:
        return None
    ends = (0, 1) if head.start < tail.start else (1, 0)
    relations = []
    if pair.relation != NO_RELATION:
        relations.append(PostRelation(head=ends[0], tail=ends[1], label=pair.relation))
    fields = {
        "id": pair.img_id,
        "text": " ".join(word.replace(" ", "\N{NO-BREAK SPACE}") for word in pair.token),
        "entities": sorted((head, tail), key=lambda entity: entity.start),
        "relations": relations,
        "pairs": [ends],
        "split": split_of(path),
    }
    return validate(path, line, Post, fields)


Place = tuple[int, int]

_OVERLAP = "rows with a mention that overlaps another row's, kept as a post of their own"
_REPEATED = "rows that repeat a pair of their post, counted once"
_CONTRARY = "rows that judge a pair of their post otherwise, of which the first one counts"


def join_rows(rows: Iterable[Row], findings: Findings) -> list[Row]:
    """Rows of one group, text and split become one post, in the place of the first of them, whose
    id, number and other fields it has; rows without a group stay as they are.

    The post's entities stand in text order, its pairs and relations in the order of the rows. Noun
    items are united by mention, and sentences strung together. A row whose mention overlaps
    another one of the post, which entities of a Doc cannot, begins a further post.
    """
    parts: list[Row | _Joint] = []
    joints: dict[tuple[str, str, str], list[_Joint]] = {}
    for row in rows:
        if row.group is None:
            parts.append(row)
            continue
        same = joints.setdefault((row.group, row.post.text, row.post.split), [])
        joint = next((joint for joint in same if joint.has_room(row.post)), None)
        if joint is None:
            if same:
                findings.change(_OVERLAP, f"row {row.number}: {row.post.id}")
            joint = _Joint()
            same.append(joint)
            parts.append(joint)
        joint.add(row, findings)
    return [part if isinstance(part, Row) else part.row() for part in parts]


@dataclass
class _Joint:
    rows: list[Row] = field(default_factory=list)
    entities: dict[Place, Entity] = field(default_factory=dict)
    # Each pair's label, None where it has no relation.
    labels: dict[tuple[Place, Place], str | None] = field(default_factory=dict)

    def has_room(self, post: Post) -> bool:
        return all(
            (new.start, new.end) == place or new.end <= place[0] or place[1] <= new.start
            for new in post.entities or []
            for place in self.entities
        )

    def add(self, row: Row, findings: Findings) -> None:
        post = row.post
        self.rows.append(row)
        places = [(entity.start, entity.end) for entity in post.entities or []]
        for place, entity in zip(places, post.entities or [], strict=True):
            self.entities.setdefault(place, entity)
        relations = {(r.head, r.tail): r.label for r in post.relations or []}
        for head, tail in post.pairs or []:
            ends, label = (places[head], places[tail]), relations.get((head, tail))
            if ends not in self.labels:
                self.labels[ends] = label
            elif self.labels[ends] == label:
                findings.change(_REPEATED, f"row {row.number}: {post.id}")
            else:
                findings.lose(_CONTRARY, f"row {row.number}: {post.id}: {label}")

    def row(self) -> Row:
        """The joined row."""
        first = self.rows[0]
        order = sorted(self.entities)
        index = {place: i for i, place in enumerate(order)}
        pairs = [(index[head], index[tail]) for head, tail in self.labels]
        relations = [
            PostRelation(head=head, tail=tail, label=label)
            for (head, tail), label in zip(pairs, self.labels.values(), strict=True)
            if label is not None
        ]
        update = {
            "entities": [self.entities[place] for place in order],
            "relations": relations,
            "pairs": pairs,
        }
        post = first.post.model_copy(update=update)
        return Row(first.number, post, self._answers(post.id))

    def _answers(self, name: str) -> Answers | None:
        known = [row.answers for row in self.rows if row.answers]
        if not known:
            return None
        nouns: dict[str, NounItem] = {}
        for answers in known:
            for item in answers.noun or []:
                nouns.setdefault(item.mention, item)
        relations = [
            relation
            for answers in known
            if answers.conclusion is not None
            for relation in answers.conclusion.relations or ()
        ]
        named = any(answers.noun is not None for answers in known)
        sentences = dict.fromkeys(answers.sentence for answers in known if answers.sentence)
        return Answers(
            id=name,
            noun=list(nouns.values()) if named else None,
            sentence=" ".join(sentences) or None,
            conclusion=Conclusion(relations=relations) if relations else None,
        )

"""MNRE files: a row judges one ordered pair of mentions of a tweet, and is a Python dict literal.

    {'token': [...], 'h': {'name': ..., 'pos': [start, end]}, 't': {...}, 'img_id': ...,
     'relation': ...}

Positions count tokens, end exclusive; the relation `None` says that the pair has none. A post's
text is the tokens joined by single spaces, as with CoNLL files. Each row is a post of its own.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from pydantic import BaseModel, StrictInt, model_validator

from ..files import decode_line
from ..types import NO_RELATION, Entity, Post, PostRelation, Text
from .conll import SPACED, replace_spaces
from .posts import BadRow, Findings, ReadSettings, Row, iter_filled_lines

# A relation's label tells what types its ends have ("/per/org/member_of"), so an end's own label
# must not repeat it.
LABEL = "ENTITY"
MAX_LINE = 100_000

_LITERAL = "one Python dict literal, {'token': [...], 'h': {...}, 't': {...}, ...}"
_NESTED = "rows left out: one mention overlaps the other, which entities of a Doc cannot"


class _Mention(BaseModel):
    name: Text
    pos: tuple[StrictInt, StrictInt]


class _Pair(BaseModel):
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
        return self


def read_rows(path: Path, findings: Findings, settings: ReadSettings) -> Iterator[Row]:
    """A post of two mentions for each row, in the group of its picture, whose id it has. A row
    whose mentions overlap is reported as lost."""
    for number, (line, raw) in enumerate(iter_filled_lines(path, settings.encoding)):
        where = f"{path}, line {line}"
        with findings.checking(path, line):
            pair = _Pair.model_validate(_parse_literal(decode_line(path, line, raw)))
            post = _make_post(pair)
            if post is None:
                findings.lose(_NESTED, f"{where}: {pair.h.name!r} and {pair.t.name!r}")
                continue
            if any(" " in word for word in pair.token):
                findings.change(SPACED, where)
            yield Row(number, post, f"line {line}", group=pair.img_id, picture=pair.img_id)


def _parse_literal(text: str) -> Any:
    if len(text) > MAX_LINE:
        problem = f"the line has {len(text)} characters"
        raise BadRow(problem, f"at most {MAX_LINE} characters a row")
    try:
        with warnings.catch_warnings():
            # The compiler warns of odd escapes in the literal.
            warnings.simplefilter("ignore")
            return ast.literal_eval(text)
    except (RecursionError, MemoryError):
        problem = "the literal is nested too deeply"
    except (SyntaxError, ValueError, TypeError):
        problem = "not a Python literal of plain values"
    raise BadRow(problem, _LITERAL)


def _make_post(pair: _Pair) -> Post | None:
    """The row's post, entities in text order; None where its mentions overlap."""
    starts = list(accumulate((len(word) + 1 for word in pair.token), initial=0))
    head, tail = (
        Entity(start=starts[start], end=starts[end] - 1, label=LABEL)
        for start, end in (pair.h.pos, pair.t.pos)
    )
    if head.start < tail.end and tail.start < head.end:
        return None
    ends = (0, 1) if head.start < tail.start else (1, 0)
    related = [PostRelation(head=ends[0], tail=ends[1], label=pair.relation)]
    return Post(
        id=pair.img_id,
        text=" ".join(map(replace_spaces, pair.token)),
        entities=sorted((head, tail), key=lambda entity: entity.start),
        relations=[] if pair.relation == NO_RELATION else related,
        pairs=[ends],
    )
